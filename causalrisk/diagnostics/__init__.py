"""Diagnostics of a fit."""

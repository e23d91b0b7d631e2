"""Learners of an outcome's mean that need nothing installed."""

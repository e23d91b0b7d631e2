"""Resampling, bootstrap, intervals and sandwich covariances."""

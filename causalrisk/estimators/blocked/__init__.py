"""Estimators of a scan, in passes over blocks of rows: the problem, the stages of estimation, resamples, JRE."""

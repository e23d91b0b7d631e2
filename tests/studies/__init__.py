"""Simulation studies, run by hand: `python -m tests.studies.study_coverage`."""

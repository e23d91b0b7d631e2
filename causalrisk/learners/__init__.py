"""Learners of the mean outcome: cross-fitting of any learner, and "smooth", which needs no additional package."""

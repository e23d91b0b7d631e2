"""Humanity's Last Exam: judged answers as a tidy frame, and the benchmark's own scores."""

from causalrisk.hle.loading import grade, load_judged, stated_confidence, write_example
from causalrisk.hle.scoring import calibration_table, score

__all__ = ["calibration_table", "grade", "load_judged", "score", "stated_confidence", "write_example"]

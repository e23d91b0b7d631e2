"""Types of options: the values are those that the options take, and a type checker refuses others."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from causalrisk.estimation import options
from causalrisk.estimation.specification import SCALES
from causalrisk.learners.cross_fitting import NAMED, SMOOTH
from causalrisk.models.permutation import SIZES
from causalrisk.numerics.families import BINARY_LINKS, CLASSES, NEGATIVE_BINOMIAL, SPELLINGS
from causalrisk.numerics.resampling import MULTIPLIERS
from causalrisk.report.etable import BELOW

ROOT = Path(__file__).resolve().parents[1]
NAMED_FAMILIES = [name for name, family in SPELLINGS.items() if family != NEGATIVE_BINOMIAL]


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("Multiplier", MULTIPLIERS), ("Alternative", SIZES),
        ("PropensityLink", BINARY_LINKS), ("OutcomeLink", CLASSES), ("Scale", SCALES), ("FamilyName", NAMED_FAMILIES),
        ("LearnerName", [SMOOTH, *NAMED]), ("Below", BELOW),
    ],
)  # fmt: skip
def test_types_have_the_values_that_options_take(name, known):
    assert sorted(get_args(getattr(options, name))) == sorted(known)


def test_calls_of_both_kinds_are_checked():
    """As `python -m mypy` does, which finds an ignored error that is none."""
    text = (ROOT / "tests" / "typed_calls.py").read_text("utf-8")
    right, wrong = text.split("def wrong")
    assert len(re.findall(r"^    \S.*\)$", right, re.M)) >= 30 <= len(re.findall(r"# type: ignore\[", wrong))
    assert 'files = ["causalrisk", "tests/typed_calls.py"]' in (ROOT / "pyproject.toml").read_text("utf-8")


@pytest.mark.slow
def test_a_type_checker_refuses_what_the_options_refuse(tmp_path):
    """Half a minute; continuous integration runs the same command."""
    command = [sys.executable, "-m", "mypy", "--cache-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout

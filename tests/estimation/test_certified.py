"""Coefficients that NIST certifies, as outcome models: the digits that double precision leaves."""

from __future__ import annotations

import numpy as np
import pytest

from tests.benchmarks import bench_digits
from tests.conftest import REFERENCE

PAGE = REFERENCE.parents[1] / "docs" / "development" / "digits.md"
ONE = 1.0  # digit that the arithmetic of a processor may cost


def shown():
    """The rows of the page: digits of each data set."""
    rows = [line.strip("| ").split(" | ") for line in PAGE.read_text("utf-8").splitlines() if line.startswith("| ")]
    return {row[0]: [float(value) for value in row[2:]] for row in rows if row[0] in bench_digits.SETS}


@pytest.mark.parametrize("name", bench_digits.SETS)
def test_coefficients_and_means_have_the_digits_of_the_page(name):
    found = bench_digits.worst_digits(name)[:3]
    assert (np.array(found) >= np.array(shown()[name][:3]) - ONE).all(), found

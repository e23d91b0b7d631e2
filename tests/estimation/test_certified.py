"""Coefficients that NIST certifies, as outcome models: the digits that double precision leaves."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tests.benchmarks import bench_digits
from tests.conftest import REFERENCE

SHOWN = pd.read_csv(REFERENCE / "nist_digits.csv", index_col="set")  # printed by bench_digits
ONE = 1.0  # digit that the arithmetic of a processor may cost


@pytest.mark.parametrize("name", bench_digits.SETS)
def test_coefficients_and_means_keep_their_digits(name):
    found = bench_digits.worst_digits(name)[:3]
    assert (np.array(found) >= SHOWN.loc[name, ["OutcomeRegression", "IPWRA", "means"]] - ONE).all(), found

"""How far the biases of the arms cancel over the propensity replicates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from causalrisk.linalg import Array
from causalrisk.risk import ate_risk


def risk_table(biases: Mapping[str, Array], slopes: Array, labels: Sequence[str]) -> pd.DataFrame:
    """Split the expected ATE risk of each estimator.

    Parameters
    ----------
    biases : mapping of str to ndarray, shape (K, B)
        For each estimator the bias of each arm under each replicate.
    slopes : ndarray, shape (K,)
        What net biases and risk multiply the biases by: one but for effects that are no differences.
    labels : sequence of str
        Labels of the arms.

    Returns
    -------
    DataFrame
        A row an estimator: mean bias of each arm and net; root mean squared net bias; expected ATE risk and its parts
        "squared mean" and "variance"; correlation of an arm's biases with those of the reference.
    """
    several = len(labels) > 2
    rows = []
    for bias in biases.values():
        mean = bias.mean(axis=1)
        scaled = slopes * mean
        risk, systematic = float(ate_risk(slopes[:, None] * bias).mean()), float(ate_risk(scaled[:, None])[0])
        row = {f"bias[{label}]": value for label, value in zip(labels, mean, strict=True)}
        for a, label in enumerate(labels[1:], start=1):
            row[f"net[{label}]" if several else "net"] = scaled[a] - scaled[0]
        row |= {"RMS net": np.sqrt(risk), "risk": risk, "squared mean": systematic, "variance": risk - systematic}
        for a, label in enumerate(labels[1:], start=1):
            row[f"correlation[{label}]" if several else "correlation"] = correlation(bias[a], bias[0])
        rows.append(row)
    return pd.DataFrame(rows, index=pd.Index(biases, name="estimator"))


def correlation(first: Array, second: Array) -> float:
    """Correlation over the replicates; NaN where a bias does not vary."""
    if len(first) < 2 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return np.nan
    return float(np.corrcoef(first, second)[0, 1])

"""Scores of the benchmark: accuracy, its half width and the calibration error, with caveats."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from causalrisk.diagnostics.calibration import (
    BIN_SIZE,
    BINNINGS,
    calibration_bins,
    rms_calibration_error,
    rms_calibration_error_se,
)
from causalrisk.errors import DesignError, DesignWarning, listed, one_of, warn_user, whole_number
from causalrisk.numerics.multiplicities import seed_sequence

NEEDED = ("arm", "answered", "correct", "confidence")


def score(frame: pd.DataFrame, binning: str = "all", *, n_boot: int = 999, rng: Any = 0) -> pd.DataFrame:
    """Score every arm as the benchmark does, and by its answers alone.

    Parameters
    ----------
    frame : DataFrame
        From `load_judged`, or some of its rows: only the questions given count.
    binning : {"all", "published"}, default "all"
        Definition of the calibration error. "published" reproduces the benchmark's scoring code, which sorts the
        answers by confidence, cuts them into bins of 100 and then leaves out the last, most confident bin; "all" keeps
        every bin.
    n_boot : int, default 999
        Resamples for the standard error of the calibration error.
    rng : int, Generator, SeedSequence or None, default 0
        Source of the resamples.

    Returns
    -------
    DataFrame, one row per arm, all but the counts in percent

        - ``accuracy``: correct answers among all questions; no answer counts as wrong; two decimals
        - ``half_width``: of its 95% interval, 1.96 sqrt(accuracy (100 - accuracy) / n_questions); two decimals
        - ``calibration_error``: root mean squared gap between stated confidence and accuracy; whole percent if
          "published"; NaN if no answer has a confidence
        - ``calibration_error_se``: its bootstrap standard error
        - ``n_questions``, ``answered``: counts
        - ``accuracy_answered``, ``half_width_answered``: the same among the questions answered

    Raises
    ------
    DesignError
        If columns are missing, or "published" is asked for with fewer than 100 answers.

    Warns
    -----
    DesignWarning
        If binning is "published" and an arm has fewer than 200 answers: the only bin is left out, and the error is 0.

    Notes
    -----
    The half width is for one arm. It says nothing about a difference between arms, which answered the same questions:
    for that use a model with ``cluster="id"``.

    Examples
    --------
    >>> import tempfile
    >>> from causalrisk import hle
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     paths = hle.write_example(folder)
    ...     frame = hle.load_judged(
    ...         {"off": paths["tools off"], "on": paths["tools on"]},
    ...         paths["questions"],
    ...     )
    >>> hle.score(frame)[["accuracy", "half_width", "answered", "accuracy_answered"]]
         accuracy  half_width  answered  accuracy_answered
    arm
    off     21.67        3.30       600              21.67
    on      24.83        3.46       427              34.89
    """
    one_of("binning", binning, BINNINGS)
    whole_number("n_boot", n_boot, 2)
    arms = dict(_arms(frame))
    seeds = seed_sequence(rng).spawn(len(arms))
    rows = [
        {**_accuracies(rows), **_calibration(arm, rows=rows, binning=binning, n_boot=n_boot, seed=seed)}
        for (arm, rows), seed in zip(arms.items(), seeds, strict=True)
    ]
    columns = [
        "accuracy", "half_width", "calibration_error", "calibration_error_se", "n_questions", "answered",
        "accuracy_answered", "half_width_answered",
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=columns, index=pd.Index(list(arms), name="arm"))


def calibration_table(frame: pd.DataFrame, size: int = BIN_SIZE) -> pd.DataFrame:
    """Stated confidence and accuracy in bins of similar confidence, for a calibration plot.

    Parameters
    ----------
    frame : DataFrame
        From `load_judged`, or some of its rows.
    size : int, default 100
        Answers in a bin; the last bin of an arm also takes what is left over.

    Returns
    -------
    DataFrame, one row per arm and bin
        ``n``, and in percent ``confidence``, ``accuracy`` and its ``half_width`` (95%). Answers without a confidence
        are left out.
    """
    whole_number("size", size, 1)
    tables = {}
    for arm, rows in _arms(frame):
        stated = _stated(rows)
        if len(stated):
            bins = calibration_bins(*_shares(stated), size)
            width = 196 * np.sqrt(bins.observed * (1 - bins.observed) / bins.n)
            values = {"n": bins.n, "confidence": 100 * bins.predicted, "accuracy": 100 * bins.observed}
            tables[arm] = pd.DataFrame({**values, "half_width": width})
    if not tables:
        raise DesignError("no answer states a confidence.\nGive load_judged judged files.")
    return pd.concat(tables, names=["arm", "bin"])


def _arms(frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    missing = [name for name in NEEDED if name not in frame]
    if missing:
        raise DesignError(f"the frame has no column {listed(missing)}.\nType  frame = load_judged(...).")
    if not len(frame):
        raise DesignError("the frame has no rows.\nType  frame = load_judged(...).")
    yield from frame.groupby("arm", sort=False, observed=True)


def _stated(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[rows["answered"] & rows["confidence"].notna()]


def _shares(rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    return rows["confidence"].to_numpy(dtype=float) / 100, rows["correct"].to_numpy(dtype=float)


def _accuracies(rows: pd.DataFrame) -> dict[str, float]:
    answered = int(rows["answered"].sum())
    accuracy, width = _accuracy(int(rows["correct"].sum()), len(rows))
    of_answers, its_width = _accuracy(int(rows.loc[rows["answered"], "correct"].sum()), answered)
    return {
        "accuracy": accuracy,
        "half_width": width,
        "n_questions": len(rows),
        "answered": answered,
        "accuracy_answered": of_answers,
        "half_width_answered": its_width,
    }


def _accuracy(correct: int, n: int) -> tuple[float, float]:
    """Percentage and half width, rounded as published: the width from the rounded percentage."""
    if not n:
        return np.nan, np.nan
    accuracy = round(100 * correct / n, 2)
    return accuracy, round(1.96 * (accuracy * (100 - accuracy) / n) ** 0.5, 2)


def _calibration(arm: str, rows: pd.DataFrame, binning: str, n_boot: int, seed: Any) -> dict[str, float]:
    shares = _shares(_stated(rows))
    if binning == "published" and BIN_SIZE <= len(shares[0]) < 2 * BIN_SIZE:
        warn_user(
            f'arm {arm!r} has {len(shares[0])} answers with a confidence: binning="published" leaves out their only '
            'bin, so the calibration error is 0 whatever they are.\nType  binning="all".',
            DesignWarning,
        )
    try:
        error = rms_calibration_error(*shares, binning)
    except DesignError as short:
        raise DesignError(f"arm {arm!r}: {short}") from short
    percent = float(round(100 * round(error, 2))) if binning == "published" else 100 * error
    se = 100 * rms_calibration_error_se(*shares, binning, n_boot=n_boot, rng=seed)
    return {"calibration_error": percent, "calibration_error_se": se}

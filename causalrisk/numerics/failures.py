"""Notes for the summary, and failures: the reasons why a resample or replicate gave no estimate."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray


class Failure:
    """Outcomes of one resample or one propensity replicate: plain integers.

    NumPy asks a member of an enum for its attributes, which Python 3.11 answers by a function of its own, and an
    interruption from the keyboard that falls into it is lost.
    """

    OK = 0
    EMPTY_ARM = 1
    SEPARATION = 2
    SINGULAR_PROPENSITY = 3
    NOT_CONVERGED = 4
    SINGULAR_OUTCOME = 5
    NO_REPLICATES = 6
    OUTCOME_SEPARATION = 7
    OUTCOME_NOT_CONVERGED = 8
    NO_EFFECT = 9


TEXT = {  # in the order of their numbers
    Failure.OK: "used",
    Failure.EMPTY_ARM: "an arm had no rows",
    Failure.SEPARATION: "the propensity model separated the arms perfectly",
    Failure.SINGULAR_PROPENSITY: "the propensity design was singular",
    Failure.NOT_CONVERGED: "the propensity fit did not converge",
    Failure.SINGULAR_OUTCOME: "the outcome design was singular in an arm",
    Failure.NO_REPLICATES: "every propensity replicate failed",
    Failure.OUTCOME_SEPARATION: "the outcome model predicted an arm's outcomes perfectly",
    Failure.OUTCOME_NOT_CONVERGED: "the outcome fit did not converge",
    Failure.NO_EFFECT: "the arm means allow no effect of this kind",
}


def failures_frame(failures: NDArray[np.int8], name: str) -> pd.DataFrame:
    """Return a table of the outcomes, a row a resample.

    Parameters
    ----------
    failures : ndarray of int, shape (m,)
        A `Failure` for each resample.
    name : str
        Name of the index.

    Returns
    -------
    DataFrame
        Columns `used` (bool) and `reason` (text).
    """
    used = failures == Failure.OK
    text = np.array(list(TEXT.values()), dtype=object)[failures]
    return pd.DataFrame({"used": used, "reason": text}, index=pd.RangeIndex(len(failures), name=name))


def failure_text(failures: NDArray[np.int8]) -> str:
    """Sentence that counts the failures by reason, the commonest first; empty when there are none."""
    codes, counts = np.unique(failures[failures != Failure.OK], return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return "; ".join(f"in {counts[k]} {TEXT[int(codes[k])]}" for k in order)


def first_failure(*failures: NDArray[np.int8]) -> NDArray[np.int8]:
    """Return for each resample the first failure in the order of the arguments, each of shape (m,); OK without one."""
    found = failures[0]
    for more in failures[1:]:
        found = np.where(found == Failure.OK, more, found)
    return found.astype(np.int8)

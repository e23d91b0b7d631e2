"""What happened on the way: notes for the summary, and why a resample or replicate gave no estimate."""

from __future__ import annotations

from enum import IntEnum

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from causalrisk.errors import CausalRiskWarning, warn_user


class Notes(list[str]):
    """Texts of the warnings of a fit, for the summary."""

    def warn(self, message: str, category: type[CausalRiskWarning]) -> None:
        """Give a warning and keep its text."""
        self.append(message)
        warn_user(message, category)


class Reason(IntEnum):
    """Outcome of one resample or one propensity replicate."""

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


TEXT = {
    Reason.OK: "used",
    Reason.EMPTY_ARM: "an arm had no rows",
    Reason.SEPARATION: "the propensity model separated the arms perfectly",
    Reason.SINGULAR_PROPENSITY: "the propensity design was singular",
    Reason.NOT_CONVERGED: "the propensity fit did not converge",
    Reason.SINGULAR_OUTCOME: "the outcome design was singular in an arm",
    Reason.NO_REPLICATES: "every propensity replicate failed",
    Reason.OUTCOME_SEPARATION: "the outcome model predicted an arm's outcomes perfectly",
    Reason.OUTCOME_NOT_CONVERGED: "the outcome fit did not converge",
    Reason.NO_EFFECT: "the arm means allow no effect of this kind",
}


def ledger_frame(reasons: NDArray[np.int8], name: str) -> pd.DataFrame:
    """Return one row a resample with its outcome.

    Parameters
    ----------
    reasons : ndarray of int, shape (m,)
        A `Reason` for each resample.
    name : str
        Name of the index.

    Returns
    -------
    DataFrame
        Columns `used` (bool) and `reason` (text).
    """
    used = reasons == Reason.OK
    text = np.array([TEXT[Reason(code)] for code in Reason], dtype=object)[reasons]
    return pd.DataFrame({"used": used, "reason": text}, index=pd.RangeIndex(len(reasons), name=name))


def failure_text(reasons: NDArray[np.int8]) -> str:
    """Sentence that counts the failures by reason, the commonest first; empty when there are none."""
    codes, counts = np.unique(reasons[reasons != Reason.OK], return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return "; ".join(f"in {counts[k]} {TEXT[Reason(codes[k])]}" for k in order)

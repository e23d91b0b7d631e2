"""Size checks: whether a design can be fitted within the memory, before any work starts."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from causalrisk.errors import DesignError
from causalrisk.runtime.memory import memory

SUMS = 6  # matrices of a resample (or cluster) at a time: a block's, the sum before, and copies within the steps
COPIES = 6  # copies of a design: columns as given and as coded, both bases, and arrays of a fit over some rows


def check_size(rows: int, columns: int, what: str) -> None:
    """Raise a DesignError where a design and the arrays of a fit do not fit the memory.

    Parameters
    ----------
    rows, columns : int
        Rows and columns of the design.
    what : str
        Name of the design, for the message.
    """
    needed, there = 8.0 * COPIES * rows * columns, memory()
    if needed > there:
        raise DesignError(
            f"{what} has {columns:,} columns and {rows:,} rows, which take {needed / 1e9:,.0f} GB with what "
            f"a fit makes of them, and this computer has {there / 1e9:,.0f} GB.\n"
            f"Use fewer columns: about {int(there / 8 / COPIES / rows):,} would fit."
        )


def check_pairs(rows: int, columns: int, what: str, why: str = "", advice: str = "Use fewer levels") -> None:
    """Raise a DesignError where the products of all pairs of columns do not fit the memory.

    Parameters
    ----------
    rows, columns : int
        Rows and columns of the design.
    what : str
        Name of the design, for the message.
    why : str
        Source of the columns.
    advice : str
        Advice other than fewer columns.
    """
    needed, there = 4.0 * rows * columns * (columns + 1), memory()
    if needed > there:
        raise DesignError(
            f"{what} has {columns:,} columns{why} and {rows:,} rows: the products of all pairs of columns take "
            f"{needed / 1e9:,.0f} GB, and this computer has {there / 1e9:,.0f} GB.\n"
            f"{advice}, or fewer columns: about {int((there / 4 / rows) ** 0.5):,} would fit."
        )


def check_matrices(count: int, columns: int, what: str, advice: str) -> None:
    """Raise a DesignError where a matrix of products of columns for each resample does not fit the memory.

    Parameters
    ----------
    count, columns : int
        Resamples, and columns of a model.
    what : str
        Name of the model, for the message.
    advice : str
        Advice other than fewer resamples.
    """
    needed, there = 8.0 * SUMS * count * columns**2, memory()
    if needed > there:
        raise DesignError(
            f"{what} has {columns:,} columns: their products for each of {count:,} resamples take "
            f"{needed / 1e9:,.0f} GB, and this computer has {there / 1e9:,.0f} GB.\n"
            f"{advice}, or use fewer resamples: about {int(there / 8 / SUMS / columns**2):,} would fit."
        )


def cluster_bytes(clusters: int, numbers: int) -> float:
    """Bytes that sums of this many numbers of each cluster take while they are added up."""
    return 8.0 * SUMS * clusters * numbers


def check_clusters_held_out(clusters: int, numbers: int, budget: float | None) -> None:
    """Raise a DesignError where sums of each cluster, which the choice of the anchor of JRE takes, fill the memory.

    Parameters
    ----------
    clusters : int
        Clusters.
    numbers : int
        Numbers in the sums of a cluster.
    budget : float or None
        Bytes that a fit may use; None for all there are.
    """
    needed, there = cluster_bytes(clusters, numbers), memory() if budget is None else min(budget, memory())
    if needed > there:
        raise DesignError(
            f"the anchor of JRE is chosen without each of {clusters:,} clusters in turn, whose sums under the "
            f"propensity replicates take {needed / 1e9:,.3g} GB, and there are {there / 1e9:,.3g} GB.\n"
            "Type  anchor=3  for a cautious one, or use fewer replicates."
        )


def check_levels(rows: int, columns: Mapping[str, pd.Series], coded: set[str], model: str) -> None:
    """Raise a DesignError where the levels of the categorical variables of a model are too many to be fitted.

    Parameters
    ----------
    rows : int
        Rows of the sample.
    columns : mapping of str to Series
        Variables of the model.
    coded : set of str
        Numeric ones that are categories too.
    model : str
        Its name, for the message.
    """
    levels = {
        name: int(values.nunique())
        for name, values in columns.items()
        if name in coded or values.dtype.kind not in "bif"
    }
    if levels:
        most = max(levels, key=lambda name: levels[name])
        check_pairs(rows, sum(levels.values()), f"the {model} model", f" ({most!r} alone has {levels[most]:,} levels)")

"""Multiple imputation of missing values, to be pooled by `pool`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype

from causalrisk.design.tables import as_table
from causalrisk.errors import DesignError, UnavailableError, whole_number
from causalrisk.numerics.multiplicities import seed_sequence

MOST_LEVELS = 50  # more levels of text are names of units, or dates
LEAF = 10  # least number of known values in a leaf
SWEEPS = 5  # times that each column is imputed from the others


def impute(data: Any, n_imputations: int = 10, *, exclude: Sequence[str] = (), rng: Any = 0) -> list[pd.DataFrame]:
    """Impute missing values several times (multiple imputation).

    Parameters
    ----------
    data : DataFrame
        Data with missing values, with the treatment, the outcome and all covariates.
    n_imputations : int, default 10
        Number of data sets to return.
    exclude : list of str, optional
        Columns that are returned as they are and do not predict others, such as names of units.
    rng : int or numpy.random.Generator, default 0
        Seed.

    Returns
    -------
    list of DataFrame
        Completed copies of `data`, with its columns, dtypes and rows.

    Raises
    ------
    DesignError
        If a column has no known value, or has text with more than 50 levels.
    UnavailableError
        If scikit-learn is not installed.

    See Also
    --------
    pool : Combine the fits by Rubin's rules.

    Notes
    -----
    Missing outcomes are imputed too, as their rows inform the imputation. Leave these rows out of the fit,
    ``completed[data["y"].notna()]``, or keep them with `observed=` and ``completed.assign(y=data["y"])``.

    Imputation is by chained equations with regression trees (method "cart" of R's mice; Burgette and Reiter 2010). A
    tree predicts each column with missing values from all other columns, five times in turn. A missing value becomes
    that of a random row in the same leaf. Known values do not change.

    Examples
    --------
    >>> import numpy as np
    >>> from causalrisk import IPWRA, datasets, impute, pool
    >>> births = datasets.load_cattaneo2()[["bweight", "mbsmoke", "mage", "medu"]]
    >>> births.loc[::3, "medu"] = np.nan
    >>> fits = [
    ...     IPWRA.from_formula("bweight ~ mage + medu", one, treat="mbsmoke").fit()
    ...     for one in impute(births, 3)
    ... ]
    >>> pool(fits).n_imputations
    3
    """
    try:
        from sklearn.tree import DecisionTreeRegressor
    except ImportError as error:
        raise UnavailableError(
            'impute() needs scikit-learn, which is not installed.\nUse `pip install "causalrisk[learners]"`.'
        ) from error
    whole_number("n_imputations", n_imputations, 1, 10)
    seeds = seed_sequence(rng).spawn(n_imputations)
    table = as_table(data, [])
    left_out = [exclude] if isinstance(exclude, str) else list(exclude)
    used = table.drop(columns=left_out)
    for name in used:
        known, number = used[name].dropna(), is_numeric_dtype(used[name])
        if known.empty or not (number or known.nunique() <= MOST_LEVELS):
            found = "no known value" if known.empty else f"more than {MOST_LEVELS} levels of text"
            raise DesignError(f"impute(): column {name!r} has {found}.\nUse `exclude={[*left_out, name]}`.")
        used[name] = used[name] if number else used[name].astype("category")
    gaps = {name: used[name].isna().to_numpy() for name in used if used[name].isna().any()}

    def completed(seed: np.random.SeedSequence) -> pd.DataFrame:
        draw, filled = np.random.default_rng(seed), used.copy()
        for name, gap in gaps.items():  # a random known value, to begin with
            filled[name] = _filled(used[name], gap, draw.choice(np.flatnonzero(~gap), gap.sum()))
        for name, gap in [*gaps.items()] * SWEEPS:
            others, known = _numbers(filled.drop(columns=name)), np.flatnonzero(~gap)
            tree = DecisionTreeRegressor(min_samples_leaf=LEAF, random_state=0)
            leaf = tree.fit(others[known], _numbers(used[[name]].iloc[known])).apply(others)
            known = known[np.argsort(leaf[known], kind="stable")]
            first, last = (np.searchsorted(leaf[known], leaf[gap], side) for side in ("left", "right"))
            filled[name] = _filled(used[name], gap, known[draw.integers(first, last)])
        donors = {name: filled[name].astype(table[name].dtype) for name in gaps}
        return table.assign(**donors)

    return [completed(seed) for seed in seeds]


def _filled(column: pd.Series, gap: np.ndarray, donors: np.ndarray) -> pd.Series:
    """Return a column whose missing values, of shape (n,), are those of the rows `donors`."""
    values = column.array.copy()
    values[gap] = column.array[donors]
    return pd.Series(values, column.index)


def _numbers(frame: pd.DataFrame) -> np.ndarray:
    """Return the columns as numbers, categories by indicators."""
    return pd.get_dummies(frame).to_numpy(dtype=float)

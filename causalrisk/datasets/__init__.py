"""Example data: one function per data set, each returning a plain DataFrame."""

from __future__ import annotations

from importlib.resources import files

import pandas as pd

__all__ = ["load_cattaneo2"]


def load_cattaneo2() -> pd.DataFrame:
    """Return birth weights and mothers' smoking in pregnancy, as used by Stata's manual for ``teffects``.

    Returns
    -------
    DataFrame, shape (4642, 23)
        One row per birth; a new frame at each call. There are no missing values. Its columns are

        - ``bweight``: birth weight of the infant, grams
        - ``mmarried``: 1 if the mother is married
        - ``mhisp``: 1 if the mother is Hispanic
        - ``fhisp``: 1 if the father is Hispanic
        - ``foreign``: 1 if the mother was born abroad
        - ``alcohol``: 1 if alcohol was consumed during pregnancy
        - ``deadkids``: 1 if a newborn died in a previous birth
        - ``mage``: age of the mother, years
        - ``medu``: education of the mother, years
        - ``fage``: age of the father, years; 0 in 294 rows, apparently where it is not known
        - ``fedu``: education of the father, years; 0 in 251 rows, apparently where it is not known
        - ``nprenatal``: number of prenatal care visits
        - ``monthslb``: months since the last birth; 0 where there was none
        - ``order``: birth order of the infant
        - ``msmoke``: cigarettes smoked a day during pregnancy, as text: ``0 daily``, ``1-5 daily``, ``6-10 daily``,
          ``11+ daily``
        - ``mbsmoke``: 1 if the mother smoked during pregnancy (864 rows)
        - ``mrace``: 1 if the mother is white
        - ``frace``: 1 if the father is white
        - ``prenatal``: trimester of the first prenatal care visit, 1 to 3; 0 if there was none
        - ``birthmonth``: month of birth, 1 to 12
        - ``lbweight``: 1 if the birth weight is low (at most 2500 grams)
        - ``fbaby``: 1 if it is the mother's first baby
        - ``prenatal1``: 1 if the first prenatal care visit was in the first trimester

    Notes
    -----
    The data come from Cattaneo [1]_ by way of Stata's example data set ``cattaneo2`` and the copy of it that
    statsmodels distributes under the BSD-3-Clause license. Names and values are Stata's; the two-valued columns that
    statsmodels ships both as text and as 0/1 are here 0/1 only.

    References
    ----------
    .. [1] M. D. Cattaneo (2010), "Efficient semiparametric estimation of multi-valued treatment effects under
       ignorability", Journal of Econometrics 155(2), 138-154.

    Examples
    --------
    >>> from causalrisk.datasets import load_cattaneo2
    >>> births = load_cattaneo2()
    >>> births.shape
    (4642, 23)
    >>> int(births["mbsmoke"].sum())
    864
    """
    with files(__name__).joinpath("cattaneo2.csv.gz").open("rb") as stream:
        return pd.read_csv(stream, compression="gzip")

"""Example data: one function per data set, each returning a plain DataFrame."""

from __future__ import annotations

from importlib.resources import files

import pandas as pd

from causalrisk.errors import one_of

__all__ = ["load_castle", "load_cattaneo2", "load_hle", "load_lalonde", "load_nhefs", "load_tutoring"]
CONTROLS = {"experimental": "nsw", "cps": "cps", "cps3": "cps3"}


def _read(name: str) -> pd.DataFrame:
    with files(__name__).joinpath(f"{name}.csv.gz").open("rb") as stream:
        return pd.read_csv(stream, compression="gzip")


def load_castle() -> pd.DataFrame:
    """Return homicide rates and castle doctrine laws of the US states, 2000 to 2010.

    Returns
    -------
    DataFrame, shape (550, 10)
        One row per state and year. There are no missing values. The columns are

        - ``state``, ``year``: the fifty states, 2000 to 2010
        - ``begins``: year in which the law took effect, 0 in the 29 states without the law
        - ``homicide``, ``robbery``, ``burglary``: offences per 100,000 inhabitants
        - ``population``: number of inhabitants, averaged over the years
        - ``police``: police officers per 100,000 inhabitants
        - ``unemployment``, ``poverty``: rates, percent

    Notes
    -----
    Castle doctrine laws widen the right to kill in self-defence. The data were collected by [1]_ and prepared for the
    book [2]_. The authors of [1]_ find 8 to 10 percent more homicides under these laws. The data were taken from the
    package causaldata (MIT license).

    References
    ----------
    .. [1] C. Cheng and M. Hoekstra (2013), "Does strengthening self-defense law deter crime or escalate violence?
       Evidence from expansions to castle doctrine", Journal of Human Resources 48(3), 821-854.
    .. [2] S. Cunningham (2021), Causal Inference: The Mixtape, chapter 9. Yale University Press.

    Examples
    --------
    >>> from causalrisk.datasets import load_castle
    >>> states = load_castle().drop_duplicates("state")
    >>> states["begins"].value_counts().sort_index().to_dict()
    {0: 29, 2005: 1, 2006: 13, 2007: 4, 2008: 2, 2009: 1}
    """
    return _read("castle")


def load_cattaneo2() -> pd.DataFrame:
    """Return birth weights and maternal smoking in pregnancy, the example data of Stata's manual for ``teffects``.

    Returns
    -------
    DataFrame, shape (4642, 23)
        One row per birth. There are no missing values. The columns are

        - ``bweight``: birth weight of the infant, grams
        - ``mmarried``: 1 if the mother is married
        - ``mhisp``: 1 if the mother is Hispanic
        - ``fhisp``: 1 if the father is Hispanic
        - ``foreign``: 1 if the mother was born abroad
        - ``alcohol``: 1 if alcohol was consumed during pregnancy
        - ``deadkids``: 1 if a newborn died in a previous birth
        - ``mage``: age of the mother, years
        - ``medu``: education of the mother, years
        - ``fage``: age of the father, years; 0 in 294 rows, apparently meaning unknown
        - ``fedu``: education of the father, years; 0 in 251 rows, apparently meaning unknown
        - ``nprenatal``: number of prenatal care visits
        - ``monthslb``: months since the last birth; 0 if there was none or it is unknown
        - ``order``: birth order of the infant
        - ``msmoke``: cigarettes smoked per day during pregnancy, as text: ``0 daily``, ``1-5 daily``, ``6-10 daily``,
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
    The data come from Cattaneo [1]_. Stata distributes them as the example data set ``cattaneo2``. They were taken from
    statsmodels (BSD-3-Clause license). Names and values are the same as in Stata. Columns with two values are coded
    0/1; the copy in statsmodels also has them as text.

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
    return _read("cattaneo2")


def load_hle() -> pd.DataFrame:
    """Return simulated answers of a language model in the format of `causalrisk.hle.load_judged`.

    Returns
    -------
    DataFrame, shape (1800, 8)
        One row per question and run. The columns are

        - ``id``: identifier of the question (600 questions)
        - ``arm``: run of the model: ``off`` without tools, ``on`` with tools and a time limit, ``unlimited`` with tools
          and no time limit
        - ``correct``: 1 if the answer is correct; 0 without an answer
        - ``confidence``: confidence stated by the model, percent; missing without an answer
        - ``answered``: True if the question was answered; with the time limit, 191 answers are missing
        - ``category``: subject of the question, eight categories
        - ``answer_type``: ``exactMatch`` or ``multipleChoice``
        - ``has_image``: True if the question has an image

    Notes
    -----
    Only the format comes from the benchmark (Humanity's Last Exam). Tools raise the chance of a correct answer by 8
    percentage points in every category. The answers to one question are correlated. With the time limit, answers in
    hard categories are missing most. ``tests/reference/make_datasets.py`` draws the data.

    Examples
    --------
    >>> from causalrisk.datasets import load_hle
    >>> load_hle().groupby("arm")[["answered", "correct"]].mean().round(3)
               answered  correct
    arm
    off           1.000    0.182
    on            0.682    0.213
    unlimited     1.000    0.283
    """
    return _read("hle")


def load_lalonde(controls: str = "experimental") -> pd.DataFrame:
    """Return earnings of men who were offered job training in an experiment, and of controls.

    Parameters
    ----------
    controls : {"experimental", "cps", "cps3"}, default "experimental"
        Control group of the 185 treated men. "experimental": the 260 men of the National Supported Work experiment who
        were randomised to no training. "cps": 15,992 men of the Current Population Survey (CPS-1). "cps3": 429 of the
        CPS-1 men, who are more similar to the treated men (CPS-3).

    Returns
    -------
    DataFrame, shape (445, 10), (16177, 10) or (614, 10)
        One row per man. There are no missing values. The columns are

        - ``treat``: 1 if offered training
        - ``age``: years
        - ``educ``: years of schooling
        - ``black``, ``hispan``: 1 if black, 1 if Hispanic
        - ``married``: 1 if married
        - ``nodegree``: 1 if without a high-school degree
        - ``re74``, ``re75``: real earnings in 1974 and 1975, before the training, dollars of 1982
        - ``re78``: real earnings in 1978, after the training, dollars of 1982

    Raises
    ------
    OptionError
        If `controls` is not one of the three.

    Notes
    -----
    These are LaLonde's data [1]_ in the sample of Dehejia and Wahba [2]_, who published them with LaLonde's permission.
    They were taken from the package causaldata (MIT license). The difference in mean ``re78`` is 1,794 dollars in the
    experiment and -8,498 dollars with "cps". The rows of "cps3" are the same as in the data set ``lalonde`` of the R
    package MatchIt. MatchIt names another survey (PSID) as the source of the controls.

    References
    ----------
    .. [1] R. J. LaLonde (1986), "Evaluating the econometric evaluations of training programs with experimental data",
       American Economic Review 76(4), 604-620.
    .. [2] R. H. Dehejia and S. Wahba (1999), "Causal effects in nonexperimental studies: reevaluating the evaluation
       of training programs", Journal of the American Statistical Association 94(448), 1053-1062.

    Examples
    --------
    >>> from causalrisk.datasets import load_lalonde
    >>> means = load_lalonde().groupby("treat")["re78"].mean()
    >>> round(float(means[1] - means[0]), 1)
    1794.3
    """
    one_of("controls", controls, tuple(CONTROLS))
    men = _read("lalonde")
    chosen = (men["treat"] == 1) | men.pop("source").str.startswith(CONTROLS[controls])
    return men[chosen].reset_index(drop=True)


def load_nhefs() -> pd.DataFrame:
    """Return data on quitting smoking and weight gain from 1971 to 1982, the example of Hernan and Robins's book.

    Returns
    -------
    DataFrame, shape (1629, 19)
        One row per person who smoked cigarettes in 1971. Weight in 1982 is missing in 63 rows, and income in 62. The
        columns are

        - ``seqn``: identifier of the person
        - ``qsmk``: 1 if the person quit smoking between 1971 and 1982
        - ``wt82_71``: weight gained from 1971 to 1982, kg
        - ``wt71``, ``wt82``: weight in 1971 and 1982, kg
        - ``sex``: 0 male, 1 female
        - ``age``: years, in 1971
        - ``race``: 0 white, 1 black or other
        - ``education``: 1 eighth grade or less, 2 high-school dropout, 3 high school, 4 college dropout, 5 college
        - ``school``: highest school grade completed
        - ``income``: family income in 1971, classes 11 (below 1,000 dollars) to 22 (25,000 or more)
        - ``marital``: 2 married, 3 widowed, 4 never married, 5 divorced, 6 separated, 8 unknown
        - ``ht``: height in 1971, cm
        - ``smokeintensity``: cigarettes smoked per day in 1971
        - ``smkintensity82_71``: change in cigarettes per day from 1971 to 1982
        - ``smokeyrs``: years of smoking
        - ``exercise``: recreational exercise, 0 much, 1 moderate, 2 little or none
        - ``active``: activity on a usual day, 0 very active, 1 moderately active, 2 inactive
        - ``death``: 1 if the person died by 1992

    Notes
    -----
    The data are from the National Health and Nutrition Examination Survey I Epidemiologic Follow-up Study (United
    States National Center for Health Statistics). They are in the public domain, and were prepared for the book [1]_.
    The copy in the package causaldata (MIT license) has 67 columns. The 19 columns listed above are included here.

    References
    ----------
    .. [1] M. A. Hernan and J. M. Robins (2020), Causal Inference: What If, chapters 12 to 14. Chapman & Hall/CRC.

    Examples
    --------
    >>> from causalrisk.datasets import load_nhefs
    >>> smokers = load_nhefs().dropna(subset=["wt82_71"])
    >>> smokers.groupby("qsmk")["wt82_71"].agg(["size", "mean"]).round(1)
          size  mean
    qsmk
    0     1163   2.0
    1      403   4.5
    """
    return _read("nhefs")


def load_tutoring() -> pd.DataFrame:
    """Return simulated test scores of pupils with and without tutoring, with both potential outcomes.

    Returns
    -------
    DataFrame, shape (2000, 8)
        One row per pupil. The columns are

        - ``score``: score of the final test, points
        - ``tutored``: 1 if the pupil had tutoring
        - ``prior``: score of an earlier test, points
        - ``parent_educ``: education of the parents, years
        - ``girl``: 1 if a girl
        - ``absences``: days missed in the year before
        - ``score_untutored``, ``score_tutored``: the scores without and with tutoring; ``score`` is one of the two

    Notes
    -----
    Weaker pupils are tutored more often, and gain more. For these 2,000 pupils, the average effect is 3.98505 points,
    the effect on the tutored is 4.37 points, and the difference in raw means is 1.25 points. The log odds of tutoring
    are linear in the covariates, and the mean score is quadratic in ``prior``. ``tests/reference/make_datasets.py``
    draws the data. The seed was chosen out of thirty so that correctly specified models come close to the true effect.
    An estimate close to the true effect is therefore no evidence for an estimator.

    Examples
    --------
    >>> from causalrisk.datasets import load_tutoring
    >>> pupils = load_tutoring()
    >>> round(float((pupils["score_tutored"] - pupils["score_untutored"]).mean()), 5)
    3.98505
    """
    return _read("tutoring")

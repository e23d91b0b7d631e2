"""Survey designs: strata, first-stage units, finite populations, subpopulations and replicate weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from causalrisk.design.tables import check_complete, listing, numbers
from causalrisk.errors import DesignError, OptionError, is_number, one_of, with_other_names
from causalrisk.errors.aliases import value_meant
from causalrisk.numerics.arrays import Array, taken

Mask = NDArray[np.bool_]
ROLES = ("strata", "psu", "fpc")  # columns of the design itself
LONELY = ("fail", "certainty", "adjust", "average")
REPLICATE_TYPES = ("BRR", "Fay", "JK1", "JKn", "bootstrap", "ACS", "SDR")
OF_REPLICATES = ("replicate_type", "rho", "scale", "rscales", "mse", "combined")
DEPENDENT = 1e-5  # smaller singular values, relative to the largest, count as zero, as in R's survey
ALL = "all"  # name of the only stratum of an unstratified design
SAME = 0.02  # ratios of replicate weights to weights that differ by less count as equal
LEVEL = 0.1  # largest distance of the mean ratio from one if half of the ratios are below one
RATIO = 2.0  # largest ratio of the sum of replicate weights, on average, to the sum of the weights


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Survey:
    """A survey design: how the sample was drawn. Standard errors account for the design.

    Parameters
    ----------
    weights : str or array_like, optional
        Sampling weights: the inverse of each row's sampling probability, on any scale.
    strata : str or array_like, optional
        Strata of the first stage.
    psu : str or array_like, optional
        First-stage units (primary sampling units). By default, each row is a unit.
    fpc : str or array_like, optional
        Finite population correction: the number of first-stage units that the stratum has in the population. If all
        values are at most one, they are sampling fractions instead: the share of these units that was sampled.
    nest : bool, default False
        Whether unit numbers restart in each stratum. If False, a unit number that occurs in two strata raises an error.
    lonely : {"fail", "certainty", "adjust", "average"}
        How to treat a stratum with a single unit, whose variance cannot be estimated.
        "fail" (default): raise an error.
        "certainty": the stratum adds no variance.
        "adjust": the stratum adds the square of its total.
        "average": the stratum adds the mean variance of the other strata.
    replicate_weights : str, list of str, DataFrame or array_like of shape (n, R), optional
        Replicate weights: names, a pattern such as "repw*", or the columns. They replace `strata`, `psu` and `fpc`.
    replicate_type : {"BRR", "Fay", "JK1", "JKn", "bootstrap", "ACS", "SDR"}, optional
        How the replicate weights were made. It determines `scale`.
    rho : float, optional
        Fay's factor, at least 0 and below 1; only for "Fay".
    scale : float, optional
        Number that multiplies the sum of squares in the variance. By default 1 / R for "BRR", 1 / (R (1 - rho)^2) for
        "Fay", (R - 1) / R for "JK1", 1 for "JKn", 1 / (R - 1) for "bootstrap", and 4 / R for "ACS" and "SDR".
    rscales : float or array_like of shape (R,), optional
        Numbers that multiply the squares of single replicates, by default 1. "JKn" needs (n_h - 1) / n_h, where n_h is
        the number of units in the stratum from which the replicate omits a unit.
    mse : bool, optional
        Whether deviations are from the estimate instead of the mean of the replicates. By default True for "ACS" and
        "SDR", and False for the others.
    combined : bool, default True
        Whether replicate weights include the sampling weights. If False, they are multiplied by `weights`.

    Notes
    -----
    Options can also be given under their names in other packages, such as ``ids="clinic"``.

    Let ``t_hj`` be the weighted sum of the influence functions of the rows of unit j in stratum h. The variance is
    ``sum_h (1 - f_h) n_h / (n_h - 1) sum_j (t_hj - mean_h)(t_hj - mean_h)'`` [1]_, with (units - strata) degrees of
    freedom. With replicate weights, every step is repeated under each replicate. The variance is
    ``scale sum_r rscales_r (theta_r - mean)(theta_r - mean)'``, with (rank of the replicate weights - 1) degrees of
    freedom. Both agree with R's survey package [2]_.

    References
    ----------
    .. [1] Binder, D. A. (1983). On the variances of asymptotically normal estimators from complex surveys.
       International Statistical Review 51, 279-292.
    .. [2] Lumley, T. (2010). Complex Surveys. Wiley.

    Examples
    --------
    >>> import numpy as np
    >>> from causalrisk import IPWRA, Survey, datasets
    >>> births = datasets.load_cattaneo2()
    >>> births["region"] = births.mage // 10
    >>> births["clinic"] = np.arange(len(births)) % 40
    >>> model = IPWRA.from_formula(
    ...     "bweight ~ mage + medu",
    ...     births,
    ...     treat="mbsmoke",
    ...     design=Survey(strata="region", psu="clinic", nest=True),
    ... )
    >>> model.fit().df_resid
    147.0
    """

    weights: Any = None
    strata: Any = None
    psu: Any = None
    fpc: Any = None
    nest: bool = False
    lonely: str = "fail"
    replicate_weights: Any = None
    replicate_type: str | None = None
    rho: float | None = None
    scale: float | None = None
    rscales: Any = None
    mse: bool | None = None
    combined: bool = True

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            object.__setattr__(self, name, value_meant(name, value))
        one_of("lonely", self.lonely, LONELY)
        if self.replicate_weights is not None:
            self._check_replicates()
            return
        for name in OF_REPLICATES:
            if getattr(self, name) is not getattr(Survey, name):
                raise OptionError(f"{name}= was given without replicate_weights=.\nAdd `replicate_weights=`.")

    def __repr__(self) -> str:
        given = {one.name: getattr(self, one.name) for one in dataclasses.fields(self)}
        given = {name: value for name, value in given.items() if value is not getattr(Survey, name)}
        typed = [f"{k}={v!r}" if np.isscalar(v) or isinstance(v, list) else f"{k}={k}" for k, v in given.items()]
        return f"Survey({', '.join(typed)})"  # arrays are shown by their role

    def _check_replicates(self) -> None:
        one_of("replicate_type", self.replicate_type, (None, *REPLICATE_TYPES))
        design = [name for name in ROLES if getattr(self, name) is not None]
        rho, scale, found = 0 if self.rho is None else self.rho, self.scale, ""
        if design:
            found = f"replicate_weights= and {'= and '.join(design)}= were both given"
        elif self.weights is None or (self.replicate_type is None and scale is None):
            found = "replicate_weights= needs weights=, and replicate_type= or scale="
        elif (self.replicate_type == "Fay") != (self.rho is not None) or not 0 <= rho < 1:
            found = f'replicate_type={self.replicate_type!r} with rho={self.rho!r}; expected 0 <= rho < 1 with "Fay"'
        elif self.replicate_type == "JKn" and self.rscales is None:
            found = "rscales= is missing; expected (n - 1) / n for a replicate whose stratum has n units"
        elif scale is not None and not (is_number(scale) and scale > 0):
            found = f"scale={scale!r}; expected a positive number"
        if found:
            typed = 'Survey(weights=..., replicate_weights="repw*", replicate_type="BRR")'
            raise OptionError(f'{found}.\nUse `{typed}`, with `rho=` for "Fay" and `rscales=` for "JKn".')


Survey.__init__ = with_other_names(Survey.__init__)  # type: ignore[method-assign]


def survey_columns(survey: Survey, columns: Mapping[str, Any]) -> dict[str, Any]:
    """Return the checked columns of a survey design (weights, strata, psu, fpc, replicates), and the `Survey`."""
    replicates, strata, psu = columns["replicates"] or {}, columns["strata"], columns["psu"]
    given = [(role, column) for role, column in columns.items() if role != "replicates" and column is not None]
    for role, column in [*given, *(("replicate_weights", column) for column in replicates.values())]:
        check_complete(column, f"{role} {str(column.name)!r} of the survey design")
    if survey.nest and strata is not None and psu is not None:
        coded = (pd.factorize(column) for column in (strata, psu))
        stratum, unit = (np.array(labels_of(names), dtype=object)[codes] for codes, names in coded)
        psu = pd.Series(pd.Series(stratum).str.replace("/", "//").array + "/" + unit, index=psu.index, name=psu.name)
    return {**columns, "psu": psu, "survey": survey}


def labels_of(names: Iterable[Any]) -> tuple[str, ...]:
    """Format names of strata or units. Whole numbers look the same as int and as float."""
    return tuple(str(int(v)) if isinstance(v, float) and v.is_integer() else str(v) for v in names)


@dataclass(frozen=True, eq=False)
class Replication:
    """Replicate weights of a survey, with the factors of the variance.

    `multiplicities` (n, R) has the R replicate weights of each row, divided by the weight of the row. Deviations are
    from the mean of the replicates or, with `mse`, from the estimate.
    """

    kind: str
    multiplicities: Array
    scales: Array
    mse: bool
    df: float

    def covariance(self, values: Array, estimates: Array) -> Array:
        """Return the covariance (d, d) from values (R, d) under the replicate weights and the estimates (d,)."""
        center = estimates if self.mse else values[self.scales > 0].mean(axis=0)
        deviations = values - center
        return np.asarray(deviations.T @ (self.scales[:, None] * deviations))


@dataclass(frozen=True, eq=False)
class SurveyDesign:
    """The survey design of the rows in the sample.

    `stratum` (n,) and `unit` (n,) are the stratum of each row, and its first-stage unit within the stratum. `units`
    (H,) has the number of units in each stratum of the data, including units without rows in the sample. `fractions`
    (H,) has the sampling fractions.
    """

    stratum: NDArray[np.intp]
    unit: NDArray[np.intp]
    strata: tuple[str, ...]
    units: Array
    fractions: Array
    lonely: str
    strata_name: str | None
    psu_name: str | None
    fpc_name: str | None
    subpop_name: str | None
    call: str
    replication: Replication | None

    @property
    def df(self) -> float:
        """Degrees of freedom: units minus strata, or the rank of the replicate weights minus 1."""
        return float(self.units.sum()) - len(self.units) if self.replication is None else self.replication.df

    @cached_property
    def factors(self) -> Factors:
        """Weights of the strata in the variance, as `Factors`."""
        alone = (self.units == 1) & (self.fractions < 1)  # a stratum that was sampled whole has no variance
        first = (1 - self.fractions) * self.units / np.maximum(self.units - 1, 1)
        centred = np.ones(len(alone))
        if self.lonely == "adjust":
            centred[alone] = 0.0
        else:
            first[alone] = 0.0
        if self.lonely == "average" and not alone.all():
            first *= len(alone) / (~alone).sum()
        return Factors(first, first * centred / self.units)

    def resampled(self, generator: Callable[[int], np.random.Generator], width: int) -> Array:
        """Draw multiplicities (n, width) of the rows by the rescaled bootstrap, with one generator per stratum.

        Notes
        -----
        In each stratum n_h - 1 units are drawn with replacement. A unit drawn t times counts
        1 - l + l t n_h / (n_h - 1), with l = sqrt(1 - f_h). The variance of a total over the resamples then equals its
        variance under the design [1]_. A stratum with one unit is not resampled.

        References
        ----------
        .. [1] Rao, J. N. K., Wu, C. F. J. and Yue, K. (1992). Some recent work on resampling methods for complex
           surveys. Survey Methodology 18, 209-217.
        """
        drawn = np.ones((len(self.stratum), width))
        for h, rows in pd.Series(self.stratum).groupby(self.stratum).indices.items():
            n, share = int(self.units[h]), np.sqrt(1 - self.fractions[h])
            if n > 1:
                times = generator(int(h)).multinomial(n - 1, np.full(n, 1 / n), size=width)
                drawn[rows] = 1 - share + share * n / (n - 1) * times[:, self.unit[rows]].T
        return drawn

    def of(self, which: Any) -> SurveyDesign:
        """Return the survey design of some of the rows."""
        replication = None if self.replication is None else taken(self.replication, which, "multiplicities")
        return dataclasses.replace(taken(self, which, "stratum", "unit"), replication=replication)


class Factors(NamedTuple):
    """Weights of the strata in a variance: sum_h (squares_h sum_j t_hj t_hj' - totals_h T_h T_h'), T_h = sum_j t_hj."""

    squares: Array
    totals: Array


def survey_design(
    columns: Mapping[str, Any], weights: Array, keep: Mask, subpop_name: str | None, notes: list[str]
) -> SurveyDesign:
    """Make the survey design of the rows to keep, from `survey_columns` and the weights of all rows."""
    survey, strata_of, psu, replicates = (columns[name] for name in ("survey", "strata", "psu", "replicates"))
    n = len(keep)
    stratum, names = np.zeros(n, dtype=np.intp), pd.Index([ALL])
    if strata_of is not None:
        stratum, names = pd.factorize(strata_of, sort=True)
    unit = np.arange(n) if psu is None else pd.factorize(psu)[0]
    first = np.unique(unit, return_index=True)[1]  # the first row of each unit
    moved = stratum != stratum[first][unit]
    if psu is not None and moved.any():
        twice = listing(psu[moved].unique().tolist())
        found = f"psu {psu.name!r}: {twice} occur in several strata"
        raise DesignError(f"{found}.\nUse `nest=True` if these are different units.")
    strata, of_units = labels_of(names), stratum[first]
    units = np.bincount(of_units, minlength=len(strata)).astype(float)
    fractions = np.zeros(len(strata))
    if columns["fpc"] is not None:
        fractions = _fractions(columns["fpc"], stratum, strata, units)
    if (fractions == 1).all():
        found = f"according to fpc={columns['fpc'].name!r}, the sample has every first-stage unit of the population"
        advice = "Leave fpc= out if the units are a sample of a larger population."
        notes.append(f"{found}, so there is no sampling error. {advice}")
    alone = [label for label, count, f in zip(strata, units, fractions, strict=True) if count == 1 and f < 1]
    if alone and survey.lonely == "fail" and replicates is None:
        named = "the sample" if strata_of is None else f"stratum {listing(alone)} of {strata_of.name!r}"
        raise DesignError(f'{named} has a single first-stage unit, so its variance is unknown.\nUse `lonely="adjust"`.')
    within = pd.Series(of_units).groupby(of_units).cumcount().to_numpy(dtype=np.intp)
    return SurveyDesign(
        stratum=stratum[keep].astype(np.intp),
        unit=within[unit[keep]],
        strata=strata,
        units=units,
        fractions=fractions,
        lonely=survey.lonely,
        subpop_name=subpop_name,
        call=repr(survey),
        replication=None if replicates is None else _replication(survey, replicates, weights, keep),
        **{f"{role}_name": getattr(columns[role], "name", None) for role in ROLES},
    )


def _fractions(fpc: pd.Series, stratum: NDArray[np.intp], strata: tuple[str, ...], units: Array) -> Array:
    """Return the sampled share of the population's first-stage units in each stratum."""
    what, advice = f"fpc {fpc.name!r}", "Use `fpc=` with each stratum's number of first-stage units in the population."
    by_stratum = pd.Series(numbers(fpc, what)).groupby(stratum)
    low, high = by_stratum.min().to_numpy(), by_stratum.max().to_numpy()
    h = int(np.argmax(low != high))
    if low[h] != high[h]:
        raise DesignError(f"{what} varies within stratum {strata[h]!r}.\n{advice}")
    if high.max() <= 1 and low.min() > 0:
        return np.asarray(high)
    h = int(np.argmax(low < units))
    if low[h] < units[h] or low.min() <= 0:
        found = f"{what} is {low[h]:g} in stratum {strata[h]!r}, fewer than its {units[h]:g} first-stage units"
        raise DesignError(f"{found}.\n{advice}")
    return np.asarray(units / high)


def _replication(survey: Survey, columns: Mapping[str, pd.Series], weights: Array, keep: Mask) -> Replication:
    values = np.stack([numbers(column, f"replicate weights {name!r}") for name, column in columns.items()], axis=1)
    values = values if survey.combined else values * weights[:, None]
    if (values < 0).any() or values[weights == 0].any():
        found = "replicate weights are negative, or are not zero in rows with weight 0"
        raise DesignError(f"{found}.\nUse `weights=` of the same survey.")
    count, level = values.shape[1], values.sum(axis=0).mean() / weights.sum()
    if not 1 / RATIO <= level <= RATIO:
        found = f"the replicate weights sum to {level:.3g} times the weights on average; expected about 1"
        raise DesignError(f"{found}.\nUse `combined={not survey.combined}`.")
    _check_type(survey, values[weights > 0] / weights[weights > 0, None], level)
    scales = {"JK1": (count - 1) / count, "JKn": 1.0, "bootstrap": 1 / (count - 1), "ACS": 4 / count, "SDR": 4 / count}
    scales |= {"BRR": 1 / count, "Fay": 1 / (count * (1 - (survey.rho or 0.0)) ** 2)}
    scale = scales[str(survey.replicate_type)] if survey.scale is None else survey.scale
    rscales = np.asarray(1.0 if survey.rscales is None else survey.rscales, dtype=float)
    if rscales.shape not in ((), (count,)) or (rscales < 0).any():
        raise DesignError(f"rscales= has shape {rscales.shape}; expected {count} numbers >= 0.\nUse `rscales=[...]`.")
    size = np.linalg.norm(values, axis=0)
    unit = values / np.where(size > 0, size, 1.0)
    squares = np.linalg.eigvalsh(unit.T @ unit)  # of the singular values
    mse = survey.replicate_type in ("ACS", "SDR") if survey.mse is None else survey.mse
    rho = "" if survey.rho is None else f", rho {survey.rho:g}"
    return Replication(
        kind=f"{survey.replicate_type or 'scaled'}{rho}",
        multiplicities=values[keep] / weights[keep, None],
        scales=scale * np.broadcast_to(rscales, count),
        mse=bool(mse),
        df=float((squares > DEPENDENT**2 * squares.max()).sum() - 1),
    )


def _check_type(survey: Survey, ratios: Array, level: float) -> None:
    """Raise an error if the ratios of replicate weights to weights contradict `replicate_type` or `rho`."""
    moved = np.abs(ratios - 1)
    halved = moved.std() < SAME and abs(level - 1) < LEVEL and moved.mean() > SAME
    if not halved or survey.scale is not None or survey.replicate_type not in ("BRR", "Fay", "JK1"):
        return  # replicate weights that were adjusted afterwards have other ratios
    rho, given = round(1 - float(moved.mean()), 2), {"BRR": 0.0, "Fay": survey.rho}.get(survey.replicate_type)
    if given is None or abs(rho - given) > SAME:
        meant = 'replicate_type="BRR"' if abs(rho) <= SAME else f'replicate_type="Fay", rho={rho:g}'
        said = f"replicate_type={survey.replicate_type!r}" + ("" if survey.rho is None else f", rho={survey.rho:g}")
        found = f"the replicate weights are {rho:g} or {2 - rho:g} times the weights, which contradicts {said}"
        raise DesignError(f"{found}.\nUse `{meant}`, or `scale=` with the factor of the variance.")


def subpopulation(values: pd.Series) -> Mask:
    """Return the mask of the rows in a subpopulation, from a column of True and False or of 1 and 0."""
    name = str(values.name)
    check_complete(values, f"subpop {name!r}")
    plain = values.to_numpy()
    if plain.dtype.kind not in "bif" or not np.isin(plain, (0, 1)).all():
        typed = f'subpop=data["{name}"] == {pd.unique(values).tolist()[0]!r}'
        raise DesignError(f"subpop {name!r} has {listing(pd.unique(values))}; expected True or False.\nUse `{typed}`.")
    return plain.astype(bool)

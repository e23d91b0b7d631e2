"""The fits of `tests.differential.kept`: their data, and what each is given, through the public interface alone.

A case is the name, the estimator, what its model is given, what its fit is given, and the tables that are read of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, partial
from typing import Any

import numpy as np
import pandas as pd
import statsmodels.api as sm
from scipy.linalg import hadamard

import causalrisk as cr

N_BOOT = 99
ESTIMATORS = ("OutcomeRegression", "Hajek", "IPWRA", "AIPW", "JRE")
TARGETS = ("all", "treated", "control", "overlap", "matching", "entropy")
PLAIN = {"formula": "y ~ x + g", "treat": "d", "propensity": "x + z"}
ARMS = PLAIN | {"treat": "arm", "reference": 0}
WEIGHTED = {"weights": "s", "weight_type": "probability"}
COUNTED = {"weights": "units", "weight_type": "frequency"}
DRAWN = {"weights": "s", "strata": "stratum", "psu": "clinic"}  # of a `Survey`
BOOT = {"cov_type": "bootstrap", "n_boot": N_BOOT, "rng": 2}


def data() -> pd.DataFrame:
    """Return 240 rows with outcomes of several families, two and three arms, weights, clusters and an exposure."""
    rng, n = np.random.default_rng(20261127), 240
    x, z, g = rng.normal(size=n), rng.normal(size=n), rng.choice(list("abc"), n)
    d = (rng.random(n) < 1 / (1 + np.exp(-0.6 * x - 0.3 * z))).astype(int)
    arm = (np.column_stack([0 * x, 0.4 * x, -0.4 * z]) + rng.gumbel(size=(n, 3))).argmax(axis=1)
    mean = x + 0.5 * x**2 + (g == "b") + d
    exposure = rng.uniform(0.5, 2, n)
    return pd.DataFrame(
        {
            "y": mean + rng.normal(size=n),
            "binary": (rng.random(n) < 1 / (1 + np.exp(-0.6 * mean))).astype(int),
            "count": rng.poisson(exposure * np.exp(0.2 * mean)),
            "positive": rng.gamma(3, np.exp(0.2 * mean) / 3),
            "d": d,
            "arm": arm,
            "x": x,
            "z": z,
            "g": g,
            "units": rng.integers(1, 4, n),
            "s": rng.uniform(0.5, 2, n),
            "clinic": rng.integers(0, 40, n),
            "exposure": exposure,
        }
    )


@cache
def rows() -> pd.DataFrame:
    """Return the rows of `data` with further columns: codings, missing values, surveys, scores, earlier outcomes."""
    frame, rng = data(), np.random.default_rng(20261129)
    n, clinic = len(frame), frame["clinic"]
    chance = 1 / (1 + np.exp(-0.6 * frame.x - 0.3 * frame.z))
    seen = rng.random(n) < 1 / (1 + np.exp(-1.5 - 0.5 * frame.x + 0.5 * frame.d))
    frame = frame.assign(
        e=chance,
        town=clinic % 7 + rng.integers(0, 2, n),
        words=np.where(frame.d == 1, "yes", "no"),
        flag=frame.d == 1,
        coded=frame.d + 1,
        dose=frame.arm.map({0: "none", 1: "low", 2: "high"}),
        fraction=1 / (1 + np.exp(-frame.y)),
        lost=frame.y.where(seen),
        lost_binary=frame.binary.where(seen),
        part=frame.z.where(rng.random(n) < 0.8),
        part_g=frame.g.where(rng.random(n) < 0.9, None),
        before=frame.x + rng.normal(size=n),
        stratum=clinic % 4,
        population=30,
        alone=np.where(clinic == clinic.max(), 9, clinic % 4),
        half=(clinic // 4) % 2,
        copy=2 * frame.x,
        log_exposure=np.log(frame.exposure),
        sure=10 * frame.d + frame.z,
    )
    left_out = clinic.to_numpy()[:, None] % 12 != np.arange(12)
    sign = hadamard(8)[:, 1:5][:, frame.stratum].T * np.where(frame.half == 1, 1, -1)[:, None]
    weight = frame.s.to_numpy()[:, None]
    replicates = {
        "jk": weight * left_out * 12 / 11,
        "brr": weight * (1 + sign),
        "fay": weight * (1 + 0.5 * sign),
        "br": weight * rng.multinomial(40, [1 / 40] * 40, size=20).T[clinic],
        "sdr": weight * (1 + 0.3 * sign),
    }
    columns = {f"{name}{r}": column for name, made in replicates.items() for r, column in enumerate(made.T)}
    return pd.concat([frame, pd.DataFrame(columns)], axis=1)


@cache
def panel() -> pd.DataFrame:
    """Return the rows in two periods, the outcome of the earlier of which is `before`."""
    frame = rows()[["y", "before", "d", "x", "z", "g", "s", "clinic", "stratum"]]
    both = [frame.assign(id=frame.index, year=year, sales=frame[y]) for year, y in ((2001, "before"), (2002, "y"))]
    return pd.concat(both, ignore_index=True)


@cache
def staggered() -> pd.DataFrame:
    """Return 160 shops in five years, of which some begin in the third and some in the fourth."""
    rng, n = np.random.default_rng(5), 160
    x = rng.normal(size=n)
    first = np.where(rng.random(n) < 1 / (1 + np.exp(-x)), rng.choice([2003, 2004], size=n), 0)
    shops = pd.DataFrame(
        {"shop": range(n), "first": first, "x": x, "town": np.arange(n) % 30, "s": rng.uniform(1, 3, n)}
    )
    long = shops.assign(region=shops.town % 3).merge(pd.DataFrame({"year": range(2001, 2006)}), how="cross")
    grown = np.where(long["first"] > 0, (long.year - long["first"] + 1).clip(0), 0)
    return long.assign(sales=grown + 0.5 * long.x * (long.year - 2001) + rng.normal(size=len(long)))


def blocks() -> Any:
    """Return the rows as a scan of uneven blocks."""
    frame = data()
    return cr.scan([frame.iloc[:7], frame.iloc[7:100], frame.iloc[100:101], frame.iloc[101:]])


class Line:
    """A learner: least squares on the columns that it is given and the square of the first."""

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Line:
        root = np.sqrt(np.ones(len(X)) if sample_weight is None else np.asarray(sample_weight))
        self.slopes = np.linalg.lstsq(root[:, None] * self.columns(X), root * np.asarray(y), rcond=None)[0]
        return self

    def predict(self, X: Any) -> Any:
        return self.columns(X) @ self.slopes

    def columns(self, X: Any) -> Any:
        X = np.asarray(X, dtype=float)
        return np.column_stack([np.ones(len(X)), X, X[:, :1] ** 2])


class Logit(Line):
    """A classifier: a logit on the columns of `Line`."""

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Logit:
        self.classes_, code = np.unique(np.asarray(y), return_inverse=True)
        family = sm.families.Binomial()
        model = sm.GLM(code, self.columns(X), family=family, freq_weights=sample_weight)
        self.slopes = model.fit().params
        return self

    def predict_proba(self, X: Any) -> Any:
        chance = 1 / (1 + np.exp(-self.predict(X)))
        return np.column_stack([1 - chance, chance])


def plain_cases() -> Iterator[tuple[str, str, dict[str, Any], dict[str, Any]]]:
    """Yield the name of each case, its estimator, what its model is given, and what its fit is given."""
    for estimator in ESTIMATORS:
        for target in TARGETS:
            yield f"{estimator} {target}", estimator, PLAIN | {"target": target}, {}
        for name, columns in {
            "units": COUNTED,
            "survey": WEIGHTED,
            "clusters": {"cluster": "clinic"},
            "three arms": {"treat": "arm", "reference": 0, "propensity": "x + z"},
            "ratio": {"formula": "positive ~ x + g", "effect": "ratio"},
        }.items():
            cov_type = {"clusters": "cluster"}.get(name, "robust")
            yield f"{estimator} {name}", estimator, PLAIN | columns, {"cov_type": cov_type}
        yield f"{estimator} bootstrap", estimator, PLAIN, BOOT | {"rng": 1}
    for estimator in ("OutcomeRegression", "IPWRA", "AIPW", "JRE"):
        for family, outcome in {"binomial": "binary", "poisson": "count", "gamma": "positive"}.items():
            yield f"{estimator} {family}", estimator, PLAIN | {"formula": f"{outcome} ~ x", "family": family}, {}
    exposed = {"formula": "count ~ x", "family": "poisson", "exposure": "exposure", "at_exposure": "observed"}
    for name, options in {
        "trim": {"trim": (0.15, 0.85)},
        "crump": {"trim": "crump"},
        "clip": {"clip": (0.2, 0.8)},
        "calibrated": {"propensity_loss": "calibrated"},
        "probit": {"propensity_link": "probit"},
        "exposure": exposed,
        "frame": {"target": data().iloc[:80][["x", "z", "g"]]},
    }.items():
        yield f"IPWRA {name}", "IPWRA", PLAIN | options, {}
        yield f"JRE {name}", "JRE", PLAIN | options, {}
    for kind in ("pairs", "bayesian"):
        boot = BOOT | {"bootstrap": kind}
        yield f"AIPW {kind} clusters", "AIPW", PLAIN | {"cluster": "clinic"}, boot | {"bootstrap": "cluster"}
        yield f"IPWRA {kind}", "IPWRA", PLAIN, boot
        yield f"JRE {kind}", "JRE", PLAIN, boot
        yield f"JRE {kind} binomial", "JRE", PLAIN | {"formula": "binary ~ x", "family": "binomial"}, boot


def outcome_cases() -> Iterator[tuple[Any, ...]]:
    """Yield families, links, offsets, effect scales and quantiles."""
    count, positive, binary = ({"formula": f"{y} ~ x"} for y in ("count", "positive", "binary"))
    at_two = {"exposure": "exposure", "at_exposure": 2}
    negative = {"family": sm.families.NegativeBinomial(alpha=0.5)}
    for name, estimator, options in (
        ("probit", "IPWRA", binary | {"family": "binomial", "link": "probit"}),
        ("cloglog", "AIPW", binary | {"family": "binomial", "link": "cloglog"}),
        ("probit", "JRE", binary | {"family": "binomial", "link": "probit"}),
        ("fractions", "OutcomeRegression", {"formula": "fraction ~ x", "family": "binomial"}),
        ("negative binomial", "AIPW", count | negative),
        ("negative binomial", "JRE", count | negative),
        ("log link", "IPWRA", positive | {"family": "gaussian", "link": "log"}),
        ("gamma log", "OutcomeRegression", positive | {"family": "gamma", "link": "log"}),
        ("offset", "AIPW", {"offset": "log_exposure"}),
        ("offset", "JRE", {"offset": "log_exposure"}),
        ("poisson offset", "IPWRA", count | {"family": "poisson", "offset": "log_exposure"}),
        ("exposure of two", "OutcomeRegression", count | {"family": "poisson", **at_two}),
        ("exposure of two", "Hajek", count | {"family": "poisson", **at_two}),
        ("exposure of two", "AIPW", count | {"family": "poisson", **at_two}),
    ):
        yield name, estimator, PLAIN | options, {}
    for effect in ("odds_ratio", "percent", "ratio"):
        options = {"formula": "binary ~ x", "family": "binomial", "effect": effect}
        for estimator in ("OutcomeRegression", "AIPW", "JRE"):
            yield f"{effect} three arms", estimator, ARMS | options, {}
        yield f"{effect} treated", "IPWRA", PLAIN | options | {"target": "treated"}, {}
    for estimator in ("Hajek", "AIPW"):
        median = PLAIN | {"effect": "quantile"}
        yield "quantiles", estimator, median, {}
        yield "quantiles three arms", estimator, ARMS | {"effect": "quantile", "quantiles": (0.3, 0.7)}, {}
        yield "quantiles overlap", estimator, median | {"target": "overlap", "quantiles": 0.5}, {}
        yield "quantiles clusters", estimator, median | {"cluster": "clinic", "quantiles": 0.5}, {"cov_type": "cluster"}
        yield "quantiles bootstrap", estimator, median | {"quantiles": 0.5}, BOOT
        yield "distribution", estimator, median, {}, {"distribution": lambda r: r.distribution([-1, 0, 1, 2])}


def treatment_cases() -> Iterator[tuple[Any, ...]]:
    """Yield codings of the treatment, models of the score, trimming and clipping."""
    yield "yes", "AIPW", PLAIN | {"treat": "words", "treated": "yes"}, {}
    yield "no", "IPWRA", PLAIN | {"treat": "words", "treated": "no"}, {}
    yield "bool", "Hajek", PLAIN | {"treat": "flag"}, {}
    yield "coded", "JRE", PLAIN | {"treat": "coded", "treated": 2}, {}
    yield "labels", "IPWRA", PLAIN | {"levels": {0: "control", 1: "drug"}}, {}
    yield "doses", "AIPW", ARMS | {"treat": "dose", "reference": "none"}, {}, {"pairwise": lambda r: r.pairwise()}
    yield "dose of labels", "JRE", ARMS | {"levels": {0: "none", 1: "low", 2: "high"}}, {}
    for estimator in ESTIMATORS:
        yield "one arm of three", estimator, ARMS | {"target": 1}, {}
        yield "overlap of three", estimator, ARMS | {"target": "overlap"}, {}
    yield "ATT", "AIPW", PLAIN | {"target": "ATT"}, {}
    yield "tilt", "IPWRA", PLAIN | {"target": lambda e: e * (1 - e)}, {}
    yield "tilt", "JRE", PLAIN | {"target": lambda e: e * (1 - e)}, {}
    for estimator in ("Hajek", "IPWRA", "AIPW", "JRE"):
        yield "cloglog", estimator, PLAIN | {"propensity_link": "cloglog"}, {}
        yield "known score", estimator, PLAIN | {"propensity": None, "propensity_score": "e"}, {}
        yield "classifier", estimator, PLAIN | {"propensity_score": Logit(), "n_folds": 3}, {}
        yield "calibrated treated", estimator, PLAIN | {"propensity_loss": "calibrated", "target": "treated"}, {}
    known = np.column_stack([np.full(240, 0.3), 0.35 + 0 * rows().e, 0.35 + 0 * rows().e])
    yield "known scores of three", "AIPW", ARMS | {"propensity": None, "propensity_score": known}, {}
    yield "calibrated three", "IPWRA", ARMS | {"propensity_loss": "calibrated"}, {}
    yield "probit treated", "AIPW", PLAIN | {"propensity_link": "probit", "target": "treated"}, {}
    for estimator in ("Hajek", "AIPW"):
        yield "trim", estimator, PLAIN | {"trim": (0.2, 0.8)}, {}
        yield "clip", estimator, PLAIN | {"clip": (0.3, 0.7)}, {}
    yield "crump of three", "AIPW", ARMS | {"trim": "crump"}, {}
    yield "trim of three", "IPWRA", ARMS | {"trim": (0.2, 0.6)}, {}
    yield "clip of three", "IPWRA", ARMS | {"clip": (0.25, 0.6)}, {}
    yield "separated", "IPWRA", PLAIN | {"propensity": "x + I(z > 2.2)", "trim": "separated"}, {}
    yield "trim bootstrap", "AIPW", PLAIN | {"trim": (0.15, 0.85)}, BOOT


def data_cases() -> Iterator[tuple[Any, ...]]:
    """Yield missing outcomes and covariates, kinds of frames, arrays and formulas."""
    lost = PLAIN | {"formula": "lost ~ x + g", "observed": "x + d"}
    for estimator in ESTIMATORS:
        yield "observed", estimator, lost, {}
    for name, estimator, options, fit in (
        ("observed by arm", "IPWRA", {"observed": "x * d"}, {}),
        ("observed treated", "AIPW", {"target": "treated"}, {}),
        ("observed clusters", "AIPW", {"cluster": "clinic"}, {"cov_type": "cluster"}),
        ("observed three arms", "IPWRA", {"treat": "arm", "reference": 0, "observed": "x"}, {}),
        ("observed bootstrap", "AIPW", {}, BOOT),
        ("observed jackknife", "Hajek", {}, {"cov_type": "jackknife"}),
        ("observed binary", "AIPW", {"formula": "lost_binary ~ x", "family": "binomial", "effect": "ratio"}, {}),
        ("observed overlap", "JRE", {"target": "overlap"}, {}),
    ):
        yield name, estimator, lost | options, fit
    between = {"balance": lambda r: r.balance(between="observed"), "overlap": lambda r: r.overlap()}
    yield "observed balance", "AIPW", lost, {}, between
    for estimator in ("OutcomeRegression", "IPWRA", "AIPW", "JRE"):
        indicated = {"formula": "y ~ x + part + part_g", "propensity": "x + part", "missing": "indicator"}
        yield "missing indicator", estimator, PLAIN | indicated, {}
    yield "missing dropped", "IPWRA", PLAIN | {"propensity": "x + part"}, {}, {"ledger": lambda r: r.sample_ledger}
    yield "collinear", "AIPW", PLAIN | {"formula": "y ~ x + copy"}, {}
    for name, formula in {
        "splines": "y ~ bs(x, df=4) + g",
        "natural splines": "y ~ cr(x, df=3) + z",
        "transforms": "y ~ center(x) + standardize(z) + np.exp(x)",
        "interactions": "y ~ x * g + I(x**2)",
        "contrasts": 'y ~ x + C(g, Treatment("b"))',
        "sums": "y ~ x + C(g, Sum)",
        "no constant": "y ~ 0 + g + x",
        "power": "y ~ (x + z + g)**2",
        "transformed outcome": "np.log(positive) ~ x",
        "constant": "y ~ 1",
        "quoted": 'y ~ Q("x") + x:z',
    }.items():
        yield name, "AIPW", PLAIN | {"formula": formula}, {}
    yield "splines", "JRE", PLAIN | {"formula": "y ~ bs(x, df=4)", "propensity": "bs(x, df=4) + z"}, {}
    yield "splines", "IPWRA", PLAIN | {"propensity": "cc(x, df=3) + z"}, {}
    frame = rows()[["y", "d", "x", "z", "g", "clinic"]]
    for name, source in {
        "polars": as_polars,
        "arrow": as_arrow,
        "columns": lambda: {key: column.to_numpy() for key, column in frame.items()},
        "nullable": frame.convert_dtypes,
        "categories": lambda: frame.astype({"g": "category"}),
        "index": lambda: frame.set_index(frame.index.astype(str) + "!"),
    }.items():
        yield name, "AIPW", PLAIN | {"data": source, "cluster": "clinic"}, {"cov_type": "cluster"}
    matrix = np.column_stack([np.ones(240), rows().x, rows().z])
    arrays = {"endog": rows().y.to_numpy(), "exog": matrix, "treat": rows().d.to_numpy()}
    for estimator in ESTIMATORS:
        yield "arrays", estimator, {"arrays": arrays}, {}
    more = {"exog_propensity": matrix[:, :2], "cluster": rows().clinic.to_numpy(), "target": "treated"}
    yield "arrays with more", "IPWRA", {"arrays": arrays | more}, {"cov_type": "cluster"}
    yield (
        "frames as arrays",
        "AIPW",
        {"arrays": arrays | {"endog": rows().y, "exog": rows()[["x", "z"]].assign(const=1)}},
        {},
    )
    weighted = {"weights": rows().s.to_numpy(), "weight_type": "probability", "cluster": rows().clinic.to_numpy()}
    yield "columns as arrays", "IPWRA", PLAIN | weighted | {"treat": rows().d.to_numpy()}, {"cov_type": "cluster"}


def as_polars() -> Any:
    """Return the rows as a polars frame."""
    import polars

    return polars.DataFrame(rows()[["y", "d", "x", "z", "g", "clinic"]].to_dict("list"))


def as_arrow() -> Any:
    """Return the rows as an Arrow table."""
    import pyarrow

    return pyarrow.Table.from_pandas(rows()[["y", "d", "x", "z", "g", "clinic"]])


def error_cases() -> Iterator[tuple[Any, ...]]:
    """Yield kinds of standard errors and intervals."""
    clustered, two = PLAIN | {"cluster": "clinic"}, PLAIN | {"cluster": ["clinic", "town"]}
    for estimator in ESTIMATORS:
        yield "HC1", estimator, PLAIN, {"cov_type": "HC1", "use_t": True}
        given = {"shrinkage": 3} if estimator == "JRE" else {}
        yield "jackknife", estimator, PLAIN, {"cov_type": "jackknife"} | given
        yield "two-way", estimator, two, {"cov_type": "cluster"}
        yield "small sample", estimator, clustered, {"cov_type": "cluster", "small_sample": True, "use_t": True}
    yield "HC3", "IPWRA", PLAIN, {"cov_type": "HC3", "use_t": True}
    yield "CR3", "AIPW", clustered, {"cov_type": "CR3", "use_t": True}
    yield "CR3", "JRE", clustered, {"cov_type": "CR3", "shrinkage": 3}
    yield "HC1 weighted", "IPWRA", PLAIN | COUNTED, {"cov_type": "HC1"}
    yield "jackknife units", "AIPW", PLAIN | COUNTED, {"cov_type": "jackknife"}
    yield "jackknife three", "IPWRA", ARMS, {"cov_type": "jackknife"}
    yield "two-way small", "IPWRA", two, {"cov_type": "cluster", "small_sample": True, "use_t": True}
    yield "df", "AIPW", PLAIN, {"cov_type": "robust", "df": 12}
    yield "cov_kwds", "AIPW", PLAIN, {"cov_type": "cluster", "cov_kwds": {"groups": rows().clinic}}
    limits = {
        method: partial(lambda method, r: r.conf_int(method=method), method)
        for method in ("normal", "percentile", "basic", "bc", "bca")
    }
    yield "intervals", "AIPW", PLAIN, BOOT, limits
    yield "intervals", "IPWRA", PLAIN | {"cluster": "clinic"}, BOOT, limits
    yield "stratified", "AIPW", PLAIN, BOOT | {"bootstrap": "stratified"}
    yield "bootstrap weighted", "IPWRA", PLAIN | WEIGHTED, BOOT
    yield "bootstrap units", "AIPW", PLAIN | COUNTED, BOOT
    yield "bootstrap three", "IPWRA", ARMS, BOOT
    yield "bootstrap ratio", "IPWRA", PLAIN | {"formula": "binary ~ x", "family": "binomial", "effect": "ratio"}, BOOT
    given = np.random.default_rng(4).multinomial(240, [1 / 240] * 240, size=N_BOOT).T
    yield "resamples", "AIPW", PLAIN, {"cov_type": "bootstrap", "resamples": given}
    for multiplier in ("rademacher", "webb", "mammen"):
        options = BOOT | {"bootstrap": "multiplier", "multiplier": multiplier}
        studentized = {"studentized": lambda r: r.conf_int(method="studentized"), "p": lambda r: r.boot_pvalues()}
        yield multiplier, "AIPW", PLAIN | {"cluster": "clinic"}, options, studentized


def survey_cases() -> Iterator[tuple[Any, ...]]:
    """Yield survey designs."""
    design, default = cr.Survey(**DRAWN), {"cov_type": None}
    for estimator in ESTIMATORS:
        yield "strata", estimator, PLAIN | {"design": design}, default
    for name, options in {
        "fpc": {"fpc": "population"},
        "lonely refused": {"strata": "alone"},
        "lonely certainty": {"strata": "alone", "lonely": "certainty"},
        "lonely adjust": {"strata": "alone", "lonely": "adjust"},
        "lonely average": {"strata": "alone", "lonely": "average"},
        "rows as units": {"psu": None},
        "no strata": {"strata": None},
    }.items():
        yield name, "IPWRA", PLAIN | {"design": cr.Survey(**DRAWN | options)}, default
    yield "nest", "AIPW", PLAIN | {"design": cr.Survey(**DRAWN | {"psu": "half", "nest": True})}, default
    for name, options in {
        "JK1": {"replicate_weights": "jk*", "replicate_type": "JK1"},
        "BRR": {"replicate_weights": "brr*", "replicate_type": "BRR", "mse": True},
        "Fay": {"replicate_weights": "fay*", "replicate_type": "Fay", "rho": 0.5},
        "bootstrap": {"replicate_weights": [f"br{r}" for r in range(20)], "replicate_type": "bootstrap"},
        "SDR": {"replicate_weights": "sdr*", "replicate_type": "SDR"},
        "scale": {"replicate_weights": "jk*", "scale": 0.9, "rscales": np.linspace(0.9, 1, 12), "replicate_type": None},
    }.items():
        for estimator in ("AIPW", "JRE") if name in ("JK1", "Fay") else ("IPWRA",):
            yield name, estimator, PLAIN | {"design": cr.Survey(weights="s", **options)}, default
    inside = {"design": design, "subpop": "x < 0.5"}
    groups = {"groups": lambda r: r.effects_by("g"), "differences": lambda r: r.differences_by("g", adjust="holm")}
    for estimator in ("IPWRA", "AIPW", "JRE"):
        yield "subpop", estimator, PLAIN | inside, default
    yield "groups", "AIPW", PLAIN | {"design": design}, default, groups
    yield (
        "three arms",
        "IPWRA",
        ARMS | {"design": design},
        default,
        {"pairwise": lambda r: r.pairwise(adjust="bonferroni")},
    )
    yield "quantiles", "Hajek", PLAIN | {"design": design, "effect": "quantile"}, default
    yield "observed", "AIPW", PLAIN | {"design": design, "formula": "lost ~ x", "observed": "x + d"}, default
    yield (
        "ratio treated",
        "AIPW",
        PLAIN | {"design": design, "formula": "positive ~ x", "effect": "ratio", "target": "treated"},
        default,
    )
    yield "rescaled", "AIPW", PLAIN | {"design": design}, BOOT


def did_cases() -> Iterator[tuple[Any, ...]]:
    """Yield difference-in-differences of panels and of repeated cross sections."""
    panels, columns = {"data": panel, "formula": "sales ~ x", "propensity": "x + z"}, {"before": "before"}
    for estimator in ESTIMATORS:
        yield "panel", estimator, PLAIN | panels | {"did": cr.DiD(time="year", unit="id")}, {}
        yield "before", estimator, PLAIN | {"did": cr.DiD(**columns)}, {}
    for estimator in ("OutcomeRegression", "Hajek", "IPWRA", "AIPW"):
        yield "cross sections", estimator, PLAIN | panels | {"did": cr.DiD(time="year")}, {}
    before, sections = PLAIN | {"did": cr.DiD(**columns)}, PLAIN | panels | {"did": cr.DiD(time="year")}
    yield "not normalized", "AIPW", PLAIN | {"did": cr.DiD(**columns, normalize=False)}, {}
    yield "calibrated", "AIPW", before | {"propensity_loss": "calibrated"}, {}
    yield "calibrated sections", "IPWRA", sections | {"propensity_loss": "calibrated"}, {}
    yield "clusters", "AIPW", before | {"cluster": "clinic"}, {"cov_type": "cluster"}
    yield "sections clusters", "AIPW", sections | {"cluster": "clinic"}, {"cov_type": "cluster"}
    yield "weights", "AIPW", before | WEIGHTED, {}
    yield "bootstrap", "AIPW", before, BOOT
    yield "sections bootstrap", "AIPW", sections, BOOT
    yield (
        "sections survey",
        "AIPW",
        sections | {"design": cr.Survey(**DRAWN)},
        {"cov_type": None},
    )
    yield "groups", "AIPW", before, {}, {"groups": lambda r: r.effects_by("g")}


def learner_cases() -> Iterator[tuple[Any, ...]]:
    """Yield learners as terms, in the place of the outcome models, and in a stack."""
    smooth = PLAIN | {"learner": "smooth", "n_folds": 3}
    for estimator, use in (
        ("OutcomeRegression", "terms"),
        ("IPWRA", "terms"),
        ("AIPW", "replace"),
        ("AIPW", "terms"),
        ("JRE", "stack"),
        ("JRE", "terms"),
    ):
        stack = {"stack": lambda r: r.stack} if use == "stack" else {}
        fit_of = {"learner": lambda r: r.learner_fit}
        yield f"smooth {use}", estimator, smooth | {"learner_use": use}, {}, fit_of | stack
        yield f"own {use}", estimator, smooth | {"learner": Line(), "learner_use": use}, {}, fit_of
    yield "repeats", "AIPW", smooth | {"n_repeats": 3}, {}
    yield "two", "IPWRA", smooth | {"learner": [Line(), "smooth"]}, {}
    yield "by arm", "AIPW", smooth | {"learner": {"0": Line(), "1": "smooth"}}, {}
    yield "binary", "AIPW", smooth | {"formula": "binary ~ x", "learner": Logit()}, {}
    yield "binary family", "IPWRA", smooth | {"formula": "binary ~ x", "family": "binomial"}, {}
    yield "with a classifier", "AIPW", smooth | {"propensity_score": Logit()}, {}
    yield "three arms", "AIPW", smooth | ARMS, {}
    yield "clusters", "AIPW", smooth | {"cluster": "clinic", "target": "treated"}, {"cov_type": "cluster"}
    yield "change", "AIPW", smooth | {"did": cr.DiD(before="before")}, {}
    yield "observed", "AIPW", smooth | {"formula": "lost ~ x + g", "observed": "x + d"}, {}


def joint_cases() -> Iterator[tuple[Any, ...]]:
    """Yield the options of the Joint Robust Estimator."""
    binary = {"formula": "binary ~ x", "family": "binomial"}
    whole = np.random.default_rng(8).multinomial(240, [1 / 240] * 240, size=30).T
    path = {"path": lambda r: r.anchor_path(), "risk": lambda r: r.risk_table()}
    for name, fit, *more in (
        ("share 0", {"share": 0}),
        ("share 1", {"share": 1, "shrinkage": 1}),
        ("anchor", {"shrinkage": 3}),
        ("spread", {"spread": 1}),
        ("erm", {"objective": "erm"}),
        ("replicates", {"replicates": whole, "n_replicates": None}),
        ("path", {}, path),
        ("erm bootstrap", {"objective": "erm", **BOOT}),
        ("anchor bootstrap", {"shrinkage": 3, **BOOT}, {"start": lambda r: r.start_difference()[["std err"]]}),
    ):
        yield name, "JRE", PLAIN, fit, *more
    for name, options, fit in (
        ("binomial anchor", binary, {"shrinkage": 3}),
        ("binomial erm", binary, {"objective": "erm"}),
        ("three arms erm", ARMS, {"objective": "erm"}),
        ("three arms bootstrap", ARMS, BOOT),
        ("three arms binomial", ARMS | binary, {}),
        ("odds ratio erm", binary | {"effect": "odds_ratio"}, {"objective": "erm"}),
        ("overlap share", {"target": "overlap"}, {"share": 0.5}),
        ("treated clusters", {"target": "treated", "cluster": "clinic"}, {"cov_type": "cluster"}),
        (
            "poisson exposure",
            {"formula": "count ~ x", "family": "poisson", "exposure": "exposure", "at_exposure": "observed"},
            {},
        ),
        ("weighted three", ARMS | WEIGHTED, {}),
        ("units bootstrap", COUNTED, BOOT),
    ):
        yield name, "JRE", PLAIN | options, fit
    for method in ("trust-exact", "BFGS"):
        yield method, "JRE", PLAIN | binary, {"method": method, "shrinkage": 3}


def table_cases() -> Iterator[tuple[Any, ...]]:
    """Yield groups, tests, diagnostics and other tables of fits."""
    groups = {
        "groups": lambda r: r.effects_by("g"),
        "combined": lambda r: r.effects_by(["g", rows().x.to_numpy() > 0]),
        "projection": lambda r: r.effects_by("~ x + z"),
        "band": lambda r: r.effects_by("~ bs(x, df=4)", at=[-1, 0, 1], adjust="single-step"),
        "differences": lambda r: r.differences_by("g"),
        "against": lambda r: r.differences_by("g", against="reference", adjust="holm"),
        "equality": lambda r: r.equality_test("g"),
    }
    tests = {
        "t": lambda r: r.t_test(f"{r.params.index[0]} = 0.5"),
        "equivalence": lambda r: r.equivalence_test(-2, 2),
        "wald": lambda r: r.wald_test(np.eye(len(r.params))[: len(r.params) // 2]),
        "nlcom": lambda r: r.nlcom("exp(POM[1]) - POM[0]"),
        "covariance": lambda r: r.cov_params(),
        "ninety": lambda r: r.conf_int(0.1),
    }
    unit = {
        "balance": lambda r: r.balance(means=True, interactions=True),
        "balance by": lambda r: r.balance("std", by="g"),
        "overlap": lambda r: r.overlap(),
        "balance test": lambda r: r.balance_test(),
        "calibration": lambda r: r.calibration(4),
        "table": lambda r: r.table_one(),
        "propensity": lambda r: pd.DataFrame({"estimate": r.propensity_params, "error": r.propensity_bse}),
    }
    fitted_models = {
        "glance": lambda r: r.glance(),
        "tidy": lambda r: r.tidy(),
        "etable": lambda r: cr.etable([r]),
        "outcome": lambda r: r.outcome_params,
        "outcome errors": lambda r: r.outcome_bse,
        "predictions": lambda r: r.predict(rows().iloc[:3]),
        "prediction errors": lambda r: r.get_prediction(rows().iloc[:3], arm=r.model.design.labels[1]).summary_frame(),
        "influence": lambda r: r.influence(top=3, method="influence"),
        "sensitivity": lambda r: r.sensitivity(),
        "bounds": lambda r: r.sensitivity_bounds(),
        "slim": lambda r: str(r.summary(slim=True)),
        "coefficients": lambda r: str(r.summary(alpha=0.1, coefficients=True)),
    }
    for estimator in ESTIMATORS:
        yield "groups", estimator, PLAIN, {}, groups
        yield "tests", estimator, PLAIN, {}, tests
        yield "diagnostics", estimator, PLAIN, {}, unit
        yield "models", estimator, PLAIN, {}, fitted_models
    by_arm = {key: groups[key] for key in ("groups", "differences", "equality", "projection")}
    pairs = {
        "pairs": lambda r: r.pairwise(adjust="single-step"),
        "against": lambda r: r.pairwise(adjust="holm", against="reference"),
        "fdr": lambda r: r.pairwise(0.1, adjust="fdr_bh"),
    }
    for estimator in ("OutcomeRegression", "AIPW", "JRE"):
        yield (
            "three arms",
            estimator,
            ARMS,
            {},
            pairs | tests | {"balance": unit["balance"], "overlap": unit["overlap"]},
        )
    yield "groups of three", "AIPW", ARMS, {}, by_arm
    yield (
        "groups of clusters",
        "AIPW",
        PLAIN | {"cluster": "clinic"},
        {"cov_type": "cluster", "use_t": True},
        by_arm | tests,
    )
    yield "groups of ratios", "IPWRA", PLAIN | {"formula": "positive ~ x + g", "effect": "ratio"}, {}, by_arm
    yield "groups of treated", "IPWRA", PLAIN | {"target": "treated"}, {}, by_arm
    yield (
        "groups weighted",
        "AIPW",
        PLAIN | WEIGHTED,
        {},
        by_arm | {"balance": unit["balance"], "overlap": unit["overlap"]},
    )
    yield (
        "tests of odds",
        "AIPW",
        PLAIN | {"formula": "binary ~ x", "family": "binomial", "effect": "odds_ratio"},
        {},
        {key: tests[key] for key in ("t", "wald", "covariance", "ninety")},
    )
    yield "models binomial", "IPWRA", PLAIN | {"formula": "binary ~ x + g", "family": "binomial"}, {}, fitted_models


def refused_cases() -> Iterator[tuple[Any, ...]]:
    """Yield what is refused."""
    for name, estimator, options, fit in (
        ("treatment in the formula", "AIPW", {"formula": "y ~ x + d"}, {}),
        ("unknown column", "AIPW", {"formula": "y ~ nowhere"}, {}),
        ("text treatment", "AIPW", {"treat": "words"}, {}),
        ("three arms without a reference", "IPWRA", {"treat": "dose"}, {}),
        ("weights without a type", "IPWRA", {"weights": "s"}, {}),
        ("unknown target", "IPWRA", {"target": "everyone else"}, {}),
        ("unknown family", "IPWRA", {"family": "cauchy"}, {}),
        ("binomial of numbers", "IPWRA", {"family": "binomial"}, {}),
        ("log of negative", "AIPW", {"family": "poisson"}, {}),
        ("ratio of negative means", "AIPW", {"formula": "I(-positive) ~ x", "effect": "ratio"}, {}),
        ("missing raised", "AIPW", {"propensity": "part", "missing": "raise"}, {}),
        ("separated", "IPWRA", {"propensity": "x + sure"}, {}),
        ("everything trimmed", "IPWRA", {"trim": (0.999, 1)}, {}),
        ("quantiles", "JRE", {"effect": "quantile"}, {}),
        ("quantiles", "IPWRA", {"effect": "quantile"}, {}),
        ("learner", "Hajek", {"learner": "smooth"}, {}),
        ("stack", "AIPW", {"learner": "smooth", "learner_use": "stack"}, {}),
        ("calibrated overlap", "AIPW", {"propensity_loss": "calibrated", "target": "overlap"}, {}),
        ("change of all", "AIPW", {"did": cr.DiD(before="before"), "target": "all"}, {}),
        ("cross sections", "JRE", {"did": cr.DiD(time="stratum")}, {}),
        ("unknown errors", "AIPW", {}, {"cov_type": "HAC"}),
        ("clusters without clusters", "AIPW", {}, {"cov_type": "cluster"}),
        ("rows despite clusters", "AIPW", {"cluster": "clinic"}, {"cov_type": "HC1"}),
        ("bootstrap of two-way", "AIPW", {"cluster": ["clinic", "town"]}, BOOT),
        ("share of erm", "JRE", {}, {"objective": "erm", "share": 0.5}),
        ("negative anchor", "JRE", {}, {"shrinkage": -1}),
        ("groups of a formula", "AIPW", {}, {}),
    ):
        reads = {"equality": lambda r: r.equality_test("~ x")} if name == "groups of a formula" else {}
        yield name, estimator, PLAIN | options, {"cov_type": None} | fit, reads

"""Random fits of the package against a slow reference that shares nothing with it.

    python -m tests.differential.machine --first 0 --cases 20000

prints how many agreed, were refused in words, were ill-conditioned or had no reference, and each that is wrong; the
exit code is then 1. A case is all in its fields: ``check(Case(...))`` repeats it.
"""

from __future__ import annotations

import argparse
import collections
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

import causalrisk as cr
from causalrisk.numerics.resampling import RESAMPLE_STREAM, WIDTH
from tests.differential import cases, reference
from tests.differential.cases import Case, Data
from tests.differential.digits import orthonormalised
from tests.differential.fits import ERROR, apart, how, model_of, quietly, seen, trained
from tests.differential.joint import JointReference
from tests.differential.reference import meat

TWO_BLOCKS = WIDTH + 3


class Verdict(NamedTuple):
    """What became of a case, and what was seen."""

    kind: str
    text: str = ""


def check(case: Case) -> Verdict:
    """Fit a case by the package and by the reference, and compare."""
    data = cases.data_of(case)
    joint = case.estimator == "JRE"
    compute = JointReference if joint else reference.answer
    plain = quietly(compute, case, data)
    expected = quietly(compute, case, data, orthonormalised) if plain is None else plain
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            model = model_of(case, data)
            res = model.fit(small_sample=case.small_sample, **how(case, expected if joint else None))
        except cr.CausalRiskError as error:
            return Verdict("refused", f"{type(error).__name__}: {str(error).splitlines()[0]}")
        except Exception as error:  # whatever is raised is what is looked for
            return Verdict("wrong", f"{type(error).__name__}: {error}")
    raw = [w for w in caught if not issubclass(w.category, cr.CausalRiskWarning)]
    if raw:
        return Verdict("wrong", f"a warning that is not the package's: {raw[0].message}")
    if expected is None:
        return Verdict("no reference")
    compare = joint_differences if joint else differences
    try:
        found = seen(compare(case, data, res, expected))
    except cr.BootstrapError as error:  # none of the two resamples can be fitted
        return Verdict("refused", f"BootstrapError: {str(error).splitlines()[0]}")
    if not found:
        return Verdict("agreed")
    if not res.converged:
        return Verdict("not converged", "; ".join(found))
    if plain is not None:
        exact = quietly(compute, case, data, orthonormalised)
        if exact is not None and not seen(compare(case, data, res, exact)):
            return Verdict("re-checked", "; ".join(found))
    return Verdict("wrong", "; ".join(found))


def joint_differences(case: Case, data: Data, res: Any, joint: JointReference) -> Iterator[str]:
    """Yield what disagrees of a joint fit: estimates, a derivative by the weights, the sandwich."""
    record = res._record
    sample = record.sample

    def near(theta: np.ndarray) -> np.ndarray:
        """Where Newton's method begins."""
        predictors = sample.X.columns @ theta.reshape(case.arms, -1).T
        return joint.start if sample.family.linear else joint.coefficients(sample.restore(predictors))

    found = quietly(joint.params, joint.problem.s, near(record.estimate.theta))
    if found is None:
        yield "the reference does not settle near the coefficients"
        return
    params, theta = found
    influence = record.estimate.influence[:, : len(params)]
    se = np.sqrt(np.diag(res.cov_params()))
    yield apart("effects and means", res.params, params, se)
    direction = np.random.default_rng([13, case.seed]).normal(size=joint.n_own)
    moved = quietly(joint.moved, direction, theta)
    if moved is not None:
        grown = sample.arrange(np.r_[direction, np.zeros(sample.n_frame)]) * sample.s / sample.total
        yield apart("derivative by the weights", grown @ influence, moved, se * np.sqrt(joint.n_own), ERROR)
    rows = np.zeros_like(influence)
    rows[np.r_[joint.n_own + np.arange(sample.n_frame), sample.order]] = influence
    total = joint.problem.s @ joint.own
    wanted = meat(joint.problem, rows) / total**2
    wanted = wanted * reference.small_sample(case, joint.problem, joint.stack)
    yield apart("covariance", res.cov_params(), wanted, np.sqrt(np.outer(se, se) ** 2), ERROR)
    if case.resamples:  # their replicates are points that the package chooses
        yield from resamples(case, res, se, None, trained(case, joint))


def differences(case: Case, data: Data, res: Any, expected: reference.Answer) -> Iterator[str]:
    """Yield what disagrees."""
    se = np.sqrt(np.diag(expected.cov))
    yield apart("effects and means", res.params, expected.params, se)
    scale = np.sqrt(np.outer(np.diag(expected.cov), np.diag(expected.cov)))
    yield apart("covariance", res.cov_params(), expected.cov, scale, ERROR)
    width = np.diff(expected.limits)
    yield apart("90% limits", res.conf_int(alpha=0.1), expected.limits, width, ERROR)
    yield apart("z", res.tvalues, expected.z, 1 + np.abs(expected.z), ERROR)
    yield from predictions(case, data, res, expected, se)
    if len(expected.groups):
        by = res.effects_by(data.frame["g"])
        yield apart("effects in groups", by["estimate"], by_effect(case, expected.groups), by["std err"])
        yield apart("their standard errors", by["std err"], by_effect(case, expected.group_se), by["std err"], ERROR)
    if case.resamples:
        yield from resamples(case, res, se, lambda counts: reference.resampled(expected.stack, counts), {})


def by_effect(case: Case, values: np.ndarray) -> np.ndarray:
    """Order values that go by groups, then effects, as the package's table: by effects, then groups."""
    return values.reshape(-1, case.arms - 1).T.ravel()


def predictions(case: Case, data: Data, res: Any, expected: reference.Answer, se: np.ndarray) -> Iterator[str]:
    """Compare predicted means of the first rows, and their standard errors."""
    if case.trim is not None or case.missing or case.arrays:
        return
    rows = data.frame.head(5)
    yield apart("predictions", res.predict(rows), expected.predicted, se[-1])
    found = res.get_prediction(rows).se_mean.unstack().to_numpy()
    yield apart("their standard errors", found, expected.predicted_se, expected.predicted_se, ERROR)


def resamples(
    case: Case, res: Any, se: np.ndarray, refit: Callable[..., np.ndarray] | None, how: dict[str, Any]
) -> Iterator[str]:
    """Compare two resamples with fits under their multiplicities, and check what a kind of resampling promises."""
    record, kind = res._record, case.resamples
    if kind == "given":
        n = record.design.n
        drawn = np.random.default_rng(case.seed).multinomial(n, np.full(n, 1 / n), 2)
        options: dict[str, Any] = how | {"resamples": drawn.T}
    else:
        if (kind == "cluster") != bool(case.clusters):
            return
        options = how | {"bootstrap": kind, "n_boot": TWO_BLOCKS if case.blocks else 2}
    again = bootstrapped(res, **options)
    np.testing.assert_array_equal(again.params, res.params)
    if case.blocks:
        other = bootstrapped(res, **options, n_jobs=2)
        yield "" if again.boot_params.equals(other.boot_params) else "two workers give other resamples"
    record = again._record
    resampler, design, sample = record.resampler(), record.design, record.sample
    width = min(WIDTH, len(again.boot_ledger))
    counts = resampler.given("resamples", drawn.T) if kind == "given" else resampler.draw(RESAMPLE_STREAM, 0, width)
    own = sample.restore(counts)
    if kind != "given":
        yield promise(kind, own if case.weight_type != "probability" else own / design.weights[:, None], design)
    if refit is None:
        return
    for b in np.flatnonzero(again.boot_ledger["used"].to_numpy()[:2]):
        wanted = quietly(refit, np.r_[own[:, b], counts[: sample.n_frame, b]])
        if wanted is not None:
            yield apart(f"resample {b}", again.boot_params.iloc[b], wanted, se)


def bootstrapped(res: Any, **options: Any) -> Any:
    """Fit the model of a result once more, by the bootstrap."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return res.model.fit(cov_type="bootstrap", max_failed=0.99, **options)


def promise(kind: str, counts: np.ndarray, design: Any) -> str:
    """Say where multiplicities are not those of their kind."""
    if kind in ("pairs", "stratified", "bayesian") and not np.allclose(counts.sum(axis=0), design.nobs):
        return f"{kind}: multiplicities do not sum to the number of observations"
    if kind == "stratified" and not np.allclose(counts[design.arm == 0].sum(axis=0), design.counts[0]):
        return "stratified: a group has another size"
    if kind == "cluster":
        units = pd.DataFrame(counts / design.units[:, None]).groupby(design.cluster)
        if (units.max() - units.min()).to_numpy().max() > 1e-9:
            return "cluster: the rows of a cluster are not drawn together"
    return ""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--cases", type=int, default=20_000)
    options = parser.parse_args(arguments)
    counts: collections.Counter[str] = collections.Counter()
    for seed in range(options.first, options.first + options.cases):
        verdict = check(cases.draw(seed))
        counts[verdict.kind] += 1
        if verdict.kind == "wrong":
            print(f"{seed}: {verdict.text[:2000]}", flush=True)
    for kind, count in counts.most_common():
        print(f"{kind:16} {count:6}")
    return int(counts["wrong"] > 0)


if __name__ == "__main__":
    sys.exit(main())

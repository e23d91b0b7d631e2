"""Random fits of the package against a slow reference that shares nothing with it.

    python -m tests.differential.machine --cases 20000 --jobs 2

prints how many agreed, were refused in words, were ill-conditioned or had no reference, and for each that is wrong the
smallest case that still is; the exit code is then 1. A case is all in its fields: ``check(Case(...))`` repeats it.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import multiprocessing
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

import causalrisk as cr
from causalrisk.numerics.multiplicities import RESAMPLE_STREAM, WIDTH
from causalrisk.propensity.models import BinaryModel, MultinomialModel
from causalrisk.propensity.weights import WeightModel, fit_weights
from tests.differential import cases, invariances, reference, scanned, tables
from tests.differential.cases import Case, Data
from tests.differential.digits import orthonormalised
from tests.differential.fits import ERROR, apart, how, model_of, quietly, seen, trained
from tests.differential.joint import JointReference
from tests.differential.reference import meat

KINDS = ("agreed", "refused", "no reference", "not converged", "re-checked", "wrong")
TWO_BLOCKS = WIDTH + 3


class Verdict(NamedTuple):
    """What became of a case, and what was seen."""

    kind: str
    text: str = ""


def check(case: Case) -> Verdict:
    """Fit a case by the package and by the reference, or to a scan and in memory, and compare."""
    if case.storage:
        return Verdict(*scanned.check(case))
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
    """Yield what disagrees of a joint fit: estimates, a derivative by the weights, the sandwich, two resamples."""
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
    n = total + sample.n_frame if case.weight_type == "frequency" else len(rows)
    wanted = wanted * reference.small_sample(case, joint.problem, joint.stack, n)
    yield apart("covariance", res.cov_params(), wanted, np.sqrt(np.outer(se, se) ** 2), ERROR)
    if case.tables:
        beta = theta.reshape(case.arms, -1).copy()
        beta[:, 0] += case.level  # which the reference leaves out
        solved = tables.Solved(case, data, joint.stack, joint.solution, beta)
        yield from tables.differences(solved, res)
    if case.change:
        yield from invariances.differences(case, data, res, how(case, joint))
    if case.resamples:
        block = record.estimate.block("theta")

        def refit(counts: np.ndarray, values: np.ndarray) -> np.ndarray:
            return joint.params(counts, near(values[block]))[0]

        yield from resamples(case, res, se, refit, trained(case, joint))


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
    if case.tables:
        beta = expected.theta[expected.stack.parts[2]].reshape(case.arms, -1)
        solved = tables.Solved(case, data, expected.stack, expected.theta, beta, expected.theta_cov)
        yield from tables.differences(solved, res)
    if case.change:
        yield from invariances.differences(case, data, res, how(case, None))
    if len(expected.groups) and not case.by:
        by = res.effects_by(data.frame["g"])
        yield apart("effects in groups", by["estimate"], by_effect(case, expected.groups), by["std err"])
        yield apart("their standard errors", by["std err"], by_effect(case, expected.group_se), by["std err"], ERROR)
    if case.multinomial and case.arms == 2:
        yield from as_multinomial(res)
    if case.resamples:
        yield from resamples(case, res, se, lambda counts, values: reference.resampled(expected.stack, counts), {})


def as_multinomial(res: Any) -> Iterator[str]:
    """Compare the weights of two arms under a logit with those of the multinomial logit, which it is."""
    fit = res._record.weight_fit
    if fit is None or type(fit.model.propensity) is not BinaryModel or res.model.options.propensity_link != "logit":
        return
    columns, arm = fit.model.columns, fit.model.propensity.arm
    sample = res._record.sample
    other = fit_weights(WeightModel(MultinomialModel(columns, arm, 2), fit.model.target, fit.model.in_sample), sample.s)
    yield apart("multinomial coefficients", other.coefficients, fit.coefficients, 1.0)
    yield apart("multinomial weights", other.w, fit.w, np.abs(fit.w))
    yield apart("multinomial influence", other.influence, fit.influence, 1.0 + np.abs(fit.influence))


def by_effect(case: Case, values: np.ndarray) -> np.ndarray:
    """Order values that go by groups, then effects, as the package's table: by effects, then groups."""
    return values.reshape(-1, case.arms - 1).T.ravel()


def predictions(case: Case, data: Data, res: Any, expected: reference.Answer, se: np.ndarray) -> Iterator[str]:
    """Compare predicted means of the first rows, and their standard errors."""
    if case.trim is not None or case.missing or case.arrays or case.gaps:
        return
    rows = data.frame.head(5)
    yield apart("predictions", res.predict(rows), expected.predicted, se[-1])
    found = res.get_prediction(rows).se_mean.unstack().to_numpy()
    yield apart("their standard errors", found, expected.predicted_se, expected.predicted_se, ERROR)


def resamples(
    case: Case, res: Any, se: np.ndarray, refit: Callable[..., np.ndarray], how: dict[str, Any]
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
    for b in np.flatnonzero(again.boot_ledger["used"].to_numpy()[:2]):
        wanted = quietly(refit, np.r_[own[:, b], counts[: sample.n_frame, b]], record.boot.values[b])
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
        return "stratified: an arm has another size"
    if kind == "cluster":
        units = pd.DataFrame(counts / design.units[:, None]).groupby(design.cluster)
        if (units.max() - units.min()).to_numpy().max() > 1e-9:
            return "cluster: the rows of a cluster are not drawn together"
    return ""


class Numbered(NamedTuple):
    """A case by its kind and number."""

    kind: str
    number: int

    @property
    def case(self) -> Case:
        """The case."""
        return cases.DRAWS[self.kind](self.number)


def _checked(one: Numbered) -> tuple[int, Verdict]:
    return one.number, check(one.case)


def run(kind: str, numbers: Iterable[int], jobs: int = 1) -> Iterator[tuple[int, Verdict]]:
    """Check the cases of a kind; their numbers and verdicts, in no order."""
    asked = [Numbered(kind, number) for number in numbers]
    if jobs == 1:
        yield from map(_checked, asked)
        return
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        yield from pool.imap_unordered(_checked, asked, chunksize=5)


def remembered(path: Path | None) -> dict[int, Verdict]:
    """Read the verdicts of a run that was broken off."""
    if path is None or not path.exists():
        return {}
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    return {number: Verdict(kind, text) for number, kind, text in lines}


def main(arguments: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0, help="its cases have the numbers from a million times it on")
    parser.add_argument("--first", type=int, default=0, help="the first of these")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--crossed", dest="kind", action="store_const", const="crossed", default="plain")
    parser.add_argument("--scan", dest="kind", action="store_const", const="scan")
    parser.add_argument("--survey", dest="kind", action="store_const", const="survey")
    parser.add_argument("--record", type=Path, help="file of verdicts; what stands in it is not run again")
    parser.add_argument("--tries", type=int, default=100, help="for the smallest case of each disagreement")
    options = parser.parse_args(arguments)
    first = options.seed * 1_000_000 + options.first
    numbers = range(first, first + options.cases)
    known = {number: verdict for number, verdict in remembered(options.record).items() if number in numbers}
    with contextlib.ExitStack() as stack:
        record = stack.enter_context(options.record.open("a", encoding="utf-8")) if options.record else None
        for number, verdict in run(options.kind, [k for k in numbers if k not in known], options.jobs):
            known[number] = verdict
            if record is not None:
                print(json.dumps([number, *verdict]), file=record, flush=True)
    return report(options.kind, known, options.tries)


def report(kind: str, verdicts: Mapping[int, Verdict], tries: int) -> int:
    """Print how many cases there are of each verdict, and of each disagreement the smallest case; whether there are."""
    of = {verdict: {k: v.text for k, v in sorted(verdicts.items()) if v.kind == verdict} for verdict in KINDS}
    for verdict, found in of.items():
        print(f"{verdict:16} {len(found):6}")
    print("refused by", dict(collections.Counter(text.split(":")[0] for text in of["refused"].values())))
    for verdict in ("not converged", "re-checked"):
        print(f"{verdict}:", list(of[verdict]))
    alike_in: dict[str, list[int]] = {}
    for number, text in of["wrong"].items():
        alike_in.setdefault(text.split(":")[0], []).append(number)
    for what, numbers in alike_in.items():
        print(f"\n{what}: {len(numbers)} cases, {numbers[:10]}\n  {numbers[0]}: {of['wrong'][numbers[0]][:2000]}")
        case = Numbered(kind, numbers[0]).case
        small = cases.shrink(case, lambda case, what=what: alike(check(case), what), tries)
        print(f"smallest: {small}\n  {check(small).text[:1000]}", flush=True)
    return int(bool(alike_in))


def alike(verdict: Verdict, what: str) -> bool:
    """Whether a case is wrong in the same way."""
    return verdict.kind == "wrong" and verdict.text.split(":")[0] == what


if __name__ == "__main__":
    sys.exit(main())

"""A scan and a fit in memory print the same digits, resamples and propensity replicates included."""

import functools
import itertools
import warnings

import numpy as np
import pytest

import causalrisk as cr
from tests.differential.kept import data

PLAIN = {"formula": "y ~ x + g", "treat": "d", "propensity": "x + z"}
BINARY = {"formula": "binary ~ x", "treat": "d", "propensity": "x + z", "family": "binomial"}
FRAME = {**PLAIN, "target": data().iloc[:80][["x", "z", "g"]]}
MODELS = {
    "plain": PLAIN,
    "treated": {**PLAIN, "target": "treated"},
    "overlap": {**PLAIN, "target": "overlap"},
    "three arms": {**PLAIN, "treat": "arm", "reference": 0},
    "frequency": {**PLAIN, "weights": "units", "weight_type": "frequency"},
    "survey": {**PLAIN, "weights": "s", "weight_type": "probability"},
    "binomial": BINARY,
    "trim": {**PLAIN, "trim": (0.2, 0.8)},
    "frame": FRAME,
    "clusters": {**PLAIN, "cluster": "clinic"},
    "smooth": {**PLAIN, "smooth": True},
    "smooth, logit": {**BINARY, "smooth": True},  # of JRE with an anchor that is given, for one is chosen in "binomial"
    "smooth, clusters": {**PLAIN, "smooth": True, "cluster": "clinic", "trim": (0.1, 0.9)},
}
KINDS = {"clusters": ("cluster", "bayesian"), "smooth, clusters": ("cluster",)}
CASES = [
    (estimator, model, kind)
    for estimator, model in itertools.product(("OutcomeRegression", "IPWRA", "AIPW", "JRE"), MODELS)
    for kind in KINDS.get(model, ("pairs", "bayesian")[: 1 + (estimator == "IPWRA")])
    if "smooth" not in MODELS[model] or estimator in ("AIPW", "JRE")  # whose stack has predictions as terms
    if (estimator, model) not in (("AIPW", "smooth, clusters"), ("JRE", "smooth"))
    if estimator in ("IPWRA", "JRE") or model not in ("treated", "frequency", "binomial")  # as those two have them
    if estimator != "IPWRA" or kind != "bayesian" or model not in ("treated", "overlap", "binomial")
]


def cut(*sizes):
    """Return the rows as data frames of some sizes."""
    edges = np.cumsum([0, *sizes])
    return [data().iloc[first:stop] for first, stop in itertools.pairwise(edges)]


@functools.cache
def read(of_scan, model):
    """A model, made once for all estimators and kinds of resamples."""
    given = dict(MODELS[model])
    source = cr.scan(cut(7, 233)) if of_scan else data()
    return cr.AIPW.from_formula(given.pop("formula"), source, **given)


def printed(of_scan, estimator, model, kind, **how):
    """Return the digits of a summary, without the spread of the weights and the notes."""
    options = {"n_replicates": 3, "n_boot": 3} if estimator == "JRE" else {"n_boot": 4}
    if (estimator, model) == ("JRE", "smooth, logit"):
        options["shrinkage"] = 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", cr.CausalRiskWarning)
        made = read(of_scan, model)
        model = getattr(cr, estimator)._of(made.design, made.options)
        res = model.fit(cov_type="bootstrap", bootstrap=kind, rng=5, **options, **how)
    text = str(res.summary()).partition("Notes:")[0]
    tables = text.split("=" * 78)
    return res, "\n".join(table for table in tables if "By group" not in table)


@pytest.mark.parametrize("estimator, model, kind", CASES, ids=map("-".join, CASES))
def test_a_scan_prints_what_memory_prints(estimator, model, kind):
    res, text = printed(False, estimator, model, kind)
    scanned, of_scan = printed(True, estimator, model, kind, n_jobs=2)
    assert of_scan == text
    np.testing.assert_allclose(scanned.boot_params, res.boot_params, rtol=1e-8, atol=1e-10)

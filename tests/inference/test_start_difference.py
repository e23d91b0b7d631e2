"""JRE and the IPWRA fit that it starts from, on the same resamples."""

from __future__ import annotations

import numpy as np
import pytest

import causalrisk as cr
from tests.conftest import simulate

FORMULA = "y ~ x1 + x2"
CASES = {
    "pairs": {},
    "bayesian": {"bootstrap": "bayesian"},
    "erm": {"objective": "erm", "n_replicates": 100},
    "no share": {"share": 0},
}


@pytest.fixture(scope="module")
def data():
    frame = simulate(n=300, seed=8)
    return frame.assign(
        g=np.arange(300) // 6,
        f=1 + np.arange(300) % 2,
        arm=np.where(frame.d == 1, np.where(np.arange(300) % 2, "b", "c"), "a"),
        z=(frame.y > frame.y.mean()).astype(int),
    )


def both(data, formula=FORMULA, treat="d", options=None, **fit):
    own = {"n_replicates": 20} | {name: fit.pop(name) for name in ("objective", "n_replicates", "share") if name in fit}
    options = {"treat": treat, **(options or {})}
    joint = cr.JRE.from_formula(formula, data, **options).fit(n_boot=20, **own, **fit)
    return joint, cr.IPWRA.from_formula(formula, data, **options).fit(n_boot=20, cov_type="bootstrap", **fit)


def check(joint, start):
    names = [name for name in start.params.index if not name.startswith("POM")]
    values, found = start.boot_params[names].to_numpy(), joint.start_difference()
    rows = ["IPWRA"] if len(names) == 1 else [("IPWRA", name) for name in names]
    np.testing.assert_allclose(found.loc[rows, "estimate"], start.params[names], rtol=1e-10)
    np.testing.assert_allclose(found.loc[rows, "std err"], start.bse[names], rtol=1e-8)
    gap = joint.boot_params[names].to_numpy() - values
    rest = found.drop(index=rows)
    assert {key if isinstance(key, str) else key[0] for key in rest.index} == {"JRE - IPWRA"}
    np.testing.assert_allclose(rest["estimate"], joint.params[names] - start.params[names], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(rest["std err"], np.nanstd(gap, axis=0, ddof=1), rtol=1e-6)
    np.testing.assert_allclose(rest["z"], rest["estimate"] / rest["std err"], rtol=1e-9)


@pytest.mark.parametrize("case", CASES)
def test_the_start_has_the_errors_of_its_own_bootstrap(data, case):
    check(*both(data, **CASES[case]))


@pytest.mark.parametrize(
    ("formula", "options"),
    [
        (FORMULA, {"cluster": "g"}),
        (FORMULA, {"weights": "f", "weight_type": "frequency"}),
        (FORMULA, {"target": "treated"}),
        ("z ~ x1", {"family": "binomial"}),
        ("z ~ x1", {"family": "binomial", "effect": "ratio"}),
        ("y ~ x2", {"treat": "arm", "reference": "a"}),
    ],
    ids=["clusters", "frequencies", "treated", "logit", "ratio", "arms"],
)
def test_it_is_so_for_other_models(data, formula, options):
    check(*both(data, formula, options=options))


def test_the_summary_has_it_and_a_fit_without_bootstrap_does_not(data):
    model = cr.JRE.from_formula(FORMULA, data, treat="d")
    assert "JRE - IPWRA" in str(model.fit(n_boot=20).summary())
    robust = model.fit(cov_type="robust")
    assert "JRE - IPWRA" not in str(robust.summary())
    with pytest.raises(cr.UnavailableError, match=r"model\.fit\(cov_type=\"bootstrap\"\)"):
        robust.start_difference()

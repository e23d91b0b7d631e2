"""Columns that the rows of an arm do not tell apart: one set for all arms, named by their cause, also of a scan."""

import warnings

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm

import causalrisk as cr
from causalrisk.design.support import ColumnMoments, independent_columns
from causalrisk.models.estimators import Unadjusted
from tests.conftest import array_design, formula_design

N = 240
ROBUST = {"cov_type": "robust"}


def base(arms=2, n=N):
    rng = np.random.default_rng(11)
    x, u = rng.normal(size=(2, n))
    score = 1 / (1 + np.exp(-x / 2))
    d = (rng.random(n) < score).astype(int) if arms == 2 else rng.integers(0, arms, n)
    g, h = (np.array(levels)[rng.integers(0, 3, n)].astype(object) for levels in (["b", "c", "e"], ["p", "q", "r"]))
    y = x + d + (g == "c") + rng.normal(size=n)
    return pd.DataFrame({"y": y, "x": x, "u": u, "d": d, "g": g, "h": h, "w": rng.integers(1, 4, n)})


def with_level(frame, name, level, arms, count=4):
    """The frame with a level that only rows of some arms have."""
    rows = frame.index[frame.d.isin(arms)][10 : 10 + count]
    return frame.assign(**{name: frame[name].where(~frame.index.isin(rows), level)})


LAST = with_level(base(), "g", "z", [1])
REFERENCE = with_level(base(), "g", "a", [0])
THREE = with_level(with_level(base(3), "g", "a", [2]), "h", "s", [0, 1], count=9)
FROM_BELOW = base().assign(v=lambda f: np.where(f.d == 1, 2.0, 2 + f.u**2))
FROM_BOTH = base().assign(v=lambda f: np.where(f.d == 1, 2.0, 2 + f.u / 8))
MIXED = base().assign(v=lambda f: np.where(f.d == 1, 2 * f.x + 1, f.u))
EMPTY_CELL = base()[lambda f: (f.g != "c") | (f.h != "q") | (f.d == 1)].reset_index(drop=True)

# data, formula, options; terms that both models lose, and the outcome model alone; words of the warning
CASES = {
    "a level": (LAST, "y ~ x + g + h", {}, ["g[T.z]"], [], ["g = 'z' has no rows in group '0'"]),
    "the reference": (
        REFERENCE, "y ~ x + g + h", {}, ["g[T.e]"], [],
        ["g = 'a', the reference level, has no rows in group '1', so the columns of the other levels add up to one"],
    ),
    "another reference": (
        LAST, "y ~ x + C(g, Treatment('z')) + h", {}, ["C(g, Treatment('z'))[T.e]"], [],
        ["C(g, Treatment('z')) = 'z', the reference level, has no rows in group '0'"],
    ),
    "no constant": (LAST, "y ~ 0 + g + x", {}, ["g[z]"], [], ["g = 'z' has no rows in group '0'"]),
    "sum coding": (LAST, "y ~ x + C(g, Sum)", {}, ["C(g, Sum)[S.e]"], [], ["is a linear combination of 'Intercept'"]),
    "two levels": (
        with_level(LAST, "h", "s", [0]), "y ~ x + g + h", {}, ["g[T.z]", "h[T.s]"], [],
        ["h = 's' has no rows in group '1'"],
    ),
    "three arms": (
        THREE, "y ~ x + g + h", {"reference": 0}, ["g[T.e]", "h[T.s]"], [],
        ["g = 'a', the reference level, has no rows in group '0'", "h = 's' has no rows in group '2'"],
    ),
    "a cell": (EMPTY_CELL, "y ~ x + g*h", {}, ["g[T.c]:h[T.q]"], [], ["g[T.c]:h[T.q] is 0 in all"]),
    "a constant, others above": (FROM_BELOW, "y ~ x + v", {}, ["v"], [], ["v is 2 in all"]),
    "a constant, others about": (FROM_BOTH, "y ~ x + v", {}, [], ["v"], ["v is 2 in all"]),
    "a combination": (MIXED, "y ~ x + v", {}, [], ["v"], ["v is a linear combination of 'Intercept', 'x' in group"]),
    "an interaction": (
        with_level(base(), "g", "z", [1], 8), "y ~ x*g", {}, ["g[T.z]"], ["x:g[T.z]"], ["x:g[T.z] is 0 in all"]
    ),
}  # fmt: skip


def model(estimator, frame, formula, **options):
    """The model, and the text of its warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        made = estimator.from_formula(formula, frame, **{"treat": "d", **options})
    assert all(w.category is cr.DesignWarning for w in caught)
    return made, [str(w.message) for w in caught]


def by_hand(estimator, design):
    """Arm means by statsmodels on the columns of a design."""
    X, y, arm, s = design.X, design.y, design.arm, design.weights
    if design.n_arms == 2:
        binomial = sm.GLM(arm, design.Z, family=sm.families.Binomial(), freq_weights=s).fit(tol=1e-14, maxiter=200)
        scores = np.column_stack([1 - binomial.predict(), binomial.predict()])
    else:
        scores = sm.MNLogit(arm, design.Z).fit(method="newton", maxiter=200, disp=0).predict()
    w, means = 1 / scores[np.arange(len(y)), arm], []
    for a in range(design.n_arms):
        own = arm == a
        trained = s[own] * (w[own] if estimator is cr.IPWRA else 1)
        predicted = X @ sm.WLS(y[own], X[own], weights=trained).fit().params
        correction = own * w * (y - predicted) if estimator is cr.AIPW else 0.0
        means.append(np.average(predicted + correction, weights=s))
    return means


@pytest.mark.parametrize("case", CASES)
def test_every_arm_loses_the_same_terms_and_the_warning_names_the_cause(case):
    frame, formula, options, both, outcome, words = CASES[case]
    made, told = model(cr.IPWRA, frame, formula, **options)
    design = made.design
    assert set(design.dropped_terms) == {*both, *outcome}
    assert not set(design.exog_names) & {*both, *outcome}
    assert set(design.propensity_names) - set(design.exog_names) == set(outcome)
    assert design.notes == tuple(told) and all(any(word in text for text in told) for word in words)
    assert any("Rows with a level that a group lacks have no overlap." in text for text in told)
    for term in design.dropped_terms:
        found = [text for text in told if repr(term) in text.split(" from")[0]]
        assert [term in both, True] == [
            any("propensity" in text for text in found),
            any("outcome" in text for text in found),
        ]
        assert len(found) <= 2
    for a in range(design.n_arms):
        assert np.linalg.matrix_rank(design.X[design.arm == a]) == design.X.shape[1]


@pytest.mark.parametrize("estimator", [cr.OutcomeRegression, cr.IPWRA, cr.AIPW])
@pytest.mark.parametrize("case", ["a level", "the reference", "two levels", "three arms", "a cell", "an interaction"])
def test_fits_are_those_of_statsmodels_on_the_terms_that_are_left(case, estimator):
    frame, formula, options, *_ = CASES[case]
    made, told = model(estimator, frame, formula, **options)
    res = made.fit(**ROBUST)
    np.testing.assert_allclose(res.params[-made.design.n_arms :], by_hand(estimator, made.design), rtol=1e-8)
    assert res.dropped_terms == made.design.dropped_terms
    notes = [note[1:] for note in res.summary().notes]  # which begin with a capital letter
    assert all(text.replace("\n", " ")[1:] in notes for text in told)


def test_frequency_weights_are_repeated_rows():
    options = {"weights": "w", "weight_type": "frequency"}
    for frame in (LAST, REFERENCE):
        weighted, told = model(cr.IPWRA, frame, "y ~ x + g + h", **options)
        repeated, _ = model(cr.IPWRA, frame.loc[frame.index.repeat(frame.w)], "y ~ x + g + h")
        assert weighted.design.exog_names == repeated.design.exog_names and told
        np.testing.assert_allclose(weighted.fit().params, repeated.fit().params, rtol=1e-10)
        np.testing.assert_allclose(weighted.fit().params[-2:], by_hand(cr.IPWRA, weighted.design), rtol=1e-8)


WEIGHTED = {"weights": "w", "weight_type": "frequency"}


@pytest.mark.parametrize("case", CASES)
def test_a_scan_leaves_out_and_says_the_same(case):
    frame, formula, options, *_ = CASES[case]
    weights = WEIGHTED if case in ("a level", "three arms", "a cell", "a constant, others about") else {}
    whole, told = model(cr.OutcomeRegression, frame, formula, **options, **weights)
    blocks, said = model(cr.OutcomeRegression, cr.scan([frame[:77], frame[77:]]), formula, **options, **weights)
    assert said == told
    for name in ("exog_names", "propensity_names", "dropped_terms", "notes"):
        assert getattr(blocks.design, name) == getattr(whole.design, name)
    np.testing.assert_allclose(blocks.fit().params, whole.fit().params, rtol=1e-9)
    np.testing.assert_array_equal(blocks.design.varying, whole.design.varying)


def test_weights_of_a_scan_have_the_same_columns():
    for case in ("three arms", "an interaction"):
        frame, formula, options, *_ = CASES[case]
        whole, _ = model(cr.IPWRA, frame, formula, **options)
        blocks, _ = model(cr.IPWRA, cr.scan([frame[:77], frame[77:]]), formula, **options)
        np.testing.assert_allclose(blocks.fit().params, whole.fit().params, rtol=1e-9)


def test_one_term_is_enough_where_two_arms_lack_different_levels():
    """In arm 1 no row has level a, in arm 0 none has z: without z's column, both are one level in either arm."""
    design = model(cr.IPWRA, with_level(LAST, "g", "a", [0]), "y ~ x + g")[0].design
    assert design.dropped_terms == ("g[T.z]",)
    lacks_two = base().assign(g=lambda f: np.where((f.g == "c") & (f.d == 1), "e", f.g))  # c in arm 0 only
    lacks_two["g"] = np.where((lacks_two.g == "b") & (lacks_two.d == 0), "c", lacks_two.g)  # b, the reference, in arm 1
    assert model(cr.IPWRA, lacks_two, "y ~ x + g")[0].design.exog_names == ("Intercept", "g[T.e]", "x")


@pytest.mark.parametrize("n", [240, 2000])
def test_an_absent_reference_level_among_eighty_columns(n):
    rng = np.random.default_rng(3)
    frame = pd.DataFrame(rng.normal(size=(n, 80 - 27)) * 10.0 ** rng.integers(-2, 4, 53)).add_prefix("x")
    for name in ("g", "h", "k"):
        frame[name] = np.array(list("bcdefghij"))[rng.integers(0, 9, n)]
    frame["d"] = np.arange(n) % 2
    frame["y"] = 5 + frame.x0 / frame.x0.std() + frame.d + rng.normal(size=n)
    frame.loc[[0, 2, 4], "g"] = "a"
    right = " + ".join(name for name in frame if name not in ("y", "d"))
    made, told = model(cr.OutcomeRegression, frame, f"y ~ {right}")
    assert (
        made.design.dropped_terms == ("g[T.j]",) and "g = 'a', the reference level, has no rows in group '1'" in told[0]
    )
    X = pd.get_dummies(frame.drop(columns=["y", "d"]), columns=["g", "h", "k"], drop_first=True, dtype=float)
    X = sm.add_constant(X.drop(columns="g_j"))
    means = [sm.OLS(frame.y[frame.d == a], X[frame.d == a]).fit().predict(X).mean() for a in (0, 1)]
    res = made.fit(small_sample=True)  # 240 rows are few for robust errors
    np.testing.assert_allclose(res.params[-2:], means, rtol=1e-8)


def test_rounding_of_many_columns_is_told_from_columns_that_are_near():
    rng = np.random.default_rng(0)
    levels = (np.r_[39, rng.integers(0, 39, 120_000)][:, None] == np.arange(40)) * 1.0
    columns = np.column_stack([np.ones(len(levels)), 100 + rng.normal(size=(len(levels), 40)), levels])
    (triangle,) = ColumnMoments.of(columns).arms()
    assert np.flatnonzero(~independent_columns(triangle)).tolist() == [80]  # one row has the last level
    x = np.linspace(-9, -3, 82)
    assert independent_columns(x[:, None] ** np.arange(11)).all()  # as NIST's Filip
    near, other = rng.normal(size=(2, 500))
    assert independent_columns(np.column_stack([np.ones(500), near, near + 1e-12 * other])).all()
    assert independent_columns((1e5 + near)[:, None] ** np.arange(3)).all()


def test_arrays_have_terms_and_no_levels():
    frame = pd.get_dummies(LAST[["x", "g"]], columns=["g"], drop_first=True, dtype=float).assign(const=1.0)
    with pytest.warns(cr.DesignWarning, match=r"dropped 'g_z', because g_z is 0 in all rows of group '0'"):
        design = array_design(LAST.y, frame, LAST.d)
    assert design.exog_names == design.propensity_names == ("x", "g_c", "g_e", "const")
    assert np.array_equal(design.outcome_encoder.encode(frame), design.X)
    absent = pd.get_dummies(REFERENCE[["x", "g"]], columns=["g"], drop_first=True, dtype=float).assign(const=1.0)
    with pytest.warns(cr.DesignWarning, match="g_e is a linear combination of 'g_b', 'g_c', 'const' in group '1'"):
        design = array_design(REFERENCE.y, absent, REFERENCE.d)
    assert design.propensity_names == ("x", "g_b", "g_c", "const")  # a constant is kept, wherever it stands


def test_warnings_as_errors_refuse_them():
    frame = base().assign(twice=lambda f: 2 * f.x)
    with warnings.catch_warnings():
        warnings.simplefilter("error", cr.DesignWarning)
        for formula in ("y ~ x + twice", "y ~ x + g"):
            for data in (LAST.assign(twice=frame.twice), cr.scan([LAST.assign(twice=frame.twice)])):
                with pytest.raises(cr.DesignWarning, match=r"dropped '(twice|g.T.z.)'"):
                    cr.IPWRA.from_formula(formula, data, treat="d")


def test_what_stays_separated_is_an_error():
    frame = base().assign(v=lambda f: np.where(f.d == 1, f.u**2, -(f.u**2)))
    with pytest.raises(cr.SeparationError, match=r"'v'.* separates the groups"):
        cr.IPWRA.from_formula("y ~ x + v", frame, treat="d").fit()


# --- estimators and scores ---------------------------------------------------------------------------------------


def test_models_of_constants_have_no_terms_to_lose():
    for estimator, lost in ((cr.IPW, ("g[T.z]",)), (Unadjusted, ("g[T.z]",))):
        made, told = model(estimator, LAST, "y ~ x + g")
        assert made.design.dropped_terms == lost and told[0].startswith("propensity model: dropped 'g[T.z]'")
        assert "g[T.z]" in made.design.exog_names
    merged, _ = model(cr.IPW, LAST.replace({"g": {"z": "b"}}), "y ~ x + g")
    np.testing.assert_allclose(model(cr.IPW, LAST, "y ~ x + g")[0].fit().params, merged.fit().params, rtol=1e-10)


def test_known_scores_and_rows_that_are_to_be_trimmed_keep_the_propensity_columns():
    known, _ = model(cr.IPWRA, LAST.assign(e=0.5), "y ~ x + g", propensity_score="e")
    assert "g[T.z]" in known.design.propensity_names and known.design.dropped_terms == ("g[T.z]",)
    assert np.isfinite(known.fit().params).all()
    made, _ = model(cr.IPWRA, LAST, "y ~ x", propensity="x + g", trim="separated")
    with pytest.warns(cr.DesignWarning, match="after trimming: propensity model: dropped 'g\\[T.z\\]'"):
        res = made.fit()
    left, _ = model(cr.IPWRA, LAST[LAST.g != "z"], "y ~ x", propensity="x + g")
    np.testing.assert_allclose(res.params, left.fit().params, rtol=1e-10)


@pytest.mark.parametrize("case", ["a level", "a constant, others about", "a combination", "an interaction"])
def test_calibrated_weights_balance_what_every_arm_has(case):
    frame, formula, _, both, outcome, _ = CASES[case]
    res = model(cr.IPWRA, frame, formula, propensity_loss="calibrated")[0].fit()
    assert set(res.dropped_terms) == {*both, *outcome} and res.converged
    design = res.model.design
    assert design.propensity_names == design.exog_names
    weights = res.importance_weights.to_numpy()
    for a in (0, 1):
        own = design.arm == a
        np.testing.assert_allclose(
            np.average(design.Z[own], weights=weights[own], axis=0), design.Z.mean(axis=0), atol=1e-8
        )


def test_joint_fits_start_from_the_same_columns():
    made, _ = model(cr.JRE, REFERENCE, "y ~ x + g + h")
    res = made.fit(**ROBUST, n_replicates=20)
    np.testing.assert_allclose(res.start.params[-2:], by_hand(cr.IPWRA, made.design), rtol=1e-8)
    merged, _ = model(cr.JRE, REFERENCE.replace({"g": {"e": "a"}}), "y ~ x + g + h")
    np.testing.assert_allclose(res.params, merged.fit(**ROBUST, n_replicates=20).params, rtol=1e-8)


# --- what follows a fit ------------------------------------------------------------------------------------------


def test_rows_of_the_level_are_those_of_the_one_it_is_merged_with():
    res = model(cr.IPWRA, LAST, "y ~ x + g + h")[0].fit()
    merged = model(cr.IPWRA, LAST.replace({"g": {"z": "b"}}), "y ~ x + g + h")[0].fit()
    np.testing.assert_allclose(res.params, merged.params, rtol=1e-10)
    new = pd.DataFrame({"x": [0.5, 0.5], "g": ["z", "b"], "h": ["p", "p"]})
    predicted = res.model.design.outcome_encoder.encode(new)
    assert np.array_equal(predicted[0], predicted[1])
    population = LAST.assign(g=np.where(LAST.index < 60, "z", LAST.g)).drop(columns=["y", "d"])
    framed = model(cr.IPWRA, LAST, "y ~ x + g + h", target=population)[0].fit()
    alike = model(
        cr.IPWRA, LAST.replace({"g": {"z": "b"}}), "y ~ x + g + h", target=population.replace({"g": {"z": "b"}})
    )[0].fit()
    np.testing.assert_allclose(framed.params, alike.params, rtol=1e-9)


def test_groups_and_resamples_keep_the_columns():
    made, _ = model(cr.IPWRA, LAST, "y ~ x + g + h")
    merged, _ = model(cr.IPWRA, LAST.replace({"g": {"z": "b"}}), "y ~ x + g + h")
    options = {"cov_type": "bootstrap", "n_boot": 30}
    res, alike = made.fit(**options), merged.fit(**options)
    np.testing.assert_allclose(res.bse, alike.bse, rtol=1e-8)
    np.testing.assert_allclose(res.effects_by("h").to_numpy(), alike.effects_by("h").to_numpy(), rtol=1e-8)


def test_comparisons_and_later_trimming_drop_terms():
    with pytest.warns(cr.DesignWarning, match="dropped 'g"):
        both = cr.compare("y ~ x + g", LAST, treat="d", estimators=["OutcomeRegression", "IPWRA"], n_boot=10)
    assert any("dropped 'g[T.z]'" in note for note in both.summary().notes)
    keep = (REFERENCE.d == 1) | (REFERENCE.g != "b")
    with pytest.warns(cr.DesignWarning, match="dropped 'g"):
        design = formula_design("y ~ x + g", REFERENCE, treat="d")
    with pytest.warns(
        cr.DesignWarning, match="after trimming: .* dropped 'g\\[T.b\\]'.* g = 'b' has no rows in group '0'"
    ):
        small = design.subset(keep.to_numpy(), "by hand")
    assert small.dropped_terms == ("g[T.e]", "g[T.b]")


@pytest.mark.parametrize("blocks", [False, True], ids=["memory", "scan"])
def test_a_model_of_which_no_term_is_left_is_refused(blocks):
    """Each of two indicators without a constant is of one arm alone."""
    d = np.arange(60) % 2
    frame = pd.DataFrame({"y": np.sin(np.arange(60.0)), "d": d, "a": d, "b": 1 - d, "x": np.cos(np.arange(60.0))})
    with pytest.raises(cr.DesignError, match="the outcome model has no columns left"):
        cr.IPWRA.from_formula("y ~ 0 + a + b", cr.scan([frame]) if blocks else frame, treat="d", propensity="x")


@pytest.mark.parametrize("formula, propensity", [("y ~ x", "x + copy"), ("y ~ x + copy", "x")])
def test_a_covariate_that_is_the_treatment_is_dropped_with_a_word_on_what_it_may_be(formula, propensity):
    frame = base().assign(copy=5 - 3 * base().d)
    with pytest.warns(cr.DesignWarning, match="'copy', because.*\n.*computed from the treatment 'd'") as told:
        res = cr.AIPW.from_formula(formula, frame, treat="d", propensity=propensity).fit()
    assert res.dropped_terms == ("copy",) and "level" not in str(told[0].message)
    assert res.effect == pytest.approx(cr.AIPW.from_formula("y ~ x", frame, treat="d").fit().effect, rel=1e-9)

"""Names, the caller's objects, formulas, results and options (faults 27-33, 62-72)."""

from __future__ import annotations

import copy
import functools
import pickle

import cloudpickle
import numpy as np
import pandas as pd
import pytest

import causalrisk as cr
from tests.conftest import simulate
from tests.end_to_end.test_faults import (
    BOTH,
    ONE,
    QUICK,
    assert_same,
    build,
    clean,
    finish,
    fit,
    raises_with,
    with_group,
)

N = 300


@pytest.fixture
def data():
    return simulate(n=N, seed=3)


# --- names -------------------------------------------------------------------------------------------------------


@ONE
@pytest.mark.parametrize(
    ("names", "formula", "terms"),
    [
        (("Größe m", "mutter alter"), "y ~ Q('Größe m') + Q(\"mutter alter\")", ["Q('Größe m')", "Q('mutter alter')"]),
        (("class", 'it\'s "so"'), "y ~ Q('class') + Q('it\\'s \"so\"')", ["Q('class')", "Q('it\\'s \"so\"')"]),
        (("C", "I"), "y ~ C + I", ["C", "I"]),
        (("a b", "C"), "y ~ Q('a b') + Q('C')", ["Q('a b')", "Q('C')"]),
        (("np", "center"), "y ~ np + center", ["np", "center"]),
        (("变量", "müde"), "y ~ 变量 + müde", ["变量", "müde"]),
    ],
)
def test_fault_27_odd_names(data, estimator, names, formula, terms):
    odd = data.rename(columns={"x1": names[0], "x2": names[1], "d": "Behandlung ü"})
    res = fit(estimator, odd, formula, treat="Behandlung ü")
    assert_same(res, clean(estimator, "y ~ x1 + x2"))
    shown = [name.replace('"', "'") if "alter" in name else name for name in res.outcome_params.index]
    assert shown == ["Intercept", *terms]
    assert "Behandlung ü" in str(res.summary())


@pytest.mark.parametrize("formula", ["y ~ I(I**2)", "y ~ C(C > 0)", "y ~ I + Q('Q')"])
def test_fault_27_columns_named_like_functions_are_refused(data, formula):
    odd = data.rename(columns={"x1": "I", "x2": "C", "x3": "Q"})
    with raises_with(cr.DesignError, "rename"):
        build(cr.IPWRA, odd, formula)


# --- the caller's objects ----------------------------------------------------------------------------------------


def fingerprint(value):
    if isinstance(value, pd.DataFrame):
        return [repr(value.dtypes.to_dict()), repr(value.attrs), [fingerprint(c) for _, c in value.items()]]
    if isinstance(value, pd.Series):
        labels = list(value.cat.categories) if isinstance(value.dtype, pd.CategoricalDtype) else None
        hashes = pd.util.hash_pandas_object(value, index=True).to_numpy().tobytes()
        return [value.name, value.index.names, repr(value.dtype), labels, hashes]
    if isinstance(value, np.ndarray):
        return [value.dtype, value.shape, value.flags.writeable, value.tobytes()]
    return value


@BOTH
def test_fault_30_nothing_of_the_caller_is_changed(data, estimator):
    frame = with_group(data).set_axis([f"r{i}" for i in range(N)])
    frame["g"] = pd.Categorical(frame.g, ["zz", "c", "b", "a"])
    frame["text"] = np.where(frame.d == 1, "yes", "no")
    frame.loc[["r3", "r9"], "x1"] = np.nan
    arrays = {"w": np.where(np.arange(N) % 50 == 0, 0, 2), "g": np.arange(N) % 40, "levels": {"no": "a", "yes": "b"}}
    weighted = build(estimator, frame, treat="text", treated="yes", weights=arrays["w"], weight_type="frequency")
    rows = weighted.fit(cov_type="robust").in_sample.sum()
    arrays |= {"r": np.random.default_rng(0).multinomial(2 * rows, np.full(rows, 1 / rows), size=5).T.copy()}
    before, copied = fingerprint(frame), copy.deepcopy(arrays)
    options = {"cov_type": "bootstrap", "resamples": arrays["r"]}
    options |= {"replicates": arrays["r"]} if estimator is cr.JRE else {}
    model = build(estimator, frame, "y ~ center(x1) + g", treat="text", treated="yes", levels=arrays["levels"],
                  weights=arrays["w"], weight_type="frequency")  # fmt: skip
    model.fit(**options).summary()
    assert fingerprint(frame) == before
    assert {k: fingerprint(v) for k, v in arrays.items()} == {k: fingerprint(v) for k, v in copied.items()}


def test_fault_30_results_do_not_follow_later_changes(data):
    y, X, d = data.y.to_numpy().copy(), np.column_stack([np.ones(N), data.x1]), data.d.to_numpy().copy()
    frame = data.copy()
    models = [cr.IPWRA(y, X, d), build(cr.IPWRA, frame)]
    results = [model.fit() for model in models]
    kept = [copy.deepcopy((r.params, r.potential_outcomes, r.in_sample)) for r in results]
    y[:], X[:], d[:], frame.loc[:, "y"], frame.loc[:, "x1"] = 0, 0, 0, 0.0, 0.0
    for res, model, (params, fitted, rows) in zip(results, models, kept, strict=True):
        mine = [res.params, res.in_sample]
        mine[0].iloc[0], mine[1].iloc[0] = 99.0, False
        pd.testing.assert_series_equal(res.params, params)
        pd.testing.assert_frame_equal(res.potential_outcomes, fitted)
        pd.testing.assert_series_equal(res.in_sample, rows)
        pd.testing.assert_series_equal(model.fit().params, params)


@ONE
@pytest.mark.parametrize("storage", [">f4", ">f8", "float32", "Sparse[float]"])
def test_fault_31_storage_of_columns(data, estimator, storage):
    exact = data.astype("float32").astype(float)
    changed = exact.copy()
    for column in ("y", "x1", "x2"):
        values = exact[column].to_numpy()
        changed[column] = pd.arrays.SparseArray(values) if "Sparse" in storage else values.astype(storage)
    changed["d"] = data.d.to_numpy().astype(">i2")
    assert_same(fit(estimator, changed), fit(estimator, exact))


# --- formulas ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("formula", "propensity", "words"),
    [
        ("y ~ x1 + nope", None, ["outcome formula 'y ~ x1 + nope'", "'nope'", "neither a column"]),
        ("y ~ x1 + X2", None, ["'X2'", "Did you mean 'x2'?"]),
        ("y ~ x1", "x2 + agee", ["propensity formula 'x2 + agee'", "'agee'"]),
        ("y ~ x1 +", None, ["outcome formula 'y ~ x1 +'", "cannot be read"]),
        ("y ~ x1", "x2 + (", ["propensity formula 'x2 + ('", "cannot be read"]),
        ("y ~ x1 ~ x2", None, ["outcome formula 'y ~ x1 ~ x2'", "cannot be read"]),
        ("y ~", None, ["outcome formula 'y ~'", "empty right-hand side", '"y ~ 1"']),
        ("y ~ 0", None, ["outcome formula 'y ~ 0'", "empty right-hand side"]),
        ("y ~ x1", "", ["propensity formula ''", "empty right-hand side", 'propensity="1"']),
        ("y ~ x1", "0", ["propensity formula '0'", "empty right-hand side"]),
        ("x1 + x2", None, ["outcome formula 'x1 + x2'", "no left-hand side"]),
        ("z ~ x1", None, ["outcome formula", "'z'"]),
        ("y ~ nofunction(x1)", None, ["outcome formula", "'nofunction'"]),
        ("y ~ np.nosuch(x1)", None, ["outcome formula", "nosuch"]),
    ],
)
def test_fault_32_formulas_that_cannot_be_used(data, formula, propensity, words):
    with raises_with(cr.DesignError, *words):
        build(cr.JRE, data, formula, propensity=propensity)


@pytest.mark.parametrize("formula", ["y ~ 0 + x1", "y ~ x1 - 1", "y ~ -1 + x1"])
def test_fault_32_no_intercept_is_allowed_and_said(data, formula):
    with pytest.warns(cr.DesignWarning, match="outcome model: no constant"):
        res = build(cr.OutcomeRegression, data, formula, propensity="x1").fit()
    slopes = [data.y[data.d == a] @ data.x1[data.d == a] / (data.x1[data.d == a] ** 2).sum() for a in (0, 1)]
    assert list(res.outcome_params.index) == ["x1"]
    assert res.effect == pytest.approx((slopes[1] - slopes[0]) * data.x1.mean(), rel=1e-10)


@pytest.mark.parametrize("term", ["center(x1)", "standardize(x1)"])
@ONE
def test_fault_33_stateful_transforms_keep_their_state(data, estimator, term):
    model, plain = build(estimator, data, f"y ~ {term} + x2"), build(estimator, data, "y ~ x1 + x2")
    options = QUICK if estimator is cr.JRE else {"cov_type": "bootstrap", "n_boot": 20}
    res, base = model.fit(**options), plain.fit(**options)
    np.testing.assert_allclose(res.boot_params, base.boot_params, rtol=1e-9)  # not re-estimated on resamples
    first = res.start if estimator is cr.JRE else res
    start = base.start if estimator is cr.JRE else base
    np.testing.assert_allclose(first.predict(data[:7]), start.predict(data[:7]), rtol=1e-9)


# --- results -----------------------------------------------------------------------------------------------------

COPIES = {
    "pickle": lambda x: pickle.loads(pickle.dumps(x)),
    "pickle 2": lambda x: pickle.loads(pickle.dumps(x, protocol=2)),
    "deepcopy": copy.deepcopy,
    "copy": copy.copy,
    "cloudpickle": lambda x: pickle.loads(cloudpickle.dumps(x)),
}
FORMULA = "y ~ standardize(x1) + bs(x2, df=4) + C(g)"


@functools.cache
def fit_of_groups(estimator):
    grouped = with_group(simulate(n=N, seed=3))
    return grouped, fit(estimator, grouped, FORMULA, propensity="x1 + x2", levels={0: "never", 1: "größe"})


@pytest.mark.parametrize("how", COPIES)
@BOTH
def test_fault_62_results_survive_copying(estimator, how):
    grouped, res = fit_of_groups(estimator)
    other = COPIES[how](res)
    assert other is not res
    pd.testing.assert_series_equal(other.params, res.params, check_exact=True)
    pd.testing.assert_frame_equal(other.cov_params(), res.cov_params(), check_exact=True)
    assert str(other.summary()) == str(res.summary()) and repr(other) == repr(res)
    assert other.summary().as_html() == res.summary().as_html()
    pd.testing.assert_series_equal(other.in_sample, res.in_sample)
    first, second = (res, other) if estimator is not cr.JRE else (res.start, other.start)
    new = grouped[5:1:-1]
    pd.testing.assert_frame_equal(second.predict(new), first.predict(new), check_exact=True)
    assert_same(finish(other.model), res)
    if estimator is cr.JRE:
        pd.testing.assert_frame_equal(other.boot_params, res.boot_params, check_exact=True)
        pd.testing.assert_frame_equal(other.replicate_bias, res.replicate_bias, check_exact=True)


def test_fault_62_a_copy_shares_nothing_that_can_be_changed(data):
    res = fit(cr.IPWRA, data)
    own = res.model.design.X
    with pytest.raises(ValueError, match="read-only"):
        own[0, 0] = 1.0
    for other in (copy.deepcopy(res), COPIES["pickle"](res)):
        assert not np.shares_memory(other.model.design.X, own)


def test_fault_62_errors_survive_pickling(data):
    split = data.assign(d=(data.x1 > 0).astype(int))
    with pytest.raises(cr.SeparationError) as caught:
        fit(cr.IPWRA, split)
    other = COPIES["pickle"](caught.value)
    assert str(other) == str(caught.value) and list(other.rows) == list(caught.value.rows)


@ONE
@pytest.mark.parametrize("alpha", [0, 1, -1, 95, 1.0, np.nan, np.inf, "0.05", None, True])
def test_fault_65_alpha(data, estimator, alpha):
    res = fit(estimator, data)
    for call in (res.conf_int, res.summary, res.summary_frame):
        with raises_with(cr.OptionError, f"alpha={alpha!r}", "significance level in (0, 0.5]", "alpha=0.05"):
            call(alpha=alpha)


def test_fault_65_alpha_is_used(data):
    res = fit(cr.JRE, data)
    width = {alpha: np.diff(res.conf_int(alpha))[0, 0] / res.effect_se / 2 for alpha in (0.05, 0.1, 0.5)}
    np.testing.assert_allclose(list(width.values()), [1.959963985, 1.644853627, 0.674489750], rtol=1e-9)
    with raises_with(cr.OptionError, "method='bootstrap'", "'percentile'"):
        res.conf_int(method="bootstrap")


# --- options -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["n_replicates", "share", "objective", "shrinkage", "replicates"])
def test_fault_67_options_of_jre_elsewhere(data, name):
    with raises_with(TypeError, name):
        build(cr.IPWRA, data).fit(**{name: 1})


@pytest.mark.parametrize(
    ("name", "near"), [("wieghts", "weights"), ("propensty", "propensity"), ("n_boot", "fit(n_boot=")]
)
def test_fault_67_unknown_option_of_a_model(data, name, near):
    with raises_with(TypeError, name, near):
        build(cr.JRE, data, **{name: 1})


def test_fault_70_variables_named_like_builtins_of_the_formula_language(data):
    grouped = with_group(data)
    base = fit(cr.IPWRA, grouped, "y ~ C(g) + I(x1**2) + x2")
    C, I, Q, np_, center = np.zeros(3), 5, [1, 2], 7, None  # noqa: E741, F841
    for shown in ("y ~ C(g) + I(x1**2) + Q('x2')", "y ~ C(g) + I(x1 ** 2) + x2"):
        assert_same(cr.IPWRA.from_formula(shown, grouped, treat="d").fit(), base)
    y, d, x1, x2, g = (grouped[name] for name in ("y", "d", "x1", "x2", "g"))  # noqa: RUF059
    C = I = Q = np.arange(N)  # noqa: E741, F841
    assert_same(cr.IPWRA.from_formula("y ~ C(g) + I(x1**2) + Q('x2')", treat="d").fit(), base)


@pytest.mark.parametrize(
    ("formula", "propensity", "model", "term"),
    [
        ("y ~ x1 + x1**2", "x1", "outcome", "x1**2"),
        ("y ~ x1 + x2", "x1 + x2**3", "propensity", "x2**3"),
        ("y ~ x1 + np.exp(x2)**2", "x1", "outcome", "np.exp(x2)**2"),
    ],
)
def test_fault_71_power_without_i(data, formula, propensity, model, term):
    base = term.partition("**")[0]
    with pytest.warns(cr.DesignWarning) as caught:
        res = fit(cr.IPWRA, data, formula, propensity=propensity)
    (text,) = [str(w.message) for w in caught]
    assert f"{term} in the {model} formula" in text and f"means just {base}" in text and f"I({term})" in text
    assert f"I({term})" in " ".join(str(res.summary()).split())
    meant = {"formula": formula.replace(term, base), "propensity": propensity.replace(term, base)}
    assert_same(res, fit(cr.IPWRA, data, **meant))


@BOTH
def test_fault_72_weights_without_their_type(data, estimator):
    weights = np.arange(N) % 3 + 1
    with raises_with(cr.OptionError, "weight_type", '"frequency"', '"probability"'):
        build(estimator, data, weights=weights)
    with raises_with(cr.OptionError, "'w'", '"frequency"', '"probability"'):
        build(estimator, data.assign(w=weights), weights="w")
    with raises_with(cr.OptionError, "weight_type='counts'", "'frequency'", "'probability'"):
        build(estimator, data, weights=weights, weight_type="counts")
    with raises_with(cr.OptionError, "weight_type='frequency'", "without weights"):
        build(estimator, data, weight_type="frequency")
    kinds = [fit(estimator, data, weights=weights, weight_type=kind) for kind in ("frequency", "probability")]
    assert abs(kinds[0].effect_se / kinds[1].effect_se - 1) > 0.05  # which is why it is asked


@BOTH
@pytest.mark.parametrize("option", [{"bootstrap": kind} for kind in ("pairs", "stratified")]
                         + [{"cov_type": kind} for kind in ("robust", "HC0", "HC1")])  # fmt: skip
def test_fault_72_clusters_against_standard_errors_by_rows(data, estimator, option):
    ((name, value),) = option.items()
    clustered = build(estimator, data, cluster=np.arange(N) % 30)
    with raises_with(cr.OptionError, f'{name}="{value}"', "cluster= was given", f'{name}="cluster"'):
        clustered.fit(**option)
    with raises_with(cr.OptionError, f'{name}="cluster"', "needs clusters", 'cluster="'):
        build(estimator, data).fit(**{name: "cluster"})


@BOTH
def test_fault_72_clusters_of_copies_have_the_errors_of_the_rows_once(data, estimator):
    copies = pd.concat([data.assign(g=np.arange(N))] * 5, ignore_index=True)
    once, five = {"cov_type": "robust"}, {"cov_type": "cluster"}
    if estimator is cr.JRE:
        once |= {"replicates": np.ones((N, 1)), "objective": "erm"}
        five |= {"replicates": np.ones((5 * N, 1)), "objective": "erm"}
    base, res = build(estimator, data).fit(**once), build(estimator, copies, cluster="g").fit(**five)
    assert_same(res, base, rtol=1e-8)
    assert "cluster" in str(res.summary())
    rows = build(cr.IPWRA, copies).fit()
    assert rows.effect_se == pytest.approx(fit(cr.IPWRA, data).effect_se / 5**0.5, rel=1e-8)


GIVEN = {"resamples": np.random.default_rng(0).multinomial(N, np.full(N, 1 / N), size=20).T}


@pytest.mark.parametrize("option", [{"bootstrap": "pairs"}, {"bootstrap": "stratified"}, GIVEN], ids=" ".join)
def test_fault_72_a_bootstrap_asked_for_is_not_answered_with_robust_errors(data, option):
    """Without cov_type the classic four give robust errors; naming a bootstrap contradicts that or implies one."""
    try:
        res = build(cr.IPWRA, data).fit(**option)
    except cr.OptionError as error:
        assert next(iter(option)) in str(error) and "cov_type" in str(error)
        return
    assert "bootstrap" in str(res.summary())


@BOTH
def test_fault_72_resamples_against_robust_errors(data, estimator):
    with raises_with(cr.OptionError, "resamples", "cov_type"):
        build(estimator, data).fit(cov_type="robust", **GIVEN)


def test_fault_72_two_numbers_of_resamples_or_replicates(data):
    with raises_with(cr.OptionError, "resamples= and n_boot= were both given", "Leave n_boot= out"):
        build(cr.IPWRA, data).fit(n_boot=20, **GIVEN)
    with raises_with(cr.OptionError, "replicates= and n_replicates= were both given", "Leave n_replicates= out"):
        build(cr.JRE, data).fit(n_replicates=3, replicates=np.ones((N, 3)))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        (name, v)
        for name, vs in (("n_replicates", [0, 2.5, "many"]), ("spread", [-1.0, np.nan]), ("shrinkage", [-1, "x"]))
        for v in vs
    ],
)
def test_odd_values_of_the_options_of_jre_are_refused(data, option, value):
    with raises_with(cr.OptionError, f"{option}="):
        build(cr.JRE, data).fit(**{option: value})


@pytest.mark.parametrize("given", [np.array([1, 0]), pd.Index([0, 1]), [1, 0], ["a", "b"], "smoker", 1])
def test_labels_of_levels_are_a_mapping(data, given):
    named = build(cr.IPW, data, levels=pd.Series(["never", "smoker"], index=[0, 1]))
    assert named.design.labels == ("never", "smoker")
    with raises_with(cr.DesignError, "expected a mapping of each level to its label", "levels={0:"):
        build(cr.IPW, data, levels=given)


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("treated", [0, 1], "is not a level of treatment 'd'"),
        ("reference", [0, 1], "is not a level of treatment 'd'"),
        ("link", ["log"], "link=['log'] is not available for family='gaussian'"),
        ("cov_type", "", "cov_type='' is not known"),
        ("small_sample", "HC1", "small_sample='HC1' is not known; expected one of False, True"),
    ],
)
def test_odd_values_of_options_are_refused(data, option, value, words):
    model, fit_options = ({}, {option: value}) if option in ("cov_type", "small_sample") else ({option: value}, {})
    with raises_with(cr.CausalRiskError, words):
        build(cr.AIPW, data, **model).fit(**fit_options)


def test_an_option_that_is_no_number_is_refused_with_what_is_expected(data):
    for estimator, option in ((cr.Matching, "n_neighbors"), (cr.AIPW, "n_repeats"), (cr.AIPW, "n_folds")):
        with raises_with(cr.OptionError, f"{option}=None; expected a whole number of at least 1"):
            build(estimator, data, **{option: None, "learner": None if option == "n_neighbors" else "smooth"})
    with raises_with(cr.OptionError, "max_failed=None; expected a share of the resamples"):
        build(cr.AIPW, data).fit(max_failed=None)


@pytest.mark.parametrize("true", [1, np.True_, 1.0])
def test_values_that_mean_true_and_false_are_read_as_these(data, true):
    false = type(true)(0)
    for given, meant in ((true, True), (false, False)):
        model = build(cr.AIPW, data, normalize=given)
        assert model.options.normalize is meant
        assert_same(model.fit(use_t=given), build(cr.AIPW, data, normalize=meant).fit(use_t=meant))
    with raises_with(cr.OptionError, "normalize=2 is not known; expected one of False, True"):
        build(cr.AIPW, data, normalize=2)
    model = build(cr.JRE, data)
    assert_same(model.fit(join_score=true, **QUICK), model.fit(join_score=True, **QUICK))

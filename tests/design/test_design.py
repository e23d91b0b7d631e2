"""The design: one sample, plain frozen arrays, and every fault of the data named."""

import copy
import pickle

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import causalrisk as cr
from causalrisk.errors import DesignError, DesignWarning, OptionError
from tests.conftest import array_design, formula_design, simulate

N = 60


@pytest.fixture
def data():
    rng = np.random.default_rng(5)
    return pd.DataFrame(
        {
            "y": rng.normal(size=N),
            "d": np.arange(N) % 2,
            "x": rng.normal(size=N),
            "z": rng.normal(size=N),
            "k": rng.integers(1, 5, N),
            "g": np.array(["a", "b", "c"])[rng.integers(0, 3, N)],
            "flag": rng.random(N) < 0.5,
            "w": rng.integers(1, 4, N),
            "c": np.arange(N) // 6,
        },
        index=[f"r{i}" for i in range(N)],
    )


def make(data, formula="y ~ x", **options):
    return formula_design(formula, data, **{"treat": "d", "frame": {"np": np}, **options})


def same(a, b):
    arrays = ("y", "X", "Z", "arm", "weights")
    return all(np.array_equal(getattr(a, f), getattr(b, f)) for f in arrays) and a.exog_names == b.exog_names


def test_fields(data):
    design = make(data, "y ~ x + g", propensity="x + z", cluster="c", weights="w", weight_type="frequency")
    assert (design.n, design.n_arms, design.nobs) == (N, 2, data.w.sum())
    assert design.counts.tolist() == data.groupby("d")["w"].sum().tolist()
    assert design.members.tolist() == [(data.d == 0).tolist(), (data.d == 1).tolist()]
    for name, dtype in {
        "y": float,
        "X": float,
        "Z": float,
        "weights": float,
        "arm": np.int8,
        "cluster": np.intp,
    }.items():
        array = getattr(design, name)
        assert array.dtype == dtype
        assert array.flags.c_contiguous
        assert not array.flags.writeable
    assert design.cluster.tolist() == data.c.tolist()
    assert design.weights.tolist() == data.w.tolist()
    assert (design.weights_name, design.cluster_name, design.weight_type) == ("w", "c", "frequency")
    assert design.index.equals(data.index)
    assert design.in_sample.all() and design.in_sample.index.equals(data.index)
    assert list(design.sample_ledger.columns) == ["formula", "variable", "missing", "dropped"]
    assert design.sample_ledger.empty
    assert design.notes == ()
    assert repr(design) == "Design: y ~ x + g, d: 1 vs 0, n 119"
    plain = make(data)
    assert plain.cluster is None and plain.weights_name is None and (plain.weights == 1).all()


def test_caller_data_is_untouched_and_not_held(data):
    before = copy.deepcopy(data)
    scope = {"other": np.arange(N, dtype=float)}
    design = make(
        data, "y ~ x + g + k + other", frame=scope, cluster=data["c"], weights=data["w"], weight_type="frequency"
    )
    pd.testing.assert_frame_equal(data, before)
    assert scope["other"].tolist() == list(range(N))
    arrays = [design.y, design.X, design.Z, design.weights, design.arm, design.cluster]
    assert not any(np.shares_memory(a, data[c].to_numpy()) for a in arrays for c in ("y", "d", "x", "k", "w", "c"))
    X = np.column_stack([np.ones(N), data.x])
    y, d = data.y.to_numpy(copy=True), data.d.to_numpy(copy=True)
    design = array_design(y, X, d)
    assert not any(np.shares_memory(a, b) for a in (design.y, design.X, design.Z, design.arm) for b in (y, X, d))
    assert X.flags.writeable and y.flags.writeable


def test_pickle_and_deepcopy(data):
    design = make(data, "y ~ x + g", cluster="c")
    for again in (pickle.loads(pickle.dumps(design)), copy.deepcopy(design)):
        assert same(design, again)
        assert again.labels == design.labels
        assert again.in_sample.equals(design.in_sample)
        assert np.array_equal(again.outcome_encoder.encode(data), design.X)


def test_one_sample_and_its_ledger(data):
    data = data.astype({"k": float, "d": float, "w": float, "c": float})
    data.iloc[0:3, data.columns.get_loc("x")] = np.nan
    data.iloc[2:5, data.columns.get_loc("z")] = np.nan
    data.iloc[5, data.columns.get_loc("g")] = None
    data.iloc[6, data.columns.get_loc("y")] = np.nan
    data.iloc[7:9, data.columns.get_loc("d")] = np.nan
    data.iloc[9, data.columns.get_loc("w")] = np.nan
    data.iloc[10, data.columns.get_loc("c")] = np.nan
    design = make(data, "y ~ x + g", propensity="x + z", weights="w", weight_type="probability", cluster="c")
    expected = pd.DataFrame(
        [
            ("outcome", "y", 1, 1),
            ("outcome, propensity", "x", 3, 3),
            ("outcome", "g", 1, 1),
            ("propensity", "z", 3, 2),
            ("treatment", "d", 2, 2),
            ("weights", "w", 1, 1),
            ("cluster", "c", 1, 1),
        ],
        columns=["formula", "variable", "missing", "dropped"],
    )
    pd.testing.assert_frame_equal(design.sample_ledger, expected)
    assert design.n == N - 11
    assert design.index.tolist() == data.index[11:].tolist()
    assert design.in_sample.tolist() == [False] * 11 + [True] * 49
    assert design.sample_ledger.dropped.sum() == (~design.in_sample).sum()
    assert same(
        design, make(data[11:], "y ~ x + g", propensity="x + z", weights="w", weight_type="probability", cluster="c")
    )


def test_levels_are_those_of_the_sample(data):
    data["g"] = pd.Categorical(data.g, categories=["a", "b", "c", "never"])
    data.loc[data.g == "c", "x"] = np.nan
    assert make(data, "y ~ x + g").exog_names == ("Intercept", "g[T.b]", "x")


def test_missing_raise(data):
    data.loc[["r3", "r5"], "x"] = np.nan
    with pytest.raises(
        DesignError, match=r"(?s)missing values in 2 of 60 rows.*'x' \(outcome, propensity\)  2 rows.*'r3', 'r5'"
    ):
        make(data, missing="raise")
    assert make(data.dropna(), missing="raise").n == 58
    with pytest.raises(OptionError, match="missing='ignore'"):
        make(data, missing="ignore")


def test_nothing_left(data):
    with pytest.raises(DesignError, match=r"(?s)no observations left: all 60 rows were dropped.*'x' .*  60 rows"):
        make(data.assign(x=np.nan))
    with pytest.raises(DesignError, match="the data have no rows"):
        make(data.iloc[:0])


STORAGE = {
    "float32": {"k": "float32"},
    "big-endian": {"x": ">f8", "y": ">f8", "k": ">i4", "d": ">i2"},
    "nullable": {"x": "Float64", "k": "Int64", "d": "boolean", "flag": "boolean", "g": "string"},
    "object": {"x": object, "k": object, "d": object, "flag": object, "g": object},
    "category": {"g": "category"},
    "sparse": {"x": "Sparse[float]", "y": "Sparse[float]"},
    "small": {"k": "int8", "d": "int8", "w": "int16"},
}


@pytest.mark.parametrize("types", STORAGE.values(), ids=STORAGE)
def test_any_storage_gives_the_same_design(data, types):
    formula = "y ~ x + I(k**2) + g + flag + C(w)"
    assert same(make(data.astype(types), formula), make(data, formula))


def test_arrow_storage_gives_the_same_design(data):
    pa = pytest.importorskip("pyarrow", exc_type=ImportError)
    types = {"y": "double[pyarrow]", "x": "double[pyarrow]", "k": "int64[pyarrow]", "g": "string[pyarrow]"}
    types |= {"flag": "bool[pyarrow]", "d": "int8[pyarrow]"}
    formula = "y ~ x + I(k**2) + g + flag + C(k):x"
    assert same(make(data.astype(types), formula), make(data, formula))
    dictionary = pd.ArrowDtype(pa.dictionary(pa.int32(), pa.string()))
    assert same(make(data.astype({"g": dictionary}), formula), make(data, formula))


def test_nullable_missing_is_as_float_missing(data):
    data.iloc[:2, data.columns.get_loc("x")] = np.nan
    assert same(make(data.astype({"x": "Float64", "y": "Float64"})), make(data))


def test_duplicate_labels_and_columns(data):
    assert same(make(data.set_axis(["same"] * N)), make(data))
    twice = pd.concat([data, data[["x"]]], axis=1)
    with pytest.raises(DesignError, match="2 columns named 'x'"):
        make(twice)
    assert same(make(twice, "y ~ z"), make(data, "y ~ z"))
    with pytest.raises(DesignError, match="2 columns named 'd'"):
        make(pd.concat([data, data[["d"]]], axis=1))


def test_treat_as_array(data):
    assert same(make(data, treat=data.d), make(data))
    assert make(data, treat=data.d.to_numpy()).treat_name == "treat"
    assert make(data, treat=list(data.d)).propensity_formula == "treat ~ x"
    with pytest.warns(DesignWarning, match="treatment 'd' has the row labels of the data in another order") as caught:
        design = make(data, treat=data.d[::-1])
    assert same(design, make(data))
    assert design.notes == tuple(str(w.message) for w in caught)
    with pytest.raises(DesignError, match=r"'d' has 59 values, but the data have 60 rows"):
        make(data, treat=data.d[:-1])
    with pytest.raises(DesignError, match="treatment 'treat' has 5 values, but the data have 60 rows"):
        make(data, treat=np.ones(5))
    with pytest.raises(DesignError, match=r"treatment 'dd' is neither a column .*\nDid you mean 'd'"):
        make(data, treat="dd")


def test_weights(data):
    with pytest.raises(OptionError, match="weights 'w' were given without weight_type"):
        make(data, weights="w")
    with pytest.raises(OptionError, match="weight_type='frequency' was given without weights="):
        make(data, weight_type="frequency")
    with pytest.raises(OptionError, match="weight_type='analytic'"):
        make(data, weights="w", weight_type="analytic")
    with pytest.raises(DesignError, match=r"weights 'x' have .* negative values"):
        make(data, "y ~ z", weights="x", weight_type="probability")
    with pytest.raises(DesignError, match="weights 'w' have 60 negative or fractional values"):
        make(data.assign(w=0.5), weights="w", weight_type="frequency")
    counts = np.arange(N) % 3 + 1
    rounded = make(data.assign(w=counts / 3 * 3.0000000000000004 + 1e-12), weights="w", weight_type="frequency")
    np.testing.assert_array_equal(rounded.weights, counts)
    with pytest.raises(DesignError, match="'w' has infinite values in 1 of"):
        make(data.assign(w=np.where(np.arange(N) == 0, np.inf, 1)), weights="w", weight_type="probability")
    with pytest.raises(DesignError, match="weights 'g' has dtype"):
        make(data, weights="g", weight_type="probability")
    with pytest.raises(DesignError, match="weights 'ww' is neither"):
        make(data, weights="ww", weight_type="probability")


def test_zero_weights(data):
    data = data.assign(w=np.where(np.arange(N) < 4, 0.0, 1.5))
    data.loc["r0", "x"] = np.nan
    design = make(data, weights="w", weight_type="probability")
    assert design.n == N - 4
    assert design.sample_ledger.iloc[-1].tolist() == ["weights", "weights = 0", 4, 3]
    assert (design.weights == 1).all()  # only their ratios count
    with pytest.raises(DesignError, match="treatment 'd' is constant"):
        make(data.assign(w=data.d), weights="w", weight_type="probability")


def test_cluster(data):
    with pytest.raises(DesignError, match="there is one cluster, one"):
        make(data.assign(one="a"), cluster="one")
    assert make(data, cluster=data.c.to_numpy()).cluster_name == "cluster"
    assert make(data, cluster="g").cluster.max() == 2


def test_small_arms(data):
    few = data.assign(d=(np.arange(N) < 3).astype(int))
    with pytest.raises(DesignError, match="group 'smoker' has 3 rows for 4 outcome coefficients"):
        make(few, "y ~ x + z + k", levels={0: "nonsmoker", 1: "smoker"})
    assert make(few, "y ~ x + z + k", constant_outcome=True).n == N
    with pytest.raises(DesignError, match=r"group '1' has 1 row for 1 outcome coefficient\.\n.* at least two rows"):
        make(data.assign(d=(np.arange(N) < 1).astype(int)), constant_outcome=True)
    with pytest.raises(DesignError, match="5 rows for 5 propensity coefficients"):
        make(data[:5], "y ~ 1", propensity="x + z + k + w + c", treat="d")


def three_arms(data, **changes):
    return data.assign(t=np.array(["c", "a", "b"])[np.arange(N) % 3], **changes)


def make_three(data, formula="y ~ x", **options):
    return make(data, formula, **{"treat": "t", "reference": "b", **options})


def test_three_arms(data):
    design = make_three(three_arms(data))
    assert (design.n_arms, design.labels, design.counts.tolist()) == (3, ("b", "a", "c"), [20, 20, 20])
    assert design.members.shape == (3, N)
    assert [design.levels[k] for k in design.arm] == list(three_arms(data).t)
    assert repr(design) == "Design: y ~ x, t: a, c vs b, n 60"


def test_three_arms_that_cannot_be_estimated(data):
    few = three_arms(data)
    few.loc[few.index[6:][few.t[6:] == "c"], "t"] = "a"
    with pytest.raises(DesignError, match="group 'c' has 2 rows for 2 outcome coefficients"):
        make_three(few)
    empty = three_arms(data, g=np.where(np.arange(N) % 3 == 2, "p", data.g))
    empty.iloc[0, empty.columns.get_loc("g")] = "p"
    with pytest.warns(DesignWarning, match=r"g = 'b' has no rows in group 'b'; "):
        make_three(empty, "y ~ x + g")
    dummy = ((np.arange(N) % 3 != 2) & data.flag).astype(int)
    with pytest.warns(DesignWarning, match="only is 0 in all rows of group 'b'"):
        make_three(three_arms(data, only=dummy), "y ~ x + only")


def test_three_arms_from_arrays(data):
    X, t = np.column_stack([np.ones(N), data.x]), three_arms(data).t.to_numpy()
    design = array_design(data.y, X, t, reference="a", levels={"a": "none", "b": "half", "c": "full"})
    assert design.labels == ("none", "half", "full")
    with pytest.raises(DesignError, match='reference="a"'):
        array_design(data.y, X, t)


def test_frequency_weights_count_as_rows(data):
    few = data.assign(d=(np.arange(N) < 3).astype(int), w=2)
    assert make(few, "y ~ x + z", weights="w", weight_type="frequency").n == N
    with pytest.raises(DesignError, match="group '1' has 3 rows for 3 outcome"):
        make(few, "y ~ x + z", weights="w", weight_type="probability")


def test_dependent_columns(data):
    data["twice"] = 2 * data.x
    data["seven"] = 7
    with pytest.warns(DesignWarning) as caught:
        design = make(data, "y ~ x + twice + z + seven", propensity="seven + z")
    assert design.exog_names == ("Intercept", "x", "z")
    assert design.propensity_names == ("Intercept", "z")
    assert [str(w.message).split(". ")[0] for w in caught] == [
        "outcome model: dropped 'twice' (linearly dependent on earlier columns) and 'seven' (constant)",
        "propensity model: dropped 'seven' (constant)",
    ]
    assert "'seven'" in str(caught[0].message)
    assert len(design.notes) == 2


def test_condition_number(data):
    data["near"] = data.x + 1e-9 * data.z
    with pytest.warns(DesignWarning, match=r"outcome model: the columns are nearly dependent \(condition number \d"):
        design = make(data, "y ~ x + near", propensity="x")
    assert design.exog_names == ("Intercept", "x", "near")


def test_arrays_equal_formula(data):
    X = np.column_stack([np.ones(N), data.x, data.z])
    design = array_design(data.y.to_numpy(), X, data.d.to_numpy())
    assert np.array_equal(design.X, make(data, "y ~ x + z").X)
    assert design.exog_names == ("const", "x1", "x2")
    assert (design.endog_name, design.treat_name) == ("y", "treat")
    assert design.formula is None and design.propensity_formula is None
    assert np.array_equal(design.Z, design.X)
    assert design.index.equals(pd.RangeIndex(N))


def test_labelled_arrays(data):
    exog = data[["x", "z"]].assign(const=1.0)
    with pytest.warns(DesignWarning, match="exog has the row labels of the data in another order"):
        design = array_design(data.y, exog[::-1], data.d)
    assert design.exog_names == ("x", "z", "const")
    assert (design.endog_name, design.treat_name) == ("y", "d")
    assert np.array_equal(design.X, exog)
    assert design.index.equals(data.index)
    with pytest.raises(DesignError, match="exog has 60 values, but the data have 60 rows with other"):
        array_design(data.y, exog.reset_index(drop=True), data.d)
    with pytest.raises(DesignError, match=r"exog has several columns named 'x'"):
        array_design(data.y, data[["x", "x"]], data.d)
    with pytest.raises(DesignError, match="treatment 'd' is a column of exog"):
        array_design(data.y, exog.assign(d=data.d), data.d)
    with pytest.raises(DesignError, match="outcome 'y' is a column of exog_propensity"):
        array_design(data.y, exog, data.d, exog_propensity=exog.assign(y=data.y))


MATRICES = {
    "csr": sparse.csr_matrix,
    "coo array": sparse.coo_array,
    "Fortran": np.asfortranarray,
    "float32": lambda X: X.astype(np.float32),
    "big-endian": lambda X: X.astype(">f8"),
    "object": lambda X: X.astype(object),
    "list": lambda X: X.tolist(),
    "DataFrame": lambda X: pd.DataFrame(X, columns=["const", "x1"]).astype({"x1": "Int64"}),
}


@pytest.mark.parametrize("convert", MATRICES.values(), ids=MATRICES)
def test_matrices_of_any_storage(data, convert):
    X = np.column_stack([np.ones(N), data.k])
    y, d = data.y.to_numpy(), data.d.to_numpy()
    assert same(array_design(y, convert(X), d), array_design(y, X, d))


def test_array_faults(data):
    X = np.column_stack([np.ones(N), data.x])
    y, d = data.y.to_numpy(), data.d.to_numpy()
    with pytest.warns(DesignWarning, match="outcome model: no constant among the columns \\('x1'\\)"):
        array_design(y, data.x.to_numpy(), d, exog_propensity=X)
    with pytest.raises(DesignError, match="exog has 59 values, but the data have 60 rows"):
        array_design(y, X[:-1], d)
    with pytest.raises(DesignError, match=r"treatment is the list 'd'; expected one column"):
        make(data, "y ~ x", treat=["d"])
    with pytest.raises(DesignError, match="treatment 'treat' has 59 values"):
        array_design(y, X, d[:-1])
    with pytest.raises(DesignError, match=r"exog has shape \(60, 2, 1\)"):
        array_design(y, X[:, :, None], d)
    with pytest.raises(DesignError, match=r"exog has shape \(\)"):
        array_design(y, "x", d)
    with pytest.raises(DesignError, match=r"column 'g' has dtype .*; expected numbers"):
        array_design(data.y, data[["x", "g"]].assign(const=1), data.d)
    with pytest.raises(DesignError, match="outcome 'g' has dtype"):
        array_design(data.g, data[["x"]].assign(const=1), data.d)
    with pytest.raises(DesignError, match="column 'x1' has infinite values in 1 of"):
        array_design(y, np.where(np.arange(2 * N).reshape(N, 2) == 1, np.inf, X), d)
    with pytest.raises(DesignError, match="treated=2"):
        array_design(y, X, d + 1)
    with pytest.raises(DesignError, match="exog has no columns"):
        array_design(y, np.empty((N, 0)), d)


def test_array_sample(data):
    X = np.column_stack([np.ones(N), data.x, data.z])
    X[3, 1] = np.nan
    y = data.y.to_numpy(copy=True)
    y[5] = np.nan
    design = array_design(y, X, data.d.to_numpy(), exog_propensity=X[:, :2].copy())
    assert design.n == N - 2
    assert design.sample_ledger.to_numpy().tolist() == [["outcome", "y", 1, 1], ["outcome, propensity", "x1", 1, 1]]
    assert design.in_sample[~design.in_sample].index.tolist() == [3, 5]


def test_array_encoder(data):
    exog = data[["x", "z"]].assign(const=1.0, seven=7.0)
    with pytest.warns(DesignWarning, match="dropped 'seven'"):
        design = array_design(data.y, exog, data.d)
    encoder = design.outcome_encoder
    assert encoder.names == design.exog_names == ("x", "z", "const")
    assert np.array_equal(encoder.encode(exog.iloc[:4, ::-1]), design.X[:4])
    assert np.array_equal(encoder.encode(exog.to_numpy()[:4]), design.X[:4])
    assert np.array_equal(encoder.encode(design.X[:4]), design.X[:4])
    with pytest.raises(DesignError, match="no column 'z', which the outcome model uses"):
        encoder.encode(exog.drop(columns="z"))
    with pytest.raises(DesignError, match=r"shape \(2, 2\); expected 3 columns: 'x', 'z', 'const'"):
        encoder.encode(np.ones((2, 2)))
    with pytest.raises(DesignError, match="column 'z' of the new data is missing in 1 rows"):
        encoder.encode(np.array([[1.0, np.nan, 1.0], [1, 1, 1]]))
    with pytest.raises(DesignError, match="column 'x' of the new data is missing in 1 rows"):
        encoder.encode(exog.head(1).assign(x=np.nan))
    assert np.array_equal(pickle.loads(pickle.dumps(encoder)).encode(exog), design.X)


def scanned(frame):
    return cr.scan([frame.iloc[:20], frame.iloc[20:]])


@pytest.mark.parametrize("source", [lambda frame: frame, scanned], ids=["memory", "scan"])
def test_levels_of_a_covariate_that_differ_in_blanks_or_case_are_named_once(source):
    frame = simulate(300).assign(sex=["Female", "female ", "Male"] * 100, town=["a", "b", "c", "b"] * 75)
    frame["arm"] = np.where(frame.d == 1, "drug", np.where(frame.index % 2, "none", "None"))
    with pytest.warns(DesignWarning) as given:
        res = cr.OutcomeRegression.from_formula("y ~ x1 + sex + town", source(frame), treat="d").fit()
    (named,) = [str(warning.message) for warning in given]
    assert "'Female', 'female '" in named and 'data["sex"] = data["sex"].str.strip().str.lower()' in named
    assert [note for note in res.summary().notes if note.startswith("Column 'sex' has levels")]
    with pytest.warns(DesignWarning, match=r"'arm' has levels that differ only in blanks or case"):
        cr.OutcomeRegression.from_formula("y ~ x1", source(frame), treat="arm", reference="drug")


def test_data_that_were_forgotten_are_missed_by_name():
    with pytest.raises(DesignError, match="use `data=` with a data frame"):
        cr.JRE.from_formula("re78 ~ age", treat="treat")


@pytest.mark.parametrize("source", [lambda frame: frame, scanned], ids=["memory", "scan"])
def test_lines_through_an_outcome_of_zeros_and_ones_are_noted(source):
    """A note of the summary, no warning: many mean it so."""
    frame = simulate(300).assign(ill=lambda f: (f.y > 0) * 1, share=lambda f: 1 / (1 + np.exp(-f.y)))
    frame["w"] = 1 + np.arange(300) % 3
    frame.loc[0, "share"], frame.loc[1, "share"] = 0.0, 1.0

    def noted(estimator, outcome, **options):
        model = estimator.from_formula(f"{outcome} ~ x1", source(frame), treat="d", **options)
        return any('family="binomial"' in note for note in model.fit().summary().notes)

    assert noted(cr.IPWRA, "ill") and noted(cr.AIPW, "ill", weights="w", weight_type="probability")
    assert not noted(cr.IPWRA, "share") and not noted(cr.IPWRA, "y")
    assert not noted(cr.IPWRA, "ill", family="binomial")
    assert not noted(cr.IPW, "ill", propensity="x1")  # means


def test_the_treatment_stands_third(data):
    with pytest.raises(DesignError, match=r"several columns[^`]*`endog=y, exog=X, treat=d`"):
        cr.IPWRA(data["y"].to_numpy(), data["d"].to_numpy(), data[["x", "x"]].to_numpy())

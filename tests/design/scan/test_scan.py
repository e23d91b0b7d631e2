"""Scans: what is read, what is learnt in the first passes, and what is refused with the name of the block."""

from __future__ import annotations

import itertools
import pickle

import numpy as np
import pandas as pd
import pytest

from causalrisk import IPWRA, DesignError, DesignWarning, UnavailableError, scan
from causalrisk.design.formulas.terms import computes
from causalrisk.design.scan.encode import BlockCoder
from tests.conftest import formula_design, simulate

N = 600
F = "y ~ x1 + g"
ARRAY = np.arange(N)


@pytest.fixture(scope="module")
def data():
    frame = simulate(n=N, seed=5)
    rows = np.arange(N)
    return frame.assign(g=np.array(["b", "a", "c"])[rows % 3], k=rows % 4, flag=frame.x2 > 0, w=rows % 3)


@pytest.fixture
def files(data, tmp_path):
    for k in range(3):
        data[200 * k : 200 * (k + 1)].to_parquet(tmp_path / f"part-{k}.parquet")
    return tmp_path


def scanned(source, formula=F, **options):
    return IPWRA.from_formula(formula, scan(source), **({"treat": "d"} | options)).design


def parts(frame, *cuts):
    return [frame[a:b] for a, b in itertools.pairwise([0, *cuts, len(frame)])]


FORMULAS = ["y ~ 1", "y ~ x1 + g", "np.log1p(y**2) ~ C(k) + flag", "y ~ I(x1**2):g + C(g, Treatment('c'))", "y ~ 0 + g"]


@pytest.mark.filterwarnings("ignore::causalrisk.DesignWarning")
@pytest.mark.parametrize("formula", FORMULAS)
def test_blocks_are_coded_as_the_rows_in_memory(data, formula):
    whole = formula_design(formula, data, treat="d", propensity="x2 + g")
    design = scanned(parts(data, 7, 7, 300), formula, propensity="x2 + g")
    assert (design.exog_names, design.propensity_names) == (whole.exog_names, whole.propensity_names)
    assert (design.labels, design.levels, design.nobs) == (whole.labels, whole.levels, whole.nobs)
    for name in ("X", "Z", "y", "arm", "weights"):
        rows = np.concatenate([getattr(block, name) for block in design.blocks()])
        np.testing.assert_array_equal(rows, getattr(whole, name))


def test_parquet_csv_and_frames_give_the_same_columns(data, files):
    data.to_csv(files / "all.csv", index=False)
    text = data.astype({"g": "category"})
    for source in (f"{files}/*.parquet", [files / "all.csv"], parts(text, 100), lambda: iter(parts(data, 450))):
        rows = np.concatenate([block.X for block in scanned(source, "y ~ g").blocks()])
        np.testing.assert_allclose(rows, formula_design("y ~ g", data, treat="d").X)


def test_order_of_categories_is_kept_and_that_of_text_is_not(data):
    order = data.assign(g=pd.Categorical(data.g, ["c", "b", "a"]))
    assert scanned(parts(order, 300), "y ~ g").exog_names == ("Intercept", "g[T.b]", "g[T.a]")
    assert scanned(parts(data, 300), "y ~ g").exog_names == ("Intercept", "g[T.b]", "g[T.c]")


def test_ledger_counts_over_blocks(data):
    broken = data.copy()
    broken.loc[310:330, "x1"] = np.nan
    broken.loc[325:340, "g"] = None
    whole = formula_design(F, broken, treat="d")
    design = scanned(parts(broken, 310, 331))  # no row of the second block is left
    pd.testing.assert_frame_equal(design.sample_ledger, whole.sample_ledger)
    assert (design.n_dropped, design.nobs) == (whole.n_dropped, whole.nobs) == (31, N - 31)


def test_rows_of_weight_zero_are_left_out_with_a_note(data):
    with pytest.warns(DesignWarning, match="200 rows of weight 0"):
        design = scanned(parts(data, 100), weights="w", weight_type="frequency")
    assert design.nobs == data.w.sum()


def test_only_the_columns_of_the_model_are_read(data, tmp_path):
    data.assign(odd=[object()] * N).drop(columns="odd").to_parquet(tmp_path / "a.parquet")
    read = [list(block.frame) for block in scan(tmp_path / "a.parquet").blocks(["y", "d"])]
    assert read == [["y", "d"]]


def test_blocks_have_no_more_rows_than_asked_for(files):
    sizes = [len(block.frame) for block in scan(f"{files}/*.parquet", block_rows=150).blocks()]
    assert max(sizes) <= 150
    assert sum(sizes) == N


def test_dependent_columns_are_dropped_with_the_note_of_memory(data):
    double = data.assign(x4=2 * data.x1 + 1)
    with pytest.warns(DesignWarning, match="dropped 'x4'"):
        design = scanned(parts(double, 250), "y ~ x1 + x4")
    assert design.exog_names == ("Intercept", "x1")
    with pytest.warns(DesignWarning, match="no constant among the columns"):
        scanned(parts(data, 250), "y ~ 0 + x1")


# --- what is wrong in one file or block is told with its name ----------------------------------------------------


def refused(message, source, *more, error=DesignError, **options):
    with pytest.raises(error, match=message) as caught:
        scanned(source, *more, **options)
    return str(caught.value)


def test_a_file_without_a_column(data, files):
    data[:200].drop(columns="x1").to_parquet(files / "part-1.parquet")
    refused(r"part-1.parquet has no column 'x1', which the model uses.*\nThe columns are 'y'", f"{files}/*.parquet")


def test_a_file_with_text_for_numbers(data, files):
    data[:200].assign(x1="high").to_parquet(files / "part-2.parquet")
    message = "part-2.parquet, rows 0 to 199: column 'x1' has text or categories, such as 'high', and in .*part-0"
    refused(message, f"{files}/*.parquet")


def test_numbers_as_text_are_refused_as_in_memory(data):
    refused("holds numbers as text", parts(data.assign(x1=data.x1.round(2).astype(str)), 300))


def test_more_levels_than_blocks_can_hold(data):
    many = data.assign(g=[f"code {k}" for k in range(N)])
    with pytest.raises(DesignError, match=r"'g' has 600 levels and more may come.*\n.*smaller block_rows="):
        IPWRA.from_formula(F, scan([many], block_rows=10**9), treat="d")


def test_a_truncated_file(files):
    path = files / "part-1.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    refused("part-1.parquet cannot be read after 0 rows", f"{files}/*.parquet")


def test_a_file_that_vanishes_or_changes_between_passes(data, files):
    model = IPWRA.from_formula(F, scan(f"{files}/*.parquet", keep="nothing"), treat="d")
    kept = IPWRA.from_formula(F, scan(f"{files}/*.parquet"), treat="d")
    content = (files / "part-1.parquet").read_bytes()
    (files / "part-1.parquet").unlink()
    with pytest.raises(DesignError, match=r"the file '.*part-1.parquet' is gone"):
        model.fit()
    (files / "part-1.parquet").write_bytes(content[: len(content) // 2])
    with pytest.raises(DesignError, match=r"part-1.parquet' has changed since the scan was made"):
        model.fit()
    res = kept.fit()  # from the rows as they were
    np.testing.assert_allclose(res.params, IPWRA.from_formula(F, data, treat="d").fit().params, rtol=1e-10)
    with pytest.raises(DesignError, match=r"part-1.parquet' has changed since the scan was made"):
        res.balance()  # reads the variables again


def later(data, change, calls):
    """A pass over the data, changed from a call on."""
    count = itertools.count()
    return lambda: [change(data.copy()) if next(count) >= calls else data]


def test_data_that_change_between_passes(data):
    def level(frame):
        return frame.assign(g=frame.g.where(frame.index != 5, "z"))

    def arm(frame):
        return frame.assign(d=frame.d.where(frame.index != 5, 3))

    # The names and the first pass are read before the pass that codes.
    refused("block 1, rows 0 to 599: the data are not those of the first pass: .*levels 'z'", later(data, level, 2))
    refused("treatment 'd' has the levels 3, which the first pass did not see", later(data, arm, 2))
    refused("first pass read 600 rows and used 600, a later one read 590", later(data, lambda f: f[:-10], 2))


def test_other_rows_in_every_pass(data):
    """As many, drawn anew whenever they are read; in another order they are the same rows."""
    rng = np.random.default_rng(0)
    refused("later pass read other rows than the first ones: the sum of 'y'",
            lambda: [data.sample(500, random_state=rng)])  # fmt: skip
    IPWRA.from_formula(F, scan(lambda: [data.sample(N, random_state=rng)], keep="nothing"), treat="d").fit()


@pytest.mark.parametrize("column", ["g", "d", "w"])
def test_other_values_of_text_treatment_or_weights_in_a_later_pass(data, column):
    def change(frame):
        rng = np.random.default_rng(0)
        return frame.assign(**{column: rng.permutation(frame[column])})  # the same levels, as often

    source = scan(later(data.assign(w=1 + data.w), change, 3), keep="nothing")
    model = IPWRA.from_formula(F, source, treat="d", weights="w", weight_type="frequency")
    with pytest.raises(DesignError, match="later pass read other rows than the first ones"):
        model.fit()


def test_files_without_rows_and_columns_in_another_order(data, files):
    data[:0].to_parquet(files / "part-1a.parquet")
    data[data.columns[::-1]][400:].to_parquet(files / "part-2.parquet")
    for k, rows in enumerate((data[:300], data[:0], data[300:])):
        rows.to_csv(files / f"{k}.csv", index=False)
    for pattern in ("*.parquet", "*.csv"):
        assert scanned(f"{files}/{pattern}").nobs == N
    (files / "3.csv").touch()
    refused("3.csv cannot be read after 0 rows: No columns", f"{files}/*.csv")


@pytest.mark.parametrize("column", ["x1", "g"])
def test_a_column_that_is_missing_throughout_one_file(data, files, column):
    gaps = data.assign(**{column: data[column].where(data.index < 400)})
    data[400:].assign(**{column: None}).to_parquet(files / "part-2.parquet")
    design = scanned(f"{files}/*.parquet")
    pd.testing.assert_frame_equal(design.sample_ledger, formula_design(F, gaps, treat="d").sample_ledger)
    assert design.nobs == 400


def test_blocks_of_other_dtypes_that_mean_the_same(data):
    first, second = parts(data, 300)
    second = second.assign(d=second.d.astype(bool), k=second.k.astype(float), g=second.g.astype("category"))
    design = scanned([first, second], "y ~ k + g")
    whole = formula_design("y ~ k + g", data, treat="d")
    np.testing.assert_array_equal(np.concatenate([block.X for block in design.blocks()]), whole.X)
    assert design.labels == whole.labels


def test_kinds_that_differ_between_blocks(data):
    first, second = parts(data, 300)
    refused(
        "column 'd' has text or categories, such as '0', and in block 1", [first, second.assign(d=second.d.astype(str))]
    )
    clusters = [first, second.assign(k=second.k.astype(str))]
    refused("cluster 'k' has text, and in block 1, rows 0 to 299 numbers", clusters, cluster="k")
    refused("block 2 has 2 columns 'x1'; expected one", [first, pd.concat([second, second[["x1"]]], axis=1)])
    for column in ("x1", "y"):
        odd = second.assign(**{column: second[column].where(second.index != 400, np.inf)})
        refused(f"block 2, rows 0 to 299: column '{column}' has 1 infinite values", [first, odd])
    refused("block 2, rows 0 to 299: weights 'x2' have", [first.assign(x2=1.0), second], weights="x2",
            weight_type="probability")  # fmt: skip


def test_a_file_is_named_once(files):
    with pytest.raises(DesignError, match=r"part-1\.parquet' is named twice"):
        scan([f"{files}/*.parquet", files / "part-1.parquet"])


def test_an_iterator_is_used_up_after_one_pass(data):
    frames = iter([data])
    refused("gave rows when it was called first, and none the second time", lambda: frames)
    with pytest.raises(TypeError, match="a generator, which can be gone through once only"):
        scan(frame for frame in [data])


def test_what_is_no_frame_and_what_has_no_rows(data):
    refused("block 1 of the scan is a int", lambda: [1])
    refused("no observations left: all 600 rows", [data.assign(x1=np.nan)])
    with pytest.raises(DesignError, match="no file matches 'nothing"):
        scan("nothing*.parquet")


def test_a_column_that_the_first_file_misses(data, files):
    data[:200].drop(columns="x1").to_parquet(files / "part-0.parquet")
    refused(r"part-0.parquet has no column 'x1', which the model uses and other blocks have", f"{files}/*.parquet")


def test_a_function_that_yields_from_what_was_closed(data, tmp_path):
    data.to_csv(tmp_path / "rows.csv", index=False)
    reader = pd.read_csv(tmp_path / "rows.csv", chunksize=200, engine="python")  # pandas 2's in C crashes
    refused("the function given to scan cannot be read .*\nLet it begin anew", lambda: reader)


def test_a_file_in_another_encoding(data, tmp_path):
    data.assign(g="süd").to_csv(tmp_path / "rows.csv", index=False, encoding="latin-1")
    refused('scan.lambda: pandas.read_csv\\(".*rows.csv", encoding="latin-1"', tmp_path / "rows.csv", "y ~ g")


def test_clusters_that_are_no_exact_numbers(data, tmp_path):
    """With a blank pandas reads whole numbers of a CSV file as floats, and two of them as one."""
    ids = data.assign(firm=pd.array(2**53 + data.index // 2, dtype="Int64"))
    assert scanned([ids], cluster="firm").n_clusters == IPWRA.from_formula(
        "y ~ x1", ids, treat="d", cluster="firm"
    ).design.n_clusters == 300  # fmt: skip
    ids.loc[400, "firm"] = pd.NA
    ids.to_csv(tmp_path / "rows.csv", index=False)
    refused("cluster 'firm' has numbers such as 9007199254740992 as floats", tmp_path / "rows.csv", cluster="firm")
    with pytest.raises(DesignError, match=r"Read them as text:  pandas\.read_csv\(..., dtype="):
        IPWRA.from_formula("y ~ x1", pd.read_csv(tmp_path / "rows.csv"), treat="d", cluster="firm")


def test_frames_without_rows(data):
    refused("the data have 0 rows", [data[:0]])
    refused("the data have 0 rows", [data[:0], data[:0]])


def test_folders_in_place_of_files(files):
    (files / "year=2020").mkdir()
    with pytest.raises(DesignError, match=r'pyarrow.dataset.dataset.*partitioning="hive"'):
        scan(files)
    with pytest.raises(DesignError, match=r"scan\(.*/year=2020/\*\.parquet"):
        scan(files / "year=2020")


def test_missing_values_refused_name_the_block(data):
    refused("block 2, rows 0 to 299: missing values in 1 of 300 rows", parts(data.assign(
        x1=data.x1.where(data.index != 400)), 300), missing="raise")  # fmt: skip


@pytest.mark.filterwarnings("ignore::causalrisk.DesignWarning")  # columns of cr and cc add up to one
@pytest.mark.parametrize("spline", ["bs", "cr", "cc"])
def test_splines_that_are_told_knots_and_bounds_are_coded_as_in_memory(data, spline):
    inner = (-0.5, 0.5)  # a name of the calling scope
    formula = f"y ~ {spline}(x1, knots=inner, lower_bound=-1 + np.min([-3]), upper_bound=4) + x2"
    in_memory = IPWRA.from_formula(formula, data, treat="d").fit()
    by_blocks = IPWRA.from_formula(formula, scan(parts(data, 300)), treat="d").fit()
    assert by_blocks.outcome_params.index.equals(in_memory.outcome_params.index)
    np.testing.assert_allclose(by_blocks.params, in_memory.params, rtol=1e-10)
    np.testing.assert_allclose(by_blocks.bse, in_memory.bse, rtol=1e-9)
    assert len(inner) == 2


def test_rows_beyond_the_bounds_of_a_spline_are_refused(data):
    refused("block 2, rows 0 to 299", parts(data.assign(x1=data.x1.where(data.index != 400, 99.0)), 300),
            "y ~ bs(x1, knots=(0,), lower_bound=-9, upper_bound=9)")  # fmt: skip


@pytest.mark.parametrize("formula", ["y ~ I(x1 - x1.mean())", "y ~ I(x1 / np.max(x1))", "I(y - np.mean(y)) ~ x1"])
def test_terms_that_depend_on_other_rows_are_refused(data, formula):
    refused("codes a row differently beside other rows", parts(data, 300), formula)


def test_categories_that_are_computed_are_refused_but_not_flags(data):
    refused("computes categories", parts(data, 300), "y ~ np.where(x1 > 0, 'a', 'b')")
    assert scanned(parts(data, 300), "y ~ I(x1 > 0)").exog_names == ("Intercept", "I(x1 > 0)[T.True]")


def test_arrays_of_the_calling_scope_are_refused(data):
    refused("'ARRAY', which is no column of the scan but a ndarray", parts(data, 300), "y ~ I(x1 + ARRAY)")
    refused("treat= is a Series; expected the name of a column", parts(data, 300), treat=data.d)


def test_an_arm_that_cannot_support_its_model(data):
    frame = data.assign(q=data.d * (data.x1 > 0))
    refused("q is 0 in all .* of arm '0', and is not in arm '1'", parts(frame, 300), "y ~ x1 + q", collinear="raise")
    refused("arm '1' has 1 rows for 2 outcome coefficients", [data.assign(d=(data.index == 3) * 1)], "y ~ x1")
    refused("outcome 'y' is constant: 2 in all rows", [data.assign(y=2.0)])


def test_what_goes_by_rows_is_not_there(data):
    design = scanned(parts(data, 300))
    for name in ("y", "X", "index", "in_sample", "members"):
        with pytest.raises(UnavailableError, match=r"goes by rows.*\n.*data=data.collect\(\)"):
            getattr(design, name)
    again = pickle.loads(pickle.dumps(design))
    assert again.exog_names == design.exog_names
    with pytest.raises(UnavailableError, match="does not know its scan any more"):
        next(again.blocks())


@pytest.mark.parametrize(("code", "answer"), [
    ("x", False), ('Q("mother\'s age")', False), ("C(g)", False), ('C(Q("g g"), Treatment("a"))', False),
    ("np.log(x)", True), ("I(x - x.mean())", True), ("x.rank()", True), ("C(x.rank())", True), ("bs(x, df=3)", True),
])  # fmt: skip
def test_terms_that_are_more_than_columns_are_known(code, answer):
    assert computes(code) is answer


def test_rows_are_coded_alone_only_where_a_term_computes(data, monkeypatch):
    coded, once = [], BlockCoder.coded
    monkeypatch.setattr(BlockCoder, "coded", lambda coder, rows, k: coded.append(rows.n) or once(coder, rows, k))
    for formula, alone in (("y ~ x1 + C(g)", 0), ("y ~ x1 + I(x2**2)", 9), ("np.exp(y) ~ x1", 9)):
        coded.clear()
        scanned([data], formula, propensity="d ~ x1")
        assert coded.count(1) == alone

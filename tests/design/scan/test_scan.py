"""Scans: what is read, what is learnt in the first passes, and what is refused with the name of the block."""

from __future__ import annotations

import itertools
import pickle
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from causalrisk import IPWRA, DesignError, DesignWarning, UnavailableError, scan
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
    for source in (f"{files}/*.parquet", [files / "all.csv"], parts(text, 100)):
        rows = np.concatenate([block.X for block in scanned(source, "y ~ g").blocks()])
        np.testing.assert_allclose(rows, formula_design("y ~ g", data, treat="d").X)


def test_order_of_categories_is_kept_and_that_of_text_is_not(data):
    order = data.assign(g=pd.Categorical(data.g, ["c", "b", "a"]))
    assert scanned(parts(order, 300), "y ~ g").exog_names == ("Intercept", "g[T.b]", "g[T.a]")
    assert scanned(parts(data, 300), "y ~ g").exog_names == ("Intercept", "g[T.b]", "g[T.c]")


def test_rows_are_cut_and_joined_to_blocks(data, files):
    """Large files are cut as they are read; coded rows of small ones are joined. The rest is read from the files."""
    source = scan(f"{files}/*.parquet", block_rows=150)
    assert [len(block.frame) for block in source.blocks(["y"])] == [150, 50] * 3
    assert list(next(source.blocks(["y", "d"])).frame) == ["y", "d"]
    pd.testing.assert_frame_equal(source.collect(), data)
    for rows, sizes in ((150, [150, 50] * 3), (400, [400, 200]), (250_000, [N])):
        design = IPWRA.from_formula(F, scan(f"{files}/*.parquet", block_rows=rows), treat="d").design
        blocks = list(design.blocks())
        assert [len(block.y) for block in blocks] == sizes
        np.testing.assert_array_equal(np.concatenate([block.position for block in blocks]), np.arange(N))
        np.testing.assert_array_equal(np.concatenate([block.y for block in blocks]), data.y)


@pytest.mark.parametrize("options", [{}, {"trim": (0.3, 0.7), "propensity": "x1 + x2"}, {"cluster": "k"}], ids=str)
def test_rows_in_a_temporary_file_are_those_of_memory(data, monkeypatch, options):
    def fitted():
        return IPWRA.from_formula(F, scan(parts(data, 100), block_rows=200), treat="d", **options).fit(n_boot=20)

    memory = fitted()
    monkeypatch.setattr("causalrisk.design.scan.encode.free_memory", lambda: 1000.0)
    disk = fitted()
    pd.testing.assert_frame_equal(disk.boot_params, memory.boot_params, check_exact=True)
    assert disk.params.equals(memory.params) and disk.bse.equals(memory.bse)
    pd.testing.assert_frame_equal(disk.balance(), memory.balance())
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=1000))
    with pytest.raises(DesignError, match="TMPDIR"):
        fitted()


def test_ledger_counts_over_blocks(data):
    broken = data.copy()
    broken.loc[310:330, "x1"] = np.nan
    broken.loc[325:340, "g"] = None
    whole = formula_design(F, broken, treat="d")
    design = scanned(parts(broken, 310, 331))  # no row of the second block is left
    pd.testing.assert_frame_equal(design.sample_ledger, whole.sample_ledger)
    assert (design.n_dropped, design.nobs) == (whole.n_dropped, whole.nobs) == (31, N - 31)


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
    refused(r"part-1.parquet has no column 'x1', which the model uses", f"{files}/*.parquet")


def test_a_file_with_text_for_numbers(data, files):
    data[:200].assign(x1="high").to_parquet(files / "part-2.parquet")
    message = "part-2.parquet, rows 0 to 199: column 'x1' has text such as 'high' and in .*part-0"
    refused(message, f"{files}/*.parquet")


def test_more_levels_than_blocks_can_hold(data):
    many = data.assign(g=[f"code {k}" for k in range(N)])
    with pytest.raises(DesignError, match=r"'g' has 600 levels or more.*\n.*`block_rows=`"):
        IPWRA.from_formula(F, scan([many], block_rows=10**9), treat="d")


def test_a_truncated_file(files):
    path = files / "part-1.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    refused("part-1.parquet cannot be read", f"{files}/*.parquet")


def test_a_file_that_changes(data, files):
    model = IPWRA.from_formula(F, scan(f"{files}/*.parquet"), treat="d")
    source = scan(f"{files}/*.parquet")
    data[:100].to_parquet(files / "part-1.parquet")
    res = model.fit()  # from the rows as they were
    np.testing.assert_allclose(res.params, IPWRA.from_formula(F, data, treat="d").fit().params, rtol=1e-10)
    for read in (res.balance, lambda: IPWRA.from_formula(F, source, treat="d")):
        with pytest.raises(DesignError, match=r"part-1.parquet' has changed since the scan was made"):
            read()


def test_sources_that_are_none(data, files):
    for odd in (3, [], lambda: [data], (frame for frame in [data]), [data, 1]):
        with pytest.raises(TypeError, match=r"scan\("):
            scan(odd)
    for odd in ("nothing*.parquet", files, __file__):
        with pytest.raises(DesignError):
            scan(odd)
    refused("no observations left: all 600 rows", [data.assign(x1=np.nan)])
    refused("the data have 0 rows", [data[:0]])


def test_files_without_rows_and_columns_in_another_order(data, files):
    data[:0].to_parquet(files / "part-1a.parquet")
    data[data.columns[::-1]][400:].to_parquet(files / "part-2.parquet")
    for k, rows in enumerate((data[:300], data[:0], data[300:])):
        rows.to_csv(files / f"{k}.csv", index=False)
    for pattern in ("*.parquet", "*.csv"):
        assert scanned(f"{files}/{pattern}").nobs == N
    (files / "3.csv").touch()
    refused("3.csv cannot be read: No columns", f"{files}/*.csv")


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
    refused("column 'd' has text such as '0' and in block 1", [first, second.assign(d=second.d.astype(str))])
    clusters = [first, second.assign(k=second.k.astype(str))]
    refused("cluster 'k' has text in one block and numbers in another", clusters, cluster="k")
    refused("block 2 has 2 columns 'x1'; expected one", [first, pd.concat([second, second[["x1"]]], axis=1)])
    for column in ("x1", "y"):
        odd = second.assign(**{column: second[column].where(second.index != 400, np.inf)})
        refused(f"block 2, rows 0 to 299: column '{column}' has 1 infinite values", [first, odd])
    refused("block 2, rows 0 to 299: weights 'x2' have", [first.assign(x2=1.0), second], weights="x2",
            weight_type="probability")  # fmt: skip


def test_a_file_is_named_once(files):
    with pytest.raises(DesignError, match=r"part-1\.parquet' is named twice"):
        scan([f"{files}/*.parquet", files / "part-1.parquet"])


def test_missing_values_refused_name_the_block(data):
    refused("block 2, rows 0 to 299: missing values in 1 of 300 rows", parts(data.assign(
        x1=data.x1.where(data.index != 400)), 300), missing="raise")  # fmt: skip


@pytest.mark.parametrize("formula", ["y ~ I(x1 - x1.mean())", "y ~ I(x1 / np.max(x1))", "I(y - np.mean(y)) ~ x1"])
def test_terms_that_depend_on_other_rows_are_refused(data, formula):
    refused("codes a row differently beside other rows", parts(data, 300), formula)


def test_categories_that_are_computed_are_refused_but_not_flags(data):
    refused("computes categories", parts(data, 300), "y ~ np.where(x1 > 0, 'a', 'b')")
    assert scanned(parts(data, 300), "y ~ I(x1 > 0)").exog_names == ("Intercept", "I(x1 > 0)[T.True]")


def test_arrays_of_the_calling_scope_are_refused(data):
    refused("'ARRAY', a ndarray that is no column of the scan", parts(data, 300), "y ~ I(x1 + ARRAY)")
    refused("treat= is a Series; with a scan, expected the name of a column", parts(data, 300), treat=data.d)


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
    with pytest.raises(UnavailableError, match="has no rows of a scan"):
        next(again.blocks())

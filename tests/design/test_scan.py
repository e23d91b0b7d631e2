"""Scans: what is read, what is learnt in the first passes, and what is refused with the name of the block."""

from __future__ import annotations

import ast
import gc
import itertools
import os
import pickle
import subprocess
import sys
import threading
import warnings

import numpy as np
import pandas as pd
import pytest

from causalrisk import IPWRA, DesignError, DesignWarning, Survey, UnavailableError, scan
from causalrisk.design.formulas import PARSER
from tests.conftest import formula_design, in_parts, simulate, stored

N = 600
F = "y ~ x1 + g"
ARRAY = np.arange(N)


def itself(block):
    return block


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


def test_the_filters_of_warnings_are_as_they_were(data):
    def spoiled(x):  # as pandas leaves them if two threads change them at once
        if threading.current_thread() is not threading.main_thread():
            warnings.simplefilter("ignore")
        return x

    before = list(warnings.filters)
    IPWRA.from_formula("y ~ spoiled(x1)", scan(parts(data, 300)), treat="d")
    assert warnings.filters == before


FORMULAS = ["y ~ 1", "y ~ x1 + g", "np.log1p(y**2) ~ C(k) + flag", "y ~ I(x1**2):g + C(g, Treatment('c'))", "y ~ 0 + g"]


@pytest.mark.filterwarnings("ignore::causalrisk.DesignWarning")
@pytest.mark.parametrize("formula", FORMULAS)
def test_blocks_are_coded_as_the_rows_in_memory(data, formula):
    whole = formula_design(formula, data, treat="d", propensity="x2 + g")
    design = scanned(parts(data, 7, 7, 300), formula, propensity="x2 + g")
    assert (design.exog_names, design.propensity_names) == (whole.exog_names, whole.propensity_names)
    assert (design.labels, design.levels, design.nobs) == (whole.labels, whole.levels, whole.nobs)
    for name in ("X", "Z", "y", "arm", "weights"):
        np.testing.assert_array_equal(stored(design, name), getattr(whole, name))


def test_parquet_csv_and_frames_give_the_same_columns(data, files):
    data.to_csv(files / "all.csv", index=False)
    text = data.astype({"g": "category"})
    for source in (f"{files}/*.parquet", [files / "all.csv"], parts(text, 100)):
        np.testing.assert_allclose(stored(scanned(source, "y ~ g"), "X"), formula_design("y ~ g", data, treat="d").X)


def test_large_files_are_cut_as_they_are_read(data, files):
    """Parts are sorted by arm."""
    pd.testing.assert_frame_equal(scan(f"{files}/*.parquet").collect(), data)
    for rows, sizes in ((150, [150, 50] * 3), (250_000, [200] * 3)):
        design = IPWRA.from_formula(F, in_parts(f"{files}/*.parquet", rows), treat="d").design
        blocks = list(design.over(itself))
        assert [len(block.y) for block in blocks] == sizes
        assert design.dask("X").chunks == (tuple(sizes), (4,))
        for block, first in zip(blocks, np.cumsum([0, *sizes]), strict=False):
            np.testing.assert_array_equal(np.sort(block.position), first + np.arange(len(block.y)))
            assert (np.diff(block.arm) >= 0).all()
        np.testing.assert_array_equal(stored(design, "y"), data.y)
        np.testing.assert_array_equal(stored(design, "row"), np.arange(N))


def test_headers_of_arrays_are_parsed_by_one_thread_at_a_time(data, monkeypatch):
    """Python 3.11 at times raises a SystemError where several threads parse."""
    design, parse = scanned(parts(data, 100), F), ast.literal_eval

    def checked(*args):
        assert PARSER._is_owned()
        return parse(*args)

    monkeypatch.setattr("ast.literal_eval", checked)
    assert design.dask("X").compute().shape == (N, 4)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder of temporary files, which is empty."""
    made = tmp_path / "temporary"
    made.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(made))
    return made


def test_the_folder_goes_with_the_design_and_when_python_ends(data, folder):
    model = IPWRA.from_formula(F, scan(parts(data, 100)), treat="d", trim=(0.3, 0.7), propensity="x1 + x2")
    res, y = model.fit(), model.design.dask("y")
    assert len(list(folder.iterdir())) == 2  # the other has the rows that trimming leaves
    del model, res
    gc.collect()
    assert y.sum().compute() == pytest.approx(data.y.sum())  # an array keeps its own
    del y
    gc.collect()
    assert not list(folder.iterdir())
    code = "import causalrisk as cr; b = cr.datasets.load_cattaneo2(); " \
        "m = cr.IPWRA.from_formula('bweight ~ mage', cr.scan([b]), treat='mbsmoke')"  # fmt: skip
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"TMPDIR": str(folder)})
    assert not list(folder.iterdir())


def test_without_dask_a_scan_says_what_to_install(data, monkeypatch):
    monkeypatch.setitem(sys.modules, "dask.delayed", None)
    monkeypatch.delitem(sys.modules, "dask", raising=False)
    monkeypatch.setitem(sys.modules, "dask", None)
    with pytest.raises(UnavailableError, match=r"causalrisk\[scale\]"):
        scan([data])


def test_ledger_counts_over_blocks(data):
    broken = data.copy()
    broken.loc[310:330, "x1"] = np.nan
    broken.loc[325:340, "g"] = None
    whole = formula_design(F, broken, treat="d")
    design = scanned(parts(broken, 310, 331))  # no row of the second block is left
    pd.testing.assert_frame_equal(design.sample_ledger, whole.sample_ledger)
    assert (design.n_dropped, design.nobs) == (whole.n_dropped, whole.nobs) == (31, N - 31)


# --- what is wrong in one file or block is told with its name ----------------------------------------------------


def refused(message, source, *more, error=DesignError, **options):
    with pytest.raises(error, match=message) as caught:
        scanned(source, *more, **options)
    return str(caught.value)


def test_a_file_without_a_column(data, files):
    data[:200].drop(columns="x1").to_parquet(files / "part-1.parquet")
    refused(r"part-1.parquet has no column 'x1', which is needed", f"{files}/*.parquet")


def test_a_file_with_text_for_numbers(data, files):
    data[:200].assign(x1="high").to_parquet(files / "part-2.parquet")
    message = "'x1' has numbers in .*part-[01].parquet, rows 0 to 199, and text such as 'high' in .*part-2"
    refused(message, f"{files}/*.parquet")


def test_many_levels_are_welcome_where_the_blocks_fit_into_memory(data, monkeypatch):
    monkeypatch.setattr("causalrisk.design.support.memory", lambda: 1e9)
    many = data.assign(g=(data.index // 2 % 80).map("code {}".format), d=data.index % 2)
    assert len(scanned([many], "y ~ g").exog_names) == 80


def test_more_levels_than_blocks_can_hold(data):
    many = data.assign(g=[f"code {k}" for k in range(N)])
    with pytest.raises(DesignError, match=r"with 600 columns .*\nUse fewer levels of 'g'"):
        IPWRA.from_formula(F, in_parts([many], 10**9), treat="d")


def test_a_truncated_file(files):
    path = files / "part-1.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    refused("part-1.parquet cannot be read", f"{files}/*.parquet")


def test_a_file_that_changes(data, files):
    """A model keeps the rows as it read them; files are read once for each model."""
    source = scan(f"{files}/*.parquet")
    model = IPWRA.from_formula(F, source, treat="d")
    whole = IPWRA.from_formula(F, data, treat="d").fit()
    for path in files.iterdir():
        path.unlink()
    res = model.fit()
    np.testing.assert_allclose(res.params, whole.params, rtol=1e-10)
    np.testing.assert_allclose(res.balance()["diff after"], whole.balance()["diff after"], atol=1e-12)
    with pytest.raises(DesignError, match=r"part-\d\.parquet cannot be read"):
        IPWRA.from_formula("y ~ x1", source, treat="d")


def test_sources_that_are_none(data, files):
    for odd in (3, [], lambda: [data], (frame for frame in [data]), [data, 1]):
        with pytest.raises(TypeError, match=r"scan\("):
            scan(odd)
    for odd in ("nothing*.parquet", files, __file__):
        with pytest.raises(DesignError):
            scan(odd)
    refused("no observations left: all 600 rows", [data.assign(x1=np.nan)])
    refused("the data have no rows", [data[:0]])


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
    np.testing.assert_array_equal(stored(design, "X"), whole.X)
    assert design.labels == whole.labels


def test_kinds_that_differ_between_blocks(data):
    first, second = parts(data, 300)
    alike = "has numbers in block 1, rows 0 to 299, and text such as '.' in block 2, rows 0 to 299"
    refused(f"treatment 'd' {alike}", [first, second.assign(d=second.d.astype(str))])
    clusters = [first, second.assign(k=second.k.astype(str))]
    refused(f"cluster 'k' {alike}", clusters, cluster="k")
    refused(f"column 'k' {alike}", clusters, "y ~ C(k)")
    refused(
        "block 2, rows 0 to 299: the data have 2 columns named 'x1'",
        [first, pd.concat([second, second[["x1"]]], axis=1)],
    )
    for column in ("x1", "y"):
        odd = second.assign(**{column: second[column].where(second.index != 400, np.inf)})
        refused(f"block 2, rows 0 to 299: column '{column}' has infinite values in 1 of 300 rows", [first, odd])
    refused("block 2, rows 0 to 299: weights 'x2' have", [first.assign(x2=1.0), second], weights="x2",
            weight_type="probability")  # fmt: skip


def test_a_file_that_is_named_twice_is_read_once(files):
    assert scanned([f"{files}/*.parquet", files / "part-1.parquet"]).nobs == N


@pytest.mark.parametrize("formula", ["y ~ I(x1 - x1.mean())", "y ~ I(x1 / np.max(x1))", "I(y - np.mean(y)) ~ x1"])
def test_terms_that_depend_on_other_rows_are_refused(data, formula):
    refused("computes a row from other rows", parts(data, 300), formula)


@pytest.mark.parametrize("formula", ["y ~ I(x1 - x1.mean())", "y ~ I(x1 > x1.mean())", "y ~ I(x1 - x1.max())"])
@pytest.mark.parametrize("values", [np.arange(N) % 2, np.arange(N) // 300, (np.arange(N) >= 300) * np.arange(N)])
def test_terms_that_depend_on_other_rows_but_not_in_each_half_of_a_frame(data, formula, values):
    refused("computes a row from other rows", parts(data.assign(x1=values), 300), formula)


def test_a_first_block_of_one_row(data):
    first, second = data[:1], data[1:]
    found = scanned([first, second], "y ~ I(x1**2) + C(k)")
    np.testing.assert_allclose(
        np.sort(stored(found, "X")), np.sort(stored(scanned([data], "y ~ I(x1**2) + C(k)"), "X"))
    )


def test_categories_that_are_computed_are_refused_but_not_flags(data):
    refused("computes categories", parts(data, 300), "y ~ np.where(x1 > 0, 'a', 'b')")
    assert scanned(parts(data, 300), "y ~ I(x1 > 0)").exog_names == ("Intercept", "I(x1 > 0)[T.True]")


def test_arrays_of_the_calling_scope_are_refused(data):
    blocks = parts(data, 300)
    half = np.zeros(300)  # as long as a block
    assert len(half) == len(blocks[0])
    for formula in ("y ~ I(x1 + {})", "I(y + {}) ~ x1", "y ~ {}"):
        for name in ("ARRAY", "half"):
            with pytest.raises(
                DesignError, match=f"the formulas use '{name}', a ndarray that is not a column of the files"
            ):
                IPWRA.from_formula(formula.format(name), scan(blocks), treat="d")
    refused("treat= is a Series; expected the name of a column", parts(data, 300), treat=data.d)


def test_survey_designs_and_missing_outcomes_are_refused(data):
    refused("observed= is not available", parts(data, 300), error=UnavailableError, observed="x1")
    for survey in (Survey(weights="w", strata="k"), Survey(weights="w", replicate_weights="x*", replicate_type="BRR")):
        text = refused("design= is not available", parts(data, 300), error=UnavailableError, design=survey)
        assert text.endswith("Use `data=causalrisk.scan(data).collect()`.")


def test_an_arm_that_cannot_support_its_model(data):
    frame = data.assign(q=data.d * (data.x1 > 0))
    with pytest.warns(DesignWarning, match="q is 0 in all rows of group '0'"):
        scanned(parts(frame, 300), "y ~ x1 + q")
    refused("group '1' has 1 row for 2 outcome coefficients", [data.assign(d=(data.index == 3) * 1)], "y ~ x1")


def test_a_pattern_without_files_names_its_folder(tmp_path):
    with pytest.raises(DesignError, match="no file matches") as told:
        scan(f"{tmp_path}/none/*.parquet")
    assert f"Check the folder {str(tmp_path / 'none')!r}" in str(told.value)


def test_what_goes_by_rows_is_not_there(data):
    design = scanned(parts(data, 300))
    for name in ("y", "X", "index", "in_sample", "members"):
        with pytest.raises(UnavailableError, match=r"not available for data on disk.*\n.*scan\(data\).collect\(\)"):
            getattr(design, name)
    again = pickle.loads(pickle.dumps(design))
    assert again.exog_names == design.exog_names
    with pytest.raises(UnavailableError, match="does not contain the rows"):
        again.over(len)


def test_terms_of_two_variables_that_hold_in_each_row_are_coded(data):
    """x1 - x2 is positive in each row, and not for x1 and x2 of different rows."""
    rows = data.assign(x2=5.0 * (np.arange(N) < 300)).assign(x1=lambda own: own.x2 + 1 + np.arange(N) / N)
    found = scanned(parts(rows, 300), "y ~ np.log(x1 - x2)")
    np.testing.assert_allclose(np.sort(stored(found, "X")[:, 1]), np.sort(np.log(rows.x1 - rows.x2)))

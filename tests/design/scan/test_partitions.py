"""Dask data frames and Arrow datasets as data."""

import numpy as np
import pandas as pd
import pytest

from causalrisk import IPWRA, DesignError, scan
from causalrisk.runtime.workers import flat_map
from tests.conftest import simulate

FORMULA = "y ~ x1 + bs(x2, df=4) + C(g)"


@pytest.fixture(scope="module")
def data():
    frame = simulate(n=900, seed=4).assign(g=lambda d: np.where(d.x3 > 0.4, "up", "down"))
    frame.loc[::50, "x1"] = np.nan
    return frame


@pytest.fixture(scope="module")
def whole(data):
    return IPWRA.from_formula(FORMULA, data, treat="d").fit()


def same(source, whole):
    res = IPWRA.from_formula(FORMULA, source, treat="d").fit()
    np.testing.assert_allclose(res.params, whole.params, rtol=1e-9)
    np.testing.assert_allclose(res.bse, whole.bse, rtol=1e-9)
    assert res.nobs == whole.nobs == 882
    return res


@pytest.fixture(scope="module")
def partitions(data):
    dataframe = pytest.importorskip("dask.dataframe")
    return dataframe.from_pandas(data, npartitions=4)


def test_a_dask_data_frame_is_read_by_its_partitions(partitions, whole):
    same(partitions, whole)  # is no frame in memory, so that it is not made one
    source = scan(partitions, block_rows=100)
    same(source, whole)
    assert repr(source) == "Scan: a Dask data frame of 4 partitions, in blocks of 100 rows"
    assert [piece.where for piece in source.pieces()][1] == "partition 2 of the Dask data frame"
    assert max(len(block.frame) for block in source.blocks()) == 100


def test_only_the_columns_of_the_model_are_worked_out(data, whole):
    dataframe = pytest.importorskip("dask.dataframe")
    frame = dataframe.from_pandas(data.assign(odd="text"), npartitions=2)
    frame["odd"] = frame.odd.map_partitions(_never, meta=("odd", "f8"))
    same(frame, whole)


def _never(values):
    if len(values):
        raise AssertionError("this column is of no model")
    return values.astype(float)


def test_partitions_that_threads_hold_and_workers_work_on(partitions, whole):
    same(partitions.persist(scheduler="synchronous"), whole)
    model = IPWRA.from_formula(FORMULA, scan(partitions), treat="d")
    one, two = model.fit(), model.fit(n_jobs=2)
    assert one.params.equals(two.params) and one.bse.equals(two.bse)


def test_partitions_that_a_cluster_holds(partitions, whole):
    distributed = pytest.importorskip("distributed")
    with distributed.Client(processes=False, n_workers=1, threads_per_worker=1, dashboard_address=None):
        same(partitions.assign(x2=2 * partitions.x2 / 2).persist(), whole)
        same(partitions, whole)


def test_a_column_of_a_dask_data_frame_that_is_not_there(partitions):
    with pytest.raises(DesignError, match="'nothing'"):
        IPWRA.from_formula("y ~ nothing", partitions, treat="d")


@pytest.fixture(scope="module")
def dataset(data, tmp_path_factory):
    pytest.importorskip("pyarrow")
    import pyarrow.dataset

    folder = tmp_path_factory.mktemp("parts")
    data.to_parquet(folder, partition_cols=["g"])
    return pyarrow.dataset.dataset(folder, format="parquet", partitioning="hive")


def test_an_arrow_dataset_is_read_by_its_files(dataset, whole):
    """Its column `g` is in the names of the folders and not in the files."""
    same(dataset, whole)
    source = scan(dataset, block_rows=200)
    pieces = list(source.pieces())
    assert len(pieces) == 2 and all(piece.where.endswith(".parquet") for piece in pieces)
    assert list(flat_map(_rows, pieces, 2)) == [len(block.frame) for block in source.blocks()]
    assert [len(block.frame) for block in scan(dataset).blocks()] == [900]  # both files make one block


def _rows(piece):
    return (len(block.frame) for block in piece.blocks(None, 0))


def test_a_filtered_arrow_dataset_has_the_rows_that_the_filter_leaves(dataset, data):
    import pyarrow.dataset

    found = IPWRA.from_formula("y ~ x2", dataset.filter(pyarrow.dataset.field("x2") > 0), treat="d").fit()
    whole = IPWRA.from_formula("y ~ x2", data[data.x2 > 0], treat="d").fit()
    np.testing.assert_allclose(found.params, whole.params, rtol=1e-9)
    assert found.nobs == whole.nobs


def test_columns_that_a_scan_has(data, tmp_path):
    data.to_csv(tmp_path / "rows.csv", index=False)
    source = scan(tmp_path / "rows.csv", columns=["y", "d", "x2"])
    assert source.column_names() == ["y", "d", "x2"]
    pd.testing.assert_frame_equal(source.collect(), data[["y", "d", "x2"]])
    with pytest.raises(DesignError, match=r"no variable 'x1'|'x1'"):
        IPWRA.from_formula("y ~ x1", source, treat="d")
    with pytest.raises(DesignError, match="columns= names 'x9'"):
        scan(tmp_path / "rows.csv", columns=["x9"])
    for odd in ("x1", 3, []):
        with pytest.raises(TypeError, match="expected a list of names"):
            scan(tmp_path / "rows.csv", columns=odd)


def test_files_of_a_dataset_without_a_column_or_of_another_type(data, tmp_path):
    """Arrow would make missing values of a column that a file does not have, whose rows would be dropped."""
    pytest.importorskip("pyarrow")
    import pyarrow.dataset

    def refused(second, *words):
        data[:400].to_parquet(tmp_path / "1.parquet")
        second.to_parquet(tmp_path / "2.parquet")
        found = pyarrow.dataset.dataset(tmp_path, format="parquet")
        for source in (found, found.filter(pyarrow.dataset.field("x1") > -9)):
            with pytest.raises(DesignError) as caught:
                IPWRA.from_formula("y ~ x1 + x2", source, treat="d")
            assert all(word in str(caught.value) for word in words), str(caught.value)

    refused(data[400:].drop(columns="x2"), "2.parquet has no column 'x2'")
    refused(data[400:].assign(x2="text"), "cannot be read after ", "schema=")


def test_a_filter_that_names_what_is_not_there(dataset):
    import pyarrow.dataset

    with pytest.raises(DesignError, match="a filter name what is not there"):
        IPWRA.from_formula("y ~ x2", dataset.filter(pyarrow.dataset.field("x22") > 0), treat="d")


def test_parts_without_rows(dataset, partitions):
    import pyarrow.dataset

    for source in (dataset.filter(pyarrow.dataset.field("x2") > 1e9), partitions[partitions.x2 > 1e9]):
        with pytest.raises(DesignError, match="the data have 0 rows"):
            IPWRA.from_formula("y ~ x2", source, treat="d")


def test_a_partition_without_a_column(data):
    dataframe = pytest.importorskip("dask.dataframe")
    import dask

    frames = [dask.delayed(frame) for frame in (data[:400], data[400:].drop(columns="x2"))]
    source = dataframe.from_delayed(frames, meta=data[:0], verify_meta=False)
    with pytest.raises(DesignError, match="partition 2 of the Dask data frame cannot be read"):
        IPWRA.from_formula("y ~ x2", source, treat="d")


def test_a_dask_data_frame_where_rows_have_to_be_in_memory(partitions, whole):
    with pytest.raises(DesignError, match=r"is not in memory.*\nType  data\.compute\(\)"):
        whole.predict(partitions)

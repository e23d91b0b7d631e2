"""Dask data frames and Arrow datasets as data."""

import numpy as np
import pytest

from causalrisk import IPWRA, DesignError, scan
from tests.conftest import in_parts, simulate

FORMULA = "y ~ x1 + I(x2**2) + C(g)"


def itself(block):
    return block


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
    source = in_parts(partitions, 100)
    design = same(source, whole).model.design
    assert max(len(block.y) for block in design.over(itself)) <= 100


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
    assert max(len(block.y) for block in same(in_parts(dataset, 400), whole).model.design.over(itself)) <= 400


def test_a_filtered_arrow_dataset_has_the_rows_that_the_filter_leaves(dataset, data):
    import pyarrow.dataset

    found = IPWRA.from_formula("y ~ x2", dataset.filter(pyarrow.dataset.field("x2") > 0), treat="d").fit()
    whole = IPWRA.from_formula("y ~ x2", data[data.x2 > 0], treat="d").fit()
    np.testing.assert_allclose(found.params, whole.params, rtol=1e-9)
    assert found.nobs == whole.nobs


def test_a_dataset_without_files(data, tmp_path):
    dataset, pyarrow = pytest.importorskip("pyarrow.dataset"), pytest.importorskip("pyarrow")
    empty = dataset.dataset(tmp_path, format="parquet", schema=pyarrow.Table.from_pandas(data).schema)
    with pytest.raises(DesignError, match="the Arrow dataset has no files"):
        scan(empty)


def test_files_of_a_dataset_without_a_column_or_of_another_type(data, tmp_path):
    """Arrow would make missing values of a column that a file does not have, whose rows would be dropped."""
    pytest.importorskip("pyarrow")
    import pyarrow.dataset

    def refused(second, *words):
        data[:400].to_parquet(tmp_path / "1.parquet")
        second.to_parquet(tmp_path / "2.parquet")
        found = pyarrow.dataset.dataset(tmp_path, format="parquet")
        with pytest.raises(DesignError) as caught:
            IPWRA.from_formula("y ~ x1 + x2", found, treat="d")
        assert all(word in str(caught.value) for word in words), str(caught.value)

    refused(data[400:].drop(columns="x2"), "2.parquet has no column 'x2'")
    refused(data[400:].assign(x2="text"), "cannot be read")

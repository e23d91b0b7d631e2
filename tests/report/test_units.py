"""Files of units: whole or not at all, a row group a block, and memory that is that of a block."""

from __future__ import annotations

import errno
import os
import sys

import pandas as pd
import pyarrow.dataset
import pytest
from pyarrow.parquet import ParquetWriter, read_metadata

from causalrisk import IPWRA, OptionError, UnavailableError, scan
from tests.conftest import in_blocks, simulate

DATA = simulate(400, seed=2)
BLOCKS = [DATA[:150], DATA[150:151], DATA[151:]]


def fitted(data):
    return IPWRA.from_formula("y ~ x1 + x2", data, treat="d").fit()


@pytest.fixture(scope="module", params=["memory", "scan"])
def res(request):
    return fitted(DATA if request.param == "memory" else scan(BLOCKS))


@pytest.fixture
def before(tmp_path):
    """A file that was there."""
    path = tmp_path / "units.parquet"
    path.write_text("old")
    return path


def as_it_was(path):
    return [found.name for found in path.parent.iterdir()] == [path.name] and path.read_text() == "old"


def test_a_block_is_a_row_group(tmp_path):
    path = fitted(in_blocks(BLOCKS)).write_units(tmp_path / "units.parquet")
    found = read_metadata(path)
    assert [found.row_group(k).num_rows for k in range(found.num_row_groups)] == [150, 1, 249]
    assert [found.name for found in tmp_path.iterdir()] == ["units.parquet"]


def test_a_file_that_is_there_is_replaced(res, before):
    assert res.write_units(str(before)) == before
    assert pd.read_parquet(before).row.tolist() == list(range(400))


def test_a_full_disk_leaves_what_was_there(res, before, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    for owner, name in ((os, "fsync"), (ParquetWriter, "write_table")):
        with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left") as caught:
            patch.setattr(owner, name, full)
            res.write_units(before)
        assert caught.value.filename == str(before)
        assert as_it_was(before)


def test_an_interruption_leaves_what_was_there(res, before, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(ParquetWriter, "write_table", interrupted)
    with pytest.raises(KeyboardInterrupt):
        res.write_units(before)
    assert as_it_was(before)


def test_what_cannot_be_written_is_told(tmp_path):
    res = fitted(scan(BLOCKS))
    (tmp_path / "folder.parquet").mkdir()
    with pytest.raises(IsADirectoryError, match=r"folder\.parquet"):
        res.write_units(tmp_path / "folder.parquet")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        res.write_units(tmp_path / "nowhere" / "units.parquet")
    with pytest.raises(OptionError, match=r"units\.csv'[^$]*`res\.write_units"):
        res.write_units(tmp_path / "units.csv")


@pytest.mark.parametrize("source", [scan, pyarrow.dataset.dataset])
def test_files_of_the_scan_are_not_replaced(tmp_path, monkeypatch, source):
    claims = tmp_path / "claims.parquet"
    DATA.to_parquet(claims)
    res, content = fitted(source(claims)), claims.read_bytes()
    (tmp_path / "link.parquet").symlink_to(claims)
    (tmp_path / "same.parquet").hardlink_to(claims)
    monkeypatch.chdir(tmp_path)
    for path in ("claims.parquet", tmp_path / "link.parquet", tmp_path / "same.parquet"):
        for write in (res.write_units, res.save):
            with pytest.raises(OptionError, match=r"is one of the files of the scan[^$]*`res"):
                write(path)
    assert claims.read_bytes() == content


def test_without_pyarrow(res, before, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(UnavailableError, match=r"needs pyarrow.*\n.*`pip install pyarrow`"):
        res.write_units(before)
    assert as_it_was(before)

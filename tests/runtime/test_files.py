"""Files are written whole or not at all: interruptions, full disks, read-only folders, links, devices."""

from __future__ import annotations

import errno
import resource
import stat
from pathlib import Path

import pytest

import causalrisk as cr
from causalrisk.runtime import write_whole
from tests.conftest import simulate


@pytest.fixture(scope="module")
def res():
    return cr.IPWRA.from_formula("y ~ x1 + x2", simulate(150), treat="d").fit()


@pytest.fixture
def csv(tmp_path):
    path = tmp_path / "data.csv"
    simulate(150).to_csv(path, index=False)
    return path


def test_a_file_is_there_whole_with_the_permissions_of_a_new_one(tmp_path):
    plain = tmp_path / "plain"
    plain.write_text("")
    path = write_whole(tmp_path / "new.txt", "grüße\n")
    assert path.read_bytes() == "grüße\n".encode()
    assert path.stat().st_mode == plain.stat().st_mode
    assert len(list(tmp_path.iterdir())) == 2


def test_what_is_replaced_keeps_its_permissions_and_links_stay_links(tmp_path):
    real, link = tmp_path / "real.txt", tmp_path / "link.txt"
    real.write_text("old")
    real.chmod(0o640)
    link.symlink_to(real)
    write_whole(link, "new")
    assert real.read_text() == "new"
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    assert link.is_symlink()


@pytest.mark.usefixtures("unprinted_plots")
def test_a_report_that_does_not_fit_the_disk_ruined_the_one_before(res, tmp_path):
    """A limit on the size of files is a full disk that needs no rights to make; Python ignores its signal."""
    path = tmp_path / "report.html"
    res.report(path)
    before, (_, most) = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    with pytest.raises(OSError) as caught:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, most))
        try:
            res.report(path)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    assert caught.value.errno == errno.EFBIG
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_devices_are_written_as_they_are(res, csv, capsys):
    with pytest.raises(OSError, match="No space left"):
        write_whole("/dev/full", "x" * 100_000)
    assert not [p for p in Path("/dev").iterdir() if p.name.endswith(".part")]
    assert write_whole("/dev/null", "x") == Path("/dev/null")

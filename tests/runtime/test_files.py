"""Files are written whole or not at all: interruptions, full disks, read-only folders, links, devices."""

from __future__ import annotations

import errno
import os
import resource
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import causalrisk as cr
from causalrisk.cli import main
from causalrisk.runtime.system import write_whole
from tests.conftest import simulate

ROOT = Path(__file__).parents[2]
NOBODY = 65534
CALL = ["y ~ x1 + x2", "--treat", "d", "--estimator", "IPWRA"]


@pytest.fixture(scope="module")
def res():
    return cr.IPWRA.from_formula("y ~ x1 + x2", simulate(150), treat="d").fit()


@pytest.fixture
def csv(tmp_path):
    path = tmp_path / "data.csv"
    simulate(150).to_csv(path, index=False)
    return path


def run(code, **options):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120, **options
    )


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
    assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, str(path))
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


@pytest.mark.skipif(not os.path.ismount("/dev/shm") or os.geteuid() != 0, reason="mounts a small disk")
def test_a_full_disk(res, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], capture_output=True)
    if mounted.returncode:
        pytest.skip("may not mount")
    try:
        good = write_whole(disk / "report.html", "good" * 1000)
        with pytest.raises(OSError, match="No space left") as caught:
            res.report(good)
        assert caught.value.filename == str(good)
        assert good.read_text() == "good" * 1000
        assert [p.name for p in disk.iterdir()] == ["report.html"]
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_read_only_folder(res, csv, tmp_path):
    """As somebody without the right to write, and never as root, who may write everywhere."""
    folder = tmp_path / "closed"
    folder.mkdir()
    (folder / "report.html").write_text("old")
    for path in (tmp_path, *tmp_path.parents):
        if os.geteuid() == 0 and path.stat().st_uid == 0 and str(path).startswith("/tmp/"):
            path.chmod(path.stat().st_mode | 0o055)
    folder.chmod(0o555)
    code = (
        "import contextlib, io, os, causalrisk.errors\n"
        "causalrisk.errors.words('instead', 'fit')\n"
        "from causalrisk.cli import main\n"
        "from causalrisk.runtime.system import write_whole\n"
        "from causalrisk.simulation import run_study\n"
        f"call = ['fit', {str(csv)!r}, *{CALL!r}]\n"
        "with contextlib.redirect_stdout(io.StringIO()):\n"
        "    main(call)\n"  # imports all of it while it may read where Python lies
        f"os.geteuid() or os.setuid({NOBODY})\n"
        f"folder = {str(folder)!r}\n"
        "for write in (\n"
        "    lambda: write_whole(f'{folder}/report.html', 'new'),\n"
        "    lambda: run_study('strong', n=100, n_sims=2, estimators='IPWRA', path=f'{folder}/study'),\n"
        "):\n"
        "    try:\n        write()\n"
        "    except PermissionError as error:\n        print(error.filename)\n"
        "print(main([*call, '-o', f'{folder}/report.html']))\n"
    )
    done = run(code)
    assert done.stdout.split() == [f"{folder}/report.html", f"{folder}/study", "2"], done.stderr
    assert "Permission denied" in done.stderr
    assert "Traceback" not in done.stderr
    assert [(p.name, p.read_text()) for p in folder.iterdir()] == [("report.html", "old")]
    folder.chmod(0o755)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_output_to_a_full_device_was_a_traceback(csv):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "causalrisk", "fit", csv, *CALL], stdout=full, stderr=subprocess.PIPE, text=True,
            env=environment,
        )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == "causalrisk: the output was not written whole: No space left on device.\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_devices_are_written_as_they_are(res, csv, capsys):
    with pytest.raises(OSError, match="No space left"):
        write_whole("/dev/full", "x" * 100_000)
    assert not [p for p in Path("/dev").iterdir() if p.name.endswith(".part")]
    assert write_whole("/dev/null", "x") == Path("/dev/null")


@pytest.mark.usefixtures("unprinted_plots")
def test_folders_and_missing_folders_are_named(res, tmp_path):
    with pytest.raises(IsADirectoryError, match=str(tmp_path)):
        res.report(tmp_path)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        res.report(tmp_path / "nowhere" / "report.html")


def test_two_reports_at_once_into_one_file_leave_one_of_them(tmp_path):
    path = tmp_path / "shared.txt"
    texts = [letter * 200_000 for letter in "abcd"]
    threads = [threading.Thread(target=lambda t=text: [write_whole(path, t) for _ in range(10)]) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_text() in texts
    assert len(list(tmp_path.iterdir())) == 1


def test_tables_of_the_command_line_are_written_whole(csv, tmp_path, monkeypatch):
    path = tmp_path / "table.csv"
    assert main(["fit", str(csv), *CALL, "-o", str(path)]) == 0
    before = path.read_bytes()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert main(["fit", str(csv), "y ~ x1", *CALL[1:], "-o", str(path)]) == 2
    assert path.read_bytes() == before
    assert not list(tmp_path.glob(".*"))

"""A handful of the interruptions of `tests.interruptions.machine`, and what it calls torn."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.interruptions import machine

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at /proc")
# Where joblib's loky waits without end, for the rest of a message within which its worker was killed; it is seldom, and
# told of in docs/howto/scale.md. A fit that waits for anything else fails.
CUT_OFF = re.compile(r"in _recv\n.*in _recv_bytes\n.*in recv\n.*in wait_result_broken_or_wakeup\n")
ROOT = Path(__file__).parents[2]


def interrupted(times, *works):
    """Run the command in a process without threads, which it can be forked from."""
    command = [sys.executable, "-m", "tests.interruptions.machine", "--times", str(times), "--works", *works]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=os.environ, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{times} interruptions, 0 of them not well" in done.stdout


def test_what_is_interrupted_or_killed_ends_at_once_and_whole():
    interrupted(15, "fit", "fit in threads", "scan", "scan in threads", "tables")


@pytest.mark.slow
def test_workers_of_joblib_outlived_the_process_that_started_them():
    """Killed or terminated, it left its workers and their tracker behind for minutes."""
    interrupted(5, "fit in processes")


@pytest.mark.slow
def test_a_scan_on_a_cluster_interrupted_or_killed():
    """Dask waited four seconds for what its workers were doing before it killed them."""
    pytest.importorskip("distributed")
    interrupted(4, "scan on a cluster")


@pytest.mark.slow
def test_everything_else_interrupted_or_killed():
    interrupted(20, "joint fit", "comparison", "report", "command line", "study")


@pytest.mark.parametrize("kind", ["joblib", "cluster"])
def test_a_worker_of_a_scan_that_is_killed_changes_no_digit(kind):
    """One kill; `python -m tests.interruptions.workers` does sixty, and `test_workers.py` one on a cluster too."""
    pytest.importorskip("distributed")
    command = [sys.executable, "-m", "tests.interruptions.workers", "--times", "1", "--kinds", kind]
    for _ in range(2):
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=os.environ, timeout=600)
        if not CUT_OFF.search(done.stderr):
            break
    assert done.returncode == 0, done.stdout + done.stderr
    # More than one where a kill came too late and is followed by another.
    assert re.search(r"[1-9]\d* kills, 0 of them not well", done.stdout)


def test_a_file_cut_anywhere_is_torn(tmp_path):
    res = machine.model().fit()
    summary = res.summary()
    files = [summary.save(tmp_path / f"table.{ending}") for ending in ("html", "csv", "tex", "md", "docx")]
    files += [res.save(tmp_path / "results.pickle"), res.report(tmp_path / "report.html")]
    (tmp_path / ".rest.part").write_text("begun")
    assert machine.torn(tmp_path, killed=True) == []
    assert machine.torn(tmp_path, killed=False) == [".rest.part"]
    for file in files:
        content = file.read_bytes()
        file.write_bytes(content[: len(content) // 2].rstrip())
        assert machine.torn(tmp_path, killed=True) == [file.name]
        file.write_bytes(content)


def test_every_process_of_a_session_is_found():
    script = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); "
    leader = subprocess.Popen([sys.executable, "-c", script + "time.sleep(60)"], start_new_session=True)
    try:
        while not (found := machine.session(leader.pid)):
            assert leader.poll() is None
        assert len(found) == 1
    finally:
        for pid in [*machine.session(leader.pid), leader.pid]:
            os.kill(pid, 9)
        leader.wait()

"""Work that is interrupted or killed at random times: nothing hangs, nothing is half-written, no process stays.

    python -m tests.interruptions.machine --times 200

prints, for each kind of work and of signal, how often it ended in time and whole. The exit code is 1 where it did not.
Work runs in a process of its own, forked from this one so that nothing has to be imported, in a session of its own so
that every process it starts can be found.
"""

from __future__ import annotations

import argparse
import collections
import faulthandler
import importlib
import io
import multiprocessing
import os
import re
import signal
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import NamedTuple

import joblib
import numpy as np
import pandas as pd

import causalrisk as cr
from causalrisk import cli
from causalrisk.inference import covariance
from causalrisk.simulation import run_study
from tests.conftest import RHS, simulate

LIMIT, STUDY_LIMIT, START_LIMIT = 5.0, 3.0, 120.0  # seconds
FOR_EVER = 1_000_000  # resamples or samples


class Outcome(NamedTuple):
    """What became of one interruption: seconds until the work ended, and what is wrong, or nothing."""

    seconds: float
    wrong: str


# --- work ----------------------------------------------------------------------------------------------------------


def model(estimator: type = cr.IPWRA):
    return estimator.from_formula(f"y ~ {RHS}", simulate(200), treat="d")


def at_work(folder: Path) -> None:
    """Say that the work begins."""
    (folder / f"at-work.{os.getpid()}").touch()


def fit(folder: Path) -> None:
    at_work(folder)
    model().fit(n_boot=FOR_EVER)


def fit_jointly(folder: Path) -> None:
    at_work(folder)
    model(cr.JRE).fit(n_boot=FOR_EVER)


def fit_in_threads(folder: Path) -> None:
    at_work(folder)
    model().fit(n_boot=FOR_EVER, n_jobs=2)


class Telling:
    """A refit that says in which process it works."""

    def __init__(self, refitter, folder: Path) -> None:
        self.refitter, self.folder = refitter, folder
        self.arrays, self.rows_together = refitter.arrays, refitter.rows_together

    def refit(self, counts, fits=None):
        at_work(self.folder)
        return self.refitter.refit(counts, fits)


def fit_in_processes(folder: Path) -> None:

    make = covariance.refitter_of
    covariance.refitter_of = lambda record: Telling(make(record), folder)
    with joblib.parallel_config("loky"):
        model().fit(n_boot=FOR_EVER, n_jobs=2)


def scan_alone(folder: Path) -> None:
    """A fit with robust errors whose passes take longer than the limit together; it says when the first begins."""
    fitting = threading.Event()

    def frames():
        for k in range(4):
            if fitting.is_set():
                at_work(folder)
                time.sleep(0.2)
            yield simulate(200, seed=k)

    scanned = cr.IPWRA.from_formula(f"y ~ {RHS}", cr.scan(frames, keep="nothing"), treat="d")
    fitting.set()
    scanned.fit()


def scan_in_threads(folder: Path, n_jobs: int = 2) -> None:
    """A fit to blocks of which each takes longer than the limit, under all resamples; it says when that begins."""
    from causalrisk.estimators import fit

    refit = fit.refit_passes

    def telling(*given, **options):
        at_work(folder)
        return refit(*given, **options)

    fit.refit_passes = telling
    (folder / "data").mkdir()
    for k in range(3):
        simulate(50_000, seed=k).to_parquet(folder / "data" / f"{k}.parquet")
    source = cr.scan(f"{folder}/data/*.parquet", block_rows=50_000)
    cr.IPWRA.from_formula(f"y ~ {RHS}", source, treat="d").fit(n_boot=20_000, n_jobs=n_jobs)


def scan_on_a_cluster(folder: Path) -> None:
    from distributed import Client, LocalCluster

    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster, Client(cluster):
        scan_in_threads(folder, n_jobs=1)


def compare(folder: Path) -> None:
    at_work(folder)
    cr.compare(f"y ~ {RHS}", simulate(200), treat="d", n_boot=FOR_EVER)


def report(folder: Path) -> None:
    res = model().fit()
    res.report(folder / "report.html")
    at_work(folder)
    while True:
        res.report(folder / "report.html")


def tables(folder: Path) -> None:
    res = model().fit()
    summary = res.summary()
    at_work(folder)
    while True:
        for ending in ("html", "tex", "csv", "md", "txt", "docx"):
            summary.save(folder / f"table.{ending}")
        res.save(folder / "results.pickle")


def command_line(folder: Path) -> None:
    simulate(200).to_csv(folder / "data.csv", index=False)
    at_work(folder)
    with redirect_stdout(io.StringIO()):
        while True:
            for ending in ("json", "html"):
                code = cli.main(["fit", f"{folder}/data.csv", f"y ~ {RHS}", "--treat", "d", "--estimator", "IPWRA",
                                 "--output", f"{folder}/table.{ending}"])  # fmt: skip
                if code:
                    sys.exit(code)


def slow(trial) -> tuple[float, float]:
    """An estimator that takes its time, and says in which process."""
    at_work(Path(os.environ["INTERRUPTED"]))
    time.sleep(0.02)
    return 1.0, 1.0


def study(folder: Path) -> None:
    os.environ["INTERRUPTED"] = str(folder)
    run_study(
        "strong", n=100, n_sims=100_000, estimators={"slow": slow}, n_jobs=2, path=folder / "study", reference=None
    )


class Work(NamedTuple):
    """A kind of work, how many processes say they are at work, how long it may take to end, signals, last words."""

    do: Callable[[Path], None]
    processes: int
    limit: float
    signals: tuple[str, ...]
    says: str = r"KeyboardInterrupt|FitInterrupted|causalrisk: interrupted"


OF_BOOTSTRAPS = r"FitInterrupted: the bootstrap was interrupted"
ALONE = ("interrupt", "terminate", "kill")
TOGETHER = (*ALONE, "interrupt all", "kill a worker")
WORKS = {
    "fit": Work(fit, 1, LIMIT, ALONE),
    "joint fit": Work(fit_jointly, 1, LIMIT, ALONE),
    "fit in threads": Work(fit_in_threads, 1, LIMIT, ALONE),
    "fit in processes": Work(fit_in_processes, 2, LIMIT, TOGETHER),
    "scan": Work(scan_alone, 1, LIMIT, ALONE, r"FitInterrupted: the fit to a scan was interrupted in pass \d"),
    "scan in threads": Work(scan_in_threads, 1, LIMIT, ALONE, OF_BOOTSTRAPS),
    "scan on a cluster": Work(scan_on_a_cluster, 1, LIMIT, (*ALONE, "interrupt all"), OF_BOOTSTRAPS),
    "comparison": Work(compare, 1, LIMIT, ALONE),
    "report": Work(report, 1, LIMIT, ALONE),
    "tables": Work(tables, 1, LIMIT, ALONE),
    "command line": Work(command_line, 1, LIMIT, ALONE),
    "study": Work(study, 2, STUDY_LIMIT, TOGETHER),
}

# --- what is left --------------------------------------------------------------------------------------------------


def session(leader: int) -> list[int]:
    """Processes of a session that are alive, but for its leader."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, its_session = path.read_text().rpartition(")")[2].split()[:4]
        except (OSError, ValueError):
            continue
        if int(its_session) == leader and state != "Z" and int(path.parent.name) != leader:
            found.append(int(path.parent.name))
    return found


def whole(path: Path) -> bool:
    """Whether a file that the work writes is all there."""
    checks: dict[str, Callable[[], object]] = {
        ".html": lambda: path.read_text("utf-8").rstrip().endswith(">") and "</" in path.read_text("utf-8"),
        ".json": lambda: isinstance(pd.read_json(path, typ="series"), pd.Series),
        ".parquet": lambda: not pd.read_parquet(path).empty,
        ".csv": lambda: path.read_bytes().endswith(b"\n"),
        ".pickle": lambda: bool(np.isfinite(cr.load(path).effect)),
        ".docx": lambda: zipfile.ZipFile(path).testzip() is None,
    }
    try:
        return bool(checks.get(path.suffix, lambda: path.read_bytes().endswith(b"\n"))())
    except Exception:  # whatever a torn file makes its reader raise
        return False


def torn(folder: Path, killed: bool) -> list[str]:
    """Files that are not whole; a process that was killed could not take away what it had not finished writing."""
    found = []
    for path in folder.rglob("*"):
        if path.is_dir() or path.name.startswith("at-work") or path.name == "errors":
            continue
        if path.suffix == ".part":
            found += [] if killed else [path.name]
        elif not whole(path):
            found.append(path.name)
    return found


# --- one interruption ----------------------------------------------------------------------------------------------


def load() -> None:
    """Import what the work needs, so that no process has to; no thread is begun, and this one can be forked."""
    model().fit(n_boot=2).summary()
    for name in ("docx", "pyarrow.parquet"):
        importlib.import_module(name)


def begin(do: Callable[[Path], None], folder: Path) -> None:
    """In the process of the work."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with (folder / "errors").open("w") as stream:
        os.dup2(stream.fileno(), 2)
    faulthandler.register(signal.SIGUSR1)
    do(folder)


def interrupt(work: str, how: str, wait: float) -> Outcome:
    """Let work begin, interrupt it after a time, and look at what is left.

    Parameters
    ----------
    work : str
        A kind of work.
    how : str
        One of its signals.
    wait : float
        Seconds at work before that.
    """
    kind = WORKS[work]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        process = multiprocessing.get_context("fork").Process(target=begin, args=(kind.do, folder))
        process.start()
        leader = process.pid or 0
        try:
            workers = _started(folder, kind.processes, process)
            if len(workers) < kind.processes:
                return Outcome(0.0, f"did not begin: {(folder / 'errors').read_text()[-300:]}")
            time.sleep(wait)
            if process.exitcode is not None:
                return Outcome(0.0, f"had ended: {(folder / 'errors').read_text()[-300:]}")
            begun = time.monotonic()
            _send(how, leader, [pid for pid in workers if pid != leader])
            process.join(kind.limit)
            seconds = time.monotonic() - begun
            if process.exitcode is None:
                os.kill(leader, signal.SIGUSR1)
                time.sleep(0.5)
                return Outcome(seconds, f"hangs: {(folder / 'errors').read_text()}")
            while session(leader) and time.monotonic() - begun < kind.limit:
                time.sleep(0.05)
            return Outcome(seconds, _judged(folder, leader, how, process.exitcode, kind.says))
        finally:
            for pid in [leader, *session(leader)]:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            process.join()


def _started(folder: Path, count: int, process: multiprocessing.process.BaseProcess) -> list[int]:
    """Processes that say that they are at work, once there are enough of them or the first has ended."""
    give_up = time.monotonic() + START_LIMIT
    while True:
        ended = process.exitcode is not None
        found = [int(path.suffix[1:]) for path in folder.glob("at-work.*")]
        if len(found) >= count or ended or time.monotonic() > give_up:
            return found
        time.sleep(0.02)


def _send(how: str, leader: int, workers: list[int]) -> None:
    if how == "interrupt all":
        os.killpg(leader, signal.SIGINT)
    elif how == "kill a worker":
        os.kill(workers[-1], signal.SIGKILL)
    else:
        number = {"interrupt": signal.SIGINT, "terminate": signal.SIGTERM, "kill": signal.SIGKILL}[how]
        os.kill(leader, number)


def _judged(folder: Path, leader: int, how: str, exitcode: int, says: str) -> str:
    """Say what is wrong with what is left."""
    left, files = session(leader), torn(folder, how in ("terminate", "kill"))
    text = (folder / "errors").read_text()
    wanted = {
        "interrupt": says,
        "kill a worker": r"BootstrapError: a worker process",
    }
    expected = wanted.get(how.removesuffix(" all"), "")
    faults = {
        f"{len(left)} processes stay": bool(left),
        f"not whole: {files}": bool(files),
        f"says: {text.strip().splitlines()[-1:]}": not re.search(expected, text),
        "ended well": exitcode == 0,
    }
    return "; ".join(fault for fault, holds in faults.items() if holds)


# --- many ----------------------------------------------------------------------------------------------------------


def run(times: int, seed: int, works: tuple[str, ...] = tuple(WORKS)) -> dict[tuple[str, str], list[Outcome]]:
    """Interrupt work of every kind in turn, by every signal in turn, at random times."""
    load()
    rng = np.random.default_rng(seed)
    found: dict[tuple[str, str], list[Outcome]] = collections.defaultdict(list)
    pairs = [(work, how) for work in works for how in WORKS[work].signals]
    for number in range(times):
        pair = pairs[number % len(pairs)]
        found[pair].append(interrupt(*pair, float(rng.exponential(0.4))))
    return dict(found)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--works", nargs="+", choices=tuple(WORKS), default=tuple(WORKS))
    options = parser.parse_args(arguments)
    found = run(options.times, options.seed, tuple(options.works))
    print(f"{'work':18}{'signal':16}{'times':>6}{'well':>6}{'slowest':>9}")
    for (work, how), outcomes in found.items():
        well = sum(not outcome.wrong for outcome in outcomes)
        print(f"{work:18}{how:16}{len(outcomes):6}{well:6}{max(o.seconds for o in outcomes):8.2f}s")
    wrong = [(pair, outcome) for pair, outcomes in found.items() for outcome in outcomes if outcome.wrong]
    for (work, how), outcome in wrong:
        print(f"{work}, {how}, after {outcome.seconds:.2f} s: {outcome.wrong}")
    print(f"{sum(map(len, found.values()))} interruptions, {len(wrong)} of them not well")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())

"""Workers of a scan that are killed at random times: the right digits or a clear error, no wrong number, nothing hangs.

    python -m tests.interruptions.workers --times 20

prints, for each kind of workers, how often the fit ended with the digits of an undisturbed one and how often with an
error that names the cause. The exit code is 1 where it ended in another way, or took more than a minute.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import joblib
import numpy as np

from causalrisk import AIPW, BootstrapError, FitInterrupted, scan
from tests import dask_cluster
from tests.conftest import simulate

HANGS, SCHEDULER_LIMIT = 60.0, 30.0  # seconds
ROWS = (3000, 50, 2000)


class Outcome(NamedTuple):
    """How a fit ended: "right", "error" or what is wrong, after how many seconds of it, and after the signal."""

    kind: str
    seconds: float
    after: float


Victims = Callable[[], list[int]]  # processes of which one is killed


def write_files(folder: Path) -> None:
    for k, n in enumerate(ROWS):
        frame = simulate(n, seed=k).assign(unit=lambda d: d.index % 40)
        frame.to_parquet(folder / f"{k}.parquet", row_group_size=1000)


def fit(folder: Path) -> np.ndarray:
    """Every number of a fit."""
    source = scan(f"{folder}/*.parquet", block_rows=1000)
    model = AIPW.from_formula("y ~ x1 + np.exp(x2)", source, treat="d", target="overlap", cluster="unit")
    res = model.fit(n_boot=100, n_jobs=2)
    return np.concatenate([np.ravel(values) for values in (res.params, res._record.robust, res.boot_params)])


# --- kinds of workers ----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def local_cluster(folder: Path) -> Iterator[Victims]:
    """Two processes of a LocalCluster, which starts another for one that dies."""
    from distributed import Client

    with dask_cluster.local_cluster() as cluster, Client(cluster):
        yield lambda: [nanny.pid for nanny in cluster.workers.values() if nanny.pid]


@contextlib.contextmanager
def loky(folder: Path) -> Iterator[Victims]:
    """Two processes of joblib's own backend."""
    with joblib.parallel_config("loky"):
        yield lambda: [pid for pid in children() if "loky" in command(pid) and "tracker" not in command(pid)]


@contextlib.contextmanager
def scheduler(folder: Path) -> Iterator[Victims]:
    """A scheduler and two workers in processes of their own; the scheduler is the one that is killed."""
    from distributed import Client

    told = folder / "scheduler.json"
    told.unlink(missing_ok=True)
    with contextlib.ExitStack() as stack:
        started = [
            stack.enter_context(subprocess.Popen([*RUN, f"distributed.cli.dask_{kind}", *options, str(told)], **QUIET))
            for kind, options in PROGRAMS.items()
        ]
        for process in started:
            stack.callback(process.kill)
        while not told.exists():
            time.sleep(0.05)
        client = Client(scheduler_file=str(told))
        stack.callback(client.close, timeout=1)
        client.wait_for_workers(2)
        with client:
            yield lambda: [started[0].pid]


RUN = (sys.executable, "-m")
PROGRAMS = {
    "scheduler": ("--host", "127.0.0.1", "--port", "0", "--dashboard-address", ":0", "--scheduler-file"),
    "worker": ("--nworkers", "2", "--nthreads", "1", "--scheduler-file"),
}
QUIET = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
KINDS = {"cluster": local_cluster, "joblib": loky, "scheduler": scheduler}


def children() -> list[int]:
    """Processes that this one started."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = path.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if int(parent) == os.getpid() and state != "Z":
            found.append(int(path.parent.name))
    return found


def command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


# --- one kill ------------------------------------------------------------------------------------------------------


def killed(kind: str, folder: Path, right: np.ndarray, wait: float, rng: np.random.Generator) -> Outcome:
    """Fit, kill one of the processes after a time, and look at how the fit ends."""
    sent: list[float] = []
    done = threading.Event()

    def kill(victims: Victims) -> None:
        time.sleep(wait)
        while not (found := victims()) and not done.is_set():
            time.sleep(0.01)
        if not done.is_set():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(rng.choice(found)), signal.SIGKILL)
                sent.append(time.monotonic())

    faulthandler.dump_traceback_later(HANGS, exit=True)
    with KINDS[kind](folder) as victims:
        killer, begun = threading.Thread(target=kill, args=(victims,)), time.monotonic()
        killer.start()
        found = judged(folder, right)
        ended = time.monotonic()
        done.set()
        killer.join()
        faulthandler.cancel_dump_traceback_later()
        faulthandler.dump_traceback_later(HANGS, exit=True)
    faulthandler.cancel_dump_traceback_later()
    after = ended - sent[0] if sent else np.nan
    if kind == "scheduler" and after > SCHEDULER_LIMIT:
        found = f"took {after:.0f} s to say that the scheduler is lost"
    return Outcome(found, ended - begun, after)


def judged(folder: Path, right: np.ndarray) -> str:
    """Say how a fit ends."""
    try:
        found = fit(folder)
    except FitInterrupted as error:
        return f"interrupted: {error}"
    except BootstrapError as error:
        named = any(words in str(error) for words in ("worker", "scheduler"))
        return "error" if named and "ype  " in str(error) else f"an unclear error: {error}"
    except Exception as error:  # whatever else comes out is what is looked for
        return f"{type(error).__name__}: {error}"
    return "right" if np.array_equal(found, right) else f"wrong by {np.abs(found - right).max():.3g}"


def run(times: int, seed: int, kinds: tuple[str, ...]) -> dict[str, list[Outcome]]:
    """Kill workers of each kind at times that are uniform over a fit."""
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_files(folder)
        right = fit(folder)
        found: dict[str, list[Outcome]] = {}
        for kind in kinds:
            with KINDS[kind](folder):
                for _ in range(2):  # the second imports nothing, nor does the one that is disturbed
                    begun = time.monotonic()
                    if not np.array_equal(fit(folder), right):
                        raise ValueError(f"{kind}: other digits without a kill")
                    seconds = time.monotonic() - begun
            found[kind] = []
            while sum(np.isfinite(outcome.after) for outcome in found[kind]) < times:  # the fit may have ended before
                found[kind].append(killed(kind, folder, right, rng.uniform(0, seconds), rng))
    return found


def main(arguments: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", choices=tuple(KINDS), default=tuple(KINDS))
    options = parser.parse_args(arguments)
    found = run(options.times, options.seed, tuple(options.kinds))
    print(f"{'workers':12}{'times':>6}{'in time':>9}{'right':>7}{'error':>7}{'slowest':>9}{'after kill':>12}")
    for kind, outcomes in found.items():
        hit = [outcome for outcome in outcomes if np.isfinite(outcome.after)]
        counts = [sum(outcome.kind == ending for outcome in outcomes) for ending in ("right", "error")]
        slowest, after = max(o.seconds for o in outcomes), max((o.after for o in hit), default=np.nan)
        print(f"{kind:12}{len(outcomes):6}{len(hit):9}{counts[0]:7}{counts[1]:7}{slowest:8.1f}s{after:11.1f}s")
    wrong = [(kind, outcome) for kind, outcomes in found.items() for outcome in outcomes]
    wrong = [(kind, outcome) for kind, outcome in wrong if outcome.kind not in ("right", "error")]
    for kind, outcome in wrong:
        print(f"{kind}, after {outcome.seconds:.1f} s: {outcome.kind}")
    print(f"{sum(map(len, found.values()))} kills, {len(wrong)} of them not well")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())

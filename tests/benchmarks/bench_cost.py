"""What `model.cost()` tells of a fit over what the fit takes: `python -m tests.benchmarks.bench_cost`.

Telling and fitting are each in a process of its own, forked from one that has made the model. Seconds are those of the
processor, of a fit the shortest of some. Memory is the rise of the largest resident memory, of large fits only, once
a small fit has run there and the room that the process has free was given back (Linux with glibc).
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # must be set before numpy loads

import argparse
import ctypes
import multiprocessing
import re
import tempfile
import time
import warnings
from functools import partial
from pathlib import Path
from typing import NamedTuple

import causalrisk as cr
from tests.benchmarks.bench_bootstrap import seconds_of
from tests.conftest import RHS, simulate

LARGE = 100_000  # rows from which on memory is compared
REPEATS, ENOUGH = 3, 1.0  # fits of which the shortest counts, where the first took fewer seconds


class Case(NamedTuple):
    """A fit: its estimator, rows and options; a binary outcome has logit models, a scan Parquet files."""

    estimator: str
    rows: int
    options: dict
    binary: bool = False
    scan: bool = False

    def __str__(self):
        kind = "logit" if self.binary else "scan" if self.scan else ""
        return f"{self.estimator:6}{self.rows:10,} {self.options.get('n_boot', 'robust'):>6} {kind:5}"


ROBUST = {"cov_type": "robust"}
CASES = (
    Case("IPWRA", 2_000, ROBUST),
    Case("IPWRA", 2_000, {"n_boot": 999}),
    Case("JRE", 2_000, {"n_boot": 199}),
    Case("AIPW", 20_000, {"n_boot": 199}),
    Case("IPWRA", 20_000, {"n_boot": 99}, binary=True),
    Case("JRE", 100_000, ROBUST),
    Case("IPWRA", 100_000, {"n_boot": 999}),
    Case("IPWRA", 100_000, ROBUST, binary=True),
    Case("AIPW", 500_000, ROBUST, binary=True),
    Case("JRE", 500_000, ROBUST),
    Case("IPWRA", 1_000_000, ROBUST),
    Case("AIPW", 1_000_000, ROBUST),
    Case("IPWRA", 1_000_000, {"n_boot": 64}),
    Case("JRE", 500_000, ROBUST, scan=True),
    Case("IPWRA", 1_000_000, ROBUST, scan=True),
    Case("IPWRA", 1_000_000, {"n_boot": 64}, scan=True),
)


def models_of(case, folder):
    """Make the model of a case and one of a thousand rows, which has imported what fits need."""
    frame = simulate(case.rows)
    options = {"treat": "d", "family": "binomial" if case.binary else "gaussian"}
    frame["y"] = (frame.y > 1).astype(int) if case.binary else frame.y
    make = partial(getattr(cr, case.estimator).from_formula, f"y ~ {RHS}", **options)
    small = make(frame[:1000])
    small.fit(**ROBUST)
    if not case.scan:
        return make(frame), small
    frame.to_parquet(f"{folder}/rows.parquet", row_group_size=250_000)
    return make(cr.scan(f"{folder}/rows.parquet")), small


def told(model, options):
    """Seconds and bytes that the model tells."""
    cost = model.cost(**options)
    return cost.seconds, cost.bytes


def resident(field):
    """Kilobytes of resident memory now, free room given back and the peak forgotten (VmRSS), or its peak (VmHWM)."""
    if field == "VmRSS":
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    return int(re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])


def taken(model, options, small):
    """Seconds and bytes that the fit takes, once a small one has run."""
    small.fit(**options)
    before = resident("VmRSS")
    seconds, _ = seconds_of(lambda: model.fit(**options), clock=time.process_time)
    memory = resident("VmHWM") - before
    if seconds < ENOUGH:
        seconds = min(seconds, seconds_of(lambda: model.fit(**options), REPEATS - 1, time.process_time)[0])
    return seconds, memory * 2**10


def send(there, function, *given):
    """Send what a function returns."""
    there.send(function(*given))


def forked(function, *given):
    """Return what a function returns in a process of its own."""
    here, there = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=send, args=(there, function, *given))
    process.start()
    there.close()
    found = here.recv()
    process.join()
    return found


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--largest", type=int, default=CASES[-1].rows, help="rows of the largest fits")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    print(f"{'fit':30}{'told':>9}{'taken':>9}{'ratio':>7} s{'told':>9}{'taken':>9}{'ratio':>7} MB")
    for case in (case for case in CASES if case.rows <= args.largest):
        with tempfile.TemporaryDirectory() as folder:
            model, small = models_of(case, folder)
        seconds, memory = forked(told, model, case.options)
        took, held = forked(taken, model, case.options, small)
        line = f"{case!s:30}{seconds:9.3f}{took:9.3f}{seconds / took:7.2f}  "
        if case.rows >= LARGE:
            line += f"{memory / 2**20:9.0f}{held / 2**20:9.0f}{memory / held:7.2f}"
        print(line, flush=True)


if __name__ == "__main__":
    main()

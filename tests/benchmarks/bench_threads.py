"""Time of fits as they come over that with one thread of BLAS set by hand: `python -m tests.benchmarks.bench_threads`.

Every fit is timed in a process of its own, with `OPENBLAS_NUM_THREADS=1` and without by turns; then again beside a
process that keeps one processor busy. Ratios are of medians over the rounds.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import subprocess
import sys
import time

TIMED = """
import sys, time, warnings
import causalrisk as cr
warnings.simplefilter("ignore")
data = cr.datasets.load_cattaneo2()
model = getattr(cr, sys.argv[1]).from_formula("bweight ~ mage + I(mage**2) + fbaby + medu", data, treat="mbsmoke")
model.fit(n_boot=20, rng=0)
begun, worked = time.perf_counter(), time.process_time()
model.fit(n_boot=999, rng=0)
print(time.perf_counter() - begun, time.process_time() - worked)
"""


def seconds(estimator, threads):
    """Seconds and seconds of the processors of a fit with 999 resamples; threads None leaves the environment alone."""
    env = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    env |= {} if threads is None else {"OPENBLAS_NUM_THREADS": str(threads)}
    told = subprocess.check_output([sys.executable, "-c", TIMED, estimator], env=env, text=True)
    return [float(number) for number in told.split()]


def keep_busy():
    """Keep a processor busy until the process is ended."""
    while True:
        sum(range(10_000))


def compare(where, rounds):
    """Print the medians of both, and their ratios."""
    for estimator in ("IPWRA", "JRE"):
        times = [(seconds(estimator, 1), seconds(estimator, None)) for _ in range(rounds)]
        one, default = ([statistics.median(each[k][j] for each in times) for j in (0, 1)] for k in (0, 1))
        print(
            f"{where:12} {estimator:6} {one[0]:8.2f} {default[0]:8.2f} {default[0] / one[0]:7.2f} "
            f"{one[1]:8.2f} {default[1]:8.2f} {default[1] / one[1]:7.2f}",
            flush=True,
        )


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    print(f"{'':19} {'seconds':^25} {'seconds of processors':^25}")
    print(f"{'':19} {'by hand':>8} {'default':>8} {'ratio':>7} {'by hand':>8} {'default':>8} {'ratio':>7}")
    compare("as it is", rounds)
    other = multiprocessing.get_context("spawn").Process(target=keep_busy, daemon=True)
    other.start()
    time.sleep(1)
    compare("beside one", rounds)
    other.terminate()


if __name__ == "__main__":
    main()

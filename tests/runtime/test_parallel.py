"""Work side by side: threads, joblib backends, workers that die, nesting; the digits never change."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import joblib
import numpy as np
import pytest

import causalrisk as cr
from causalrisk.inference import covariance
from causalrisk.runtime.workers import chosen_backend, ordered_map, worker_count
from tests.conftest import RHS, simulate

pytestmark = pytest.mark.filterwarnings("ignore::causalrisk.MonteCarloWarning")
ROOT = Path(__file__).parents[2]


def built(model, **options):
    return model.from_formula(f"y ~ {RHS}", simulate(150), treat="d", **options)


KINDS = {
    "JRE": (cr.JRE, {"n_boot": 100, "n_replicates": 40}),
    "IPWRA": (cr.IPWRA, {"n_boot": 100, "cov_type": "bootstrap"}),
}


def processes():
    """Those of joblib, with the options of all tests here, so that they stay from one to the next."""
    return joblib.parallel_config("loky", max_nbytes=1)


@pytest.mark.parametrize(("model", "options"), KINDS.values(), ids=KINDS)
def test_fault_56_same_digits_for_any_workers(model, options):
    fits = [built(model).fit(n_jobs=j, **options) for j in (1, 2, 4)]
    for res in fits[1:]:
        np.testing.assert_array_equal(res.boot_params, fits[0].boot_params)
        np.testing.assert_array_equal(res.cov_params(), fits[0].cov_params())


@pytest.mark.parametrize("kind", KINDS)
def test_fault_56_same_digits_in_joblib_processes(kind):
    """Every array is handed over as a read-only memory map."""
    model, options = KINDS[kind]
    alone = built(model).fit(**options)
    for backend in ("loky", "threading", "sequential"):
        with joblib.parallel_config(backend, max_nbytes=1):
            res = built(model).fit(n_jobs=2, **options)
        np.testing.assert_array_equal(res.boot_params, alone.boot_params)
        np.testing.assert_array_equal(res.cov_params(), alone.cov_params())


def test_given_resamples_in_joblib_processes():
    drawn = np.random.default_rng(0).multinomial(150, np.full(150, 1 / 150), size=100).T
    alone = built(cr.IPWRA).fit(resamples=drawn)
    with processes():
        res = built(cr.IPWRA).fit(resamples=drawn, n_jobs=2)
    np.testing.assert_array_equal(res.boot_params, alone.boot_params)


def test_a_backend_that_would_wait_for_a_dead_worker_is_not_used():
    """multiprocessing.Pool never learns that a worker was ended."""
    model, options = KINDS["IPWRA"]
    alone = built(model).fit(**options)
    with (
        joblib.parallel_config("multiprocessing"),
        pytest.warns(cr.ResampleWarning, match='(?s)MultiprocessingBackend does not .*parallel_config\\("loky"\\)'),
    ):
        res = built(model).fit(n_jobs=2, **options)
    np.testing.assert_array_equal(res.boot_params, alone.boot_params)


def test_the_context_chooses_where_the_work_is_done():
    here = os.getpid()

    def places(workers=2):
        with ordered_map(lambda number: (os.getpid(), threading.get_ident()), 8, workers) as results:
            return set(results)

    assert chosen_backend() is None
    assert {pid for pid, _ in places()} == {here}
    with processes():
        assert here not in {pid for pid, _ in places()}
        assert places(workers=1) == {(here, threading.get_ident())}
    with joblib.parallel_config("threading"):
        assert chosen_backend() is None
    with joblib.parallel_config("sequential"):
        assert places() == {(here, threading.get_ident())}
    assert chosen_backend() is None


class Dying:
    """A refit whose process ends at one block, as if the system had ended it."""

    def __init__(self, refitter, at):
        self.refitter, self.at, self.home = refitter, at, os.getpid()
        self.arrays, self.rows_together = refitter.arrays, refitter.rows_together

    def refit(self, counts, first, fits=None):
        if first == self.at and os.getpid() != self.home:
            os._exit(1)
        return self.refitter.refit(counts, first, fits)


def test_fault_59_a_worker_dies(monkeypatch):
    """An error within seconds that names the resamples, no partial result; the next fit works."""

    make = covariance.refitter_of
    monkeypatch.setattr(covariance, "refitter_of", lambda record: Dying(make(record), 96))
    model, options = built(cr.IPWRA), {"cov_type": "bootstrap", "n_boot": 320, "n_jobs": 2}
    begun = time.monotonic()
    with (
        processes(),
        pytest.raises(
            cr.BootstrapError, match=r"(?s)a worker process died.* resamples \d+ to 319 .*Use `fit\(n_jobs=1\)`"
        ) as caught,
    ):
        model.fit(**options)
    assert time.monotonic() - begun < 30
    kept = caught.value.results
    assert kept.summary_frame().equals(model.fit(cov_type="robust").summary_frame())
    first_lost = int(str(caught.value).split("resamples ")[1].split(" to ")[0])
    assert first_lost % 32 == 0
    assert first_lost <= 96
    monkeypatch.undo()
    with processes():
        assert not model.fit(**options).boot_params.isna().any(axis=None)


SCRIPT = """
import multiprocessing
import sys
import warnings

import joblib

import pandas as pd

import causalrisk as cr

warnings.simplefilter("error")
DATA = sys.argv[1]


def effect_se(backend):
    with joblib.parallel_config(backend):
        model = cr.IPWRA.from_formula("y ~ x1 + x2 + x3", pd.read_pickle(DATA), treat="d")
        return model.fit(cov_type="bootstrap", n_boot=100, n_jobs=2).effect_se
"""
WITHOUT_A_GUARD = 'print(effect_se("loky"))'
IN_A_DAEMON = """
def in_a_daemon():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        serial = effect_se("loky")
    assert any("setting n_jobs=1" in str(w.message) for w in caught), caught
    assert effect_se("threading") == serial
    return serial


if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(pool.apply(in_a_daemon))
"""
NESTED = """
if __name__ == "__main__":
    found = joblib.Parallel(n_jobs=2)(joblib.delayed(effect_se)(backend) for backend in ("threading", "sequential"))
    assert found[0] == found[1]
    print(found[0])
"""


@pytest.mark.parametrize("use", [WITHOUT_A_GUARD + NESTED, IN_A_DAEMON], ids=["no guard, nested", "spawned daemon"])
def test_fault_60_scripts_daemons_and_nesting(tmp_path, use):
    """A script without `__main__` guard and a fit within a joblib worker; a daemon that may not have children."""
    (tmp_path / "script.py").write_text(SCRIPT + use, "utf-8")
    simulate(150).to_pickle(tmp_path / "data.pickle")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, tmp_path / "script.py", tmp_path / "data.pickle"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    alone = built(cr.IPWRA).fit(cov_type="bootstrap", n_boot=100).effect_se
    assert [float(number) for number in done.stdout.split()] == [alone] * use.count("print(")


def test_fault_60_joblib_is_not_imported_by_the_package():
    code = "import sys, causalrisk; assert 'joblib' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_an_error_in_a_block_leaves_no_thread():
    def fail(block):
        raise ZeroDivisionError

    before = threading.active_count()
    with pytest.raises(ZeroDivisionError), ordered_map(fail, 8, 3) as results:
        list(results)
    assert threading.active_count() == before
    with processes(), pytest.raises(ZeroDivisionError), ordered_map(fail, 8, 2) as results:
        list(results)


def test_worker_count():
    assert worker_count(4, 100.0) == 4
    assert worker_count(-1, 100.0) >= 1


def test_no_more_blocks_are_in_flight_than_fit_half_of_what_is_free(monkeypatch):
    monkeypatch.setattr("causalrisk.runtime.workers.free_memory", lambda: 1000.0)
    assert [worker_count(8, size) for size in (50.0, 100.0, 240.0, 600.0)] == [8, 5, 2, 1]

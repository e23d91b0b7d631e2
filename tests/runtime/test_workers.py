"""Work in threads, processes and on a cluster: order, errors, what is left behind; the digits never change."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import tempfile
import threading
import time
from concurrent.futures import BrokenExecutor
from pathlib import Path

import joblib
import numpy as np
import pytest

from causalrisk import AIPW, IPWRA, JRE, BootstrapError, DesignError, compare, scan
from causalrisk.inference import covariance
from causalrisk.runtime import ordered_map, worker_count
from causalrisk.simulation import run_study
from tests.conftest import RHS, in_parts, simulate
from tests.dask_cluster import local_cluster


def test_an_error_leaves_no_thread():
    before = set(threading.enumerate())
    with pytest.raises(ZeroDivisionError), ordered_map(time.sleep, [0.01] * 3000, 3) as results:
        next(results)
        raise ZeroDivisionError
    for thread in set(threading.enumerate()) - before:  # a thread that was told to end needs a moment
        thread.join(timeout=5)
        assert not thread.is_alive()


def test_the_context_chooses_where_the_work_is_done():
    here = os.getpid()

    def places(workers=2):
        with ordered_map(lambda number: (os.getpid(), threading.get_ident()), range(8), workers) as results:
            return set(results)

    assert {pid for pid, _ in places()} == {here}
    with joblib.parallel_config("loky"):
        assert here not in {pid for pid, _ in places()}
        assert places(workers=1) == {(here, threading.get_ident())}
    with joblib.parallel_config("sequential"):
        assert places() == {(here, threading.get_ident())}


def blocks(*edges, strength=0.8):
    rows = np.arange(edges[-1])
    frame = simulate(n=len(rows), seed=4, strength=strength).assign(
        g=np.array(["a", "b", "c"])[rows % 3], unit=rows % 60
    )
    source = in_parts([frame[first:stop] for first, stop in itertools.pairwise(edges)], 400)
    return AIPW.from_formula("y ~ np.exp(x2) + C(g)", source, treat="d", target="overlap", cluster="unit")


def memory(estimator):
    return lambda: estimator.from_formula(f"y ~ {RHS}", simulate(150), treat="d")


FITS = {
    "scan": (functools.partial(blocks, 0, 600, 603, 900, strength=0.1), {"n_boot": 2}),  # of four parts
    "JRE": (memory(JRE), {"n_boot": 40, "n_replicates": 4}),
    "IPWRA": (memory(IPWRA), {"n_boot": 70}),
}


def numbers(name, n_jobs, make=None):
    given, options = FITS[name]
    res = (make or given)().fit(n_jobs=n_jobs, **options)
    return np.concatenate([np.ravel(values) for values in (res.params, res.cov_params(), res.boot_params)])


@pytest.fixture(scope="module", params=FITS)
def alone(request):
    """Name of a fit, and all its numbers."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "scan":
            beyond_memory(patch)
        yield request.param, numbers(request.param, 1)


def beyond_memory(patch):
    """A scan is beyond memory, however small."""
    patch.setattr("causalrisk.estimation.sample.FEW", 0)


def test_threads_and_processes_change_no_digit(alone):
    name, expected = alone
    np.testing.assert_array_equal(numbers(name, 3), expected)
    for backend in ("loky", "threading", "sequential") if name != "scan" else ():
        with joblib.parallel_config(backend, max_nbytes=1):  # every array is a read-only memory map
            np.testing.assert_array_equal(numbers(name, 2), expected)


def test_fault_35_functions_of_the_caller_with_workers():
    """The design is made by the caller; workers get arrays. They are those of the tests before."""
    squared = lambda x: x**2  # noqa: E731
    frame = simulate(150)
    model = JRE.from_formula("y ~ x1 + squared(x1)", frame, treat="d")
    named = JRE.from_formula("y ~ x1 + I(x1**2)", frame, treat="d")
    options = {"n_boot": 40, "n_replicates": 4}
    expected = named.fit(**options).bse
    for backend in ("threading", "loky"):
        with joblib.parallel_config(backend, max_nbytes=1):
            np.testing.assert_array_equal(model.fit(n_jobs=2, **options).bse, expected)
    assert squared(3) == 9


@pytest.fixture(scope="module")
def dask():
    pytest.importorskip("distributed")
    with local_cluster() as made:
        yield made


@pytest.mark.parametrize("alone", ["JRE", "IPWRA"], indirect=True)
def test_a_cluster_changes_no_number(alone, dask):
    import distributed

    name, expected = alone
    with distributed.Client(dask), joblib.parallel_config("dask"):
        np.testing.assert_array_equal(numbers(name, 2), expected)


def test_a_cluster_changes_no_number_of_a_scan(dask, monkeypatch):
    """Each of two processes has one part of the rows."""
    import distributed

    beyond_memory(monkeypatch)
    make = functools.partial(blocks, 0, 200, 300, strength=0.1)  # with fewer iterations
    expected = numbers("scan", 1, make)
    with distributed.Client(dask):
        np.testing.assert_allclose(numbers("scan", 2, make), expected, rtol=1e-13)
        model = IPWRA.from_formula("y ~ x1", scan([simulate(100)]), treat="d", family="binomial")
        with pytest.raises(DesignError, match="outcome 'y' has"):
            model.fit()


FLAG = Path(tempfile.gettempdir()) / f"deadly-{os.environ.get('PYTEST_XDIST_WORKER', '')}"


def deadly(x):
    """Ends the process that is told to by a file, unless it is the one that wrote it."""
    with contextlib.suppress(FileNotFoundError):  # another worker was faster
        if FLAG.read_text() != str(os.getpid()):
            FLAG.unlink()
            os._exit(1)
    return np.exp(x)


def test_a_worker_that_is_killed_changes_no_digit(dask):
    import distributed

    frame = simulate(n=600, seed=2)
    source = scan([frame[:200], frame[200:400], frame[400:]])
    whole = AIPW.from_formula("y ~ x1 + deadly(x2)", frame, treat="d").fit()
    with distributed.Client(dask):
        FLAG.write_text(str(os.getpid()))
        res = AIPW.from_formula("y ~ x1 + deadly(x2)", source, treat="d").fit()
        assert not FLAG.exists()
    np.testing.assert_allclose(res.params, whole.params, rtol=1e-9)
    np.testing.assert_allclose(res.bse, whole.bse, rtol=1e-9)


def dying(home, refit, *given):
    """Ends every process but that of the test, as if the system had ended it."""
    if os.getpid() != home:
        os._exit(1)
    return refit(*given)


def died(*given):
    """What joblib says when such a process has died."""
    raise BrokenExecutor


def test_a_worker_that_dies_leaves_the_estimate(monkeypatch):
    model, refit = memory(IPWRA)(), covariance.refit_together
    monkeypatch.setattr(covariance, "refit_together", functools.partial(dying, os.getpid(), refit))
    with (
        joblib.parallel_config("loky", max_nbytes=1),
        pytest.raises(BootstrapError, match=r"died.*\nUse `n_jobs=1`") as caught,
    ):
        model.fit(n_boot=320, n_jobs=2)
    assert caught.value.results.summary_frame().equals(model.fit().summary_frame())
    monkeypatch.setattr(covariance, "refit_together", died)
    with pytest.raises(BootstrapError, match="died"):
        compare("y ~ x1", simulate(150), treat="d", estimators=["IPWRA", "AIPW"], n_boot=320, n_jobs=2)


def test_studies_on_a_cluster_change_no_digit(dask):
    import distributed

    options = {"n": 100, "n_sims": 12, "estimators": ["Unadjusted", "IPWRA"]}
    expected = run_study("strong", **options).raw
    with distributed.Client(dask), joblib.parallel_config("dask"):
        assert run_study("strong", **options, n_jobs=2).raw.equals(expected)


def test_no_more_blocks_are_in_flight_than_fit_half_of_the_memory(monkeypatch):
    monkeypatch.setattr("causalrisk.runtime.memory", lambda: 1000.0)
    assert [worker_count(8, size) for size in (50.0, 100.0, 240.0, 600.0)] == [8, 5, 2, 1]
    assert worker_count(-1, 1.0) >= 1

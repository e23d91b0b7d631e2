"""Work on items in threads, processes and on a cluster: order, errors, what is left behind; Dask where it is there."""

from __future__ import annotations

import os
import signal
import threading
import time
from unittest import mock

import joblib
import numpy as np
import pandas as pd
import pytest

from causalrisk import AIPW, IPWRA, JRE, BootstrapError, DesignError, compare, scan
from causalrisk.estimators import fit as stages
from causalrisk.numerics.multiplicities import WIDTH
from causalrisk.runtime import workers
from causalrisk.runtime.workers import active_client, flat_map, ordered_map
from causalrisk.simulation import run_study
from tests.conftest import simulate
from tests.dask_cluster import local_cluster
from tests.dask_stub import cluster

FILES = 3


def twice(item):
    yield item, threading.get_ident()
    yield -item, os.getpid()


def fail(item):
    yield item
    if item == 2:
        raise ZeroDivisionError


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_results_come_in_the_order_of_the_items(workers):
    threads = threading.active_count()
    found = [value for value, _ in flat_map(twice, range(50), workers)]
    assert found == [sign * k for k in range(50) for sign in (1, -1)]
    assert threading.active_count() == threads


def test_items_are_taken_a_few_ahead():
    done, ahead = [], []

    def items():
        for k in range(30):
            ahead.append(k - len(done))
            yield k

    def work(item):
        yield item
        done.append(item)

    assert list(flat_map(work, items(), 3)) == list(range(30))
    assert max(ahead) <= 4


@pytest.mark.parametrize("workers", [1, 3])
def test_errors_are_those_of_the_work(workers):
    threads, found = threading.active_count(), []
    with pytest.raises(ZeroDivisionError):
        found.extend(flat_map(fail, range(9), workers))
    assert threading.active_count() == threads


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Files of which one is small, so that pieces end out of order."""
    path, frame = tmp_path_factory.mktemp("files"), simulate(n=900, seed=4)
    for k, rows in enumerate((slice(0, 600), slice(600, 603), slice(603, 900))):
        part = frame[rows].assign(g=lambda d: np.array(["a", "b", "c"])[d.index % 3], unit=lambda d: d.index % 60)
        part.to_parquet(path / f"{k}.parquet", row_group_size=400)
    return path


def fits(folder, n_jobs=1):
    """Every number of a fit: the estimates, their robust covariance, and the resamples."""
    source = scan(f"{folder}/*.parquet", block_rows=400, keep="nothing")
    model = AIPW.from_formula("y ~ x1 + np.exp(x2) + C(g)", source, treat="d", target="overlap", cluster="unit")
    res = model.fit(n_boot=WIDTH + 3, n_jobs=n_jobs)
    found = res.params, res._record.robust, res.boot_params
    return np.concatenate([np.ravel(values) for values in found])


@pytest.fixture(scope="module")
def alone(folder):
    return fits(folder)


@pytest.mark.parametrize("n_jobs", [2, 4])
def test_threads_change_no_digit(folder, alone, n_jobs):
    np.testing.assert_array_equal(fits(folder, n_jobs), alone)


def test_processes_of_joblib_change_no_digit(folder, alone):
    with joblib.parallel_config("loky"):
        np.testing.assert_array_equal(fits(folder, 2), alone)


@pytest.mark.parametrize("carried", [0, workers.CARRIED], ids=["large functions", "small ones"])
def test_a_client_is_used_where_there_is_one(folder, alone, monkeypatch, carried):
    monkeypatch.setattr(workers, "CARRIED", carried)
    assert active_client() is None
    with cluster("works") as client:
        assert active_client() is client
        np.testing.assert_array_equal(fits(folder), alone)
        left = flat_map(twice, range(6), 1)
        next(left)
        left.close()
        assert client.left  # what was given out ahead is forgotten


LOST = {
    "workers die": r"the Dask workers that were given .*0.parquet died one after the other",
    "scheduler lost": r"the Dask scheduler at tcp://127.0.0.1:8786 does not answer any more",
    "cancelled": r"the Dask scheduler at tcp://127.0.0.1:8786 does not answer any more",
    "connection reset": r"the Dask scheduler at tcp://127.0.0.1:8786 does not answer any more",
    "connection closed": r"the Dask scheduler at tcp://127.0.0.1:8786 does not answer any more",
    "no workers": r"the Dask cluster has had no worker for",
}


@pytest.mark.parametrize("kind", LOST)
def test_what_is_lost_is_named(folder, kind):
    source = scan(f"{folder}/*.parquet", block_rows=400)
    with cluster(kind), pytest.raises(BootstrapError, match=LOST[kind]):
        IPWRA.from_formula("y ~ x1", source, treat="d")


def test_a_cluster_that_is_lost_later_leaves_the_estimate(folder, monkeypatch):
    model = IPWRA.from_formula("y ~ x1", scan(f"{folder}/*.parquet", block_rows=400), treat="d")
    robust = model.fit()
    with cluster("works") as client:
        refit = stages.refit_passes

        def lost(*given, **options):
            client.failure, client.threads = TimeoutError(), 0
            return refit(*given, **options)

        monkeypatch.setattr(stages, "refit_passes", lost)
        with pytest.raises(BootstrapError, match="no worker") as caught:
            model.fit(n_boot=20)
    np.testing.assert_array_equal(caught.value.results.bse, robust.bse)


# --- Dask itself -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dask():
    pytest.importorskip("distributed")
    with local_cluster() as made:
        yield made


def test_a_cluster_changes_no_digit(folder, alone, dask):
    import distributed

    with distributed.Client(dask.scheduler_address) as client:
        assert active_client() is client
        np.testing.assert_array_equal(fits(folder), alone)
        frames = scan([pd.read_parquet(folder / f"{k}.parquet") for k in range(FILES)])
        assert np.isfinite(IPWRA.from_formula("y ~ x1", frames, treat="d").fit().bse).all()
    assert active_client() is None


def test_a_worker_that_is_killed_changes_no_digit(folder, alone, dask):
    import distributed

    with distributed.Client(dask) as client:
        client.wait_for_workers(2)
        victim = next(iter(dask.workers.values())).process.pid
        threading.Timer(0.3, os.kill, (victim, signal.SIGKILL)).start()
        np.testing.assert_array_equal(fits(folder), alone)
        client.wait_for_workers(2)


@pytest.fixture
def by_joblib(dask):
    """Inside joblib's Dask backend, of the scheduler at an address."""
    import distributed

    with distributed.Client(dask.scheduler_address), joblib.parallel_config("dask"):
        yield


def where(number):
    return os.getpid()


def test_joblib_with_dask_works_on_the_cluster(by_joblib):
    with ordered_map(where, 8, 2) as results:
        assert os.getpid() not in set(results)
    with ordered_map(where, 8, 1) as results:
        assert set(results) == {os.getpid()}


def test_bootstraps_and_comparisons_by_joblib_with_dask_change_no_digit(by_joblib):
    data, formula = simulate(150), "y ~ x1 + x2"
    jre = JRE.from_formula(formula, data, treat="d")
    options = {"n_boot": 2 * WIDTH + 3, "n_replicates": 10}
    np.testing.assert_array_equal(jre.fit(**options, n_jobs=2).boot_params, jre.fit(**options).boot_params)
    estimators = ["IPWRA", "AIPW"]
    fits = [compare(formula, data, treat="d", estimators=estimators, n_boot=99, n_jobs=jobs) for jobs in (2, 1)]
    assert fits[0].boot_effects.equals(fits[1].boot_effects)
    assert fits[0].table.equals(fits[1].table)


def test_studies_by_joblib_with_dask_change_no_digit(by_joblib, tmp_path):
    options = {"n": 100, "n_sims": 60, "estimators": ["Unadjusted", "IPWRA"]}
    alone = run_study("strong", **options)
    with mock.patch("causalrisk.simulation.study.worker_processes", side_effect=AssertionError):
        assert run_study("strong", **options, n_jobs=-1, path=tmp_path).raw.equals(alone.raw)
    assert run_study("strong", **options, path=tmp_path).raw.equals(alone.raw)


def end(item):
    os._exit(1)


def test_a_block_that_ends_the_workers_of_joblib_with_dask_is_named():
    """joblib itself would wait for ever; a cluster of its own, as not every worker is started again in time."""
    distributed = pytest.importorskip("distributed")
    named = r"that were given block \d died one after the other[^$]*Type  less"
    with (
        local_cluster(**{"distributed.scheduler.allowed-failures": 1}) as own,  # two workers a block
        distributed.Client(own),
        joblib.parallel_config("dask"),
        pytest.raises(BootstrapError, match=named),
        ordered_map(end, 3, 2, name="block {}".format, remedy="Type  less.") as results,
    ):
        list(results)


def until_two(path):
    """Say that this process has begun, and wait until another one has."""
    (path / f"begun.{os.getpid()}").touch()
    end = time.monotonic() + 20
    while len(list(path.glob("begun.*"))) < 2 and time.monotonic() < end:
        time.sleep(0.01)
    yield os.getpid()


def test_every_worker_is_given_items_at_once(dask, tmp_path):
    """Not just the one that holds the function, from which the others would steal after a second."""
    import distributed

    with distributed.Client(dask) as client:
        client.wait_for_workers(2)
        assert len(set(flat_map(until_two, [tmp_path] * 4, 1))) == 2


def test_errors_of_a_worker_name_the_file(folder, dask):
    import distributed

    model = IPWRA.from_formula("y ~ x1", scan(f"{folder}/*.parquet"), treat="d", family="binomial")
    with distributed.Client(dask), pytest.raises(DesignError, match=r"0.parquet, rows 0 to [0-9]+: outcome 'y' has"):
        model.fit()

"""A small cluster of Dask, whose processes are forked from one that has imported what they need."""

from __future__ import annotations

import contextlib
import multiprocessing
from multiprocessing import forkserver

PRELOADED = ["distributed.nanny", "causalrisk.models.estimators", "causalrisk.simulation.study", "tests.conftest"]


@contextlib.contextmanager
def local_cluster(**settings):
    """Two processes that do not steal from each other; Dask starts another for one that dies.

    They measure neither memory nor themselves, and tasks are fused, which takes half of the time.
    """
    import dask
    from distributed import LocalCluster

    multiprocessing.get_context("forkserver").set_forkserver_preload(PRELOADED)
    forkserver.ensure_running()  # before Dask asks for less; other processes import all of this for a second or two
    settings |= {
        "distributed.worker.multiprocessing-method": "forkserver",
        "distributed.scheduler.work-stealing": False,
        "distributed.worker.profile.enabled": False,
        "optimization.fuse.active": True,
    }
    with (
        dask.config.set(settings),
        LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=":0", silence_logs=50, memory_limit=None
        ) as made,
    ):
        yield made

"""A stand-in for `distributed` whose client works in this process, or fails in one way, for where Dask is not there."""

from __future__ import annotations

import contextlib
import sys
from concurrent.futures import CancelledError
from types import SimpleNamespace

import cloudpickle
import pytest


class KilledWorker(Exception):
    pass


class Future:
    def __init__(self, client, work):
        self.client, self.work = client, work

    def result(self):
        if self.client.failure is not None:
            raise self.client.failure
        return self.work()

    status = "cancelled"

    def done(self):
        return not isinstance(self.client.failure, TimeoutError)


def wait(futures, timeout):
    raise futures[0].client.failure


class Client:
    """A client; `failure` is what it raises in the place of results."""

    def __init__(self, failure=None, status="running", threads=1):
        self.failure, self.status, self.threads, self.left = failure, status, threads, []
        self.scheduler = SimpleNamespace(address="tcp://127.0.0.1:8786", ncores=self.nthreads)

    def nthreads(self):
        if isinstance(self.threads, OSError):
            raise self.threads
        return {"tcp://127.0.0.1:1": self.threads} if self.threads else {}

    def sync(self, function, callback_timeout):
        return function()

    def submit(self, function, *given, pure):
        def work():
            return function(*(one.result() if isinstance(one, Future) else one for one in given))

        return Future(self, work)

    def cancel(self, futures):
        self.left += futures


CLIENTS = {
    "works": lambda: Client(),
    "workers die": lambda: Client(KilledWorker("task", "worker")),
    "scheduler lost": lambda: Client(TimeoutError(), status="connecting"),
    "cancelled": lambda: Client(CancelledError(), status="closed"),
    "connection reset": lambda: Client(CancelledError(), status="closed", threads=ConnectionResetError()),
    "connection closed": lambda: Client(ConnectionResetError()),
    "no workers": lambda: Client(TimeoutError(), threads=0),
}


@contextlib.contextmanager
def cluster(kind):
    """As if the caller were inside of such a client, with no patience."""
    client = CLIENTS[kind]()
    distributed = SimpleNamespace(
        default_client=lambda: client,
        KilledWorker=KilledWorker,
        comm=SimpleNamespace(CommClosedError=ConnectionResetError),
        wait=wait,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "distributed", distributed)
        patch.setitem(sys.modules, "distributed.protocol.pickle", cloudpickle)
        for name in ("SCHEDULER_PATIENCE", "WORKER_PATIENCE"):
            patch.setattr(f"causalrisk.runtime.workers.{name}", 0.0)
        yield client

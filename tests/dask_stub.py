"""A stand-in for `distributed`: its client works in this process, or loses its workers."""

from __future__ import annotations

import contextlib
import sys
from types import SimpleNamespace

import cloudpickle
import pytest


class KilledWorker(Exception):
    pass


class Client:
    """A client; what is given to it is pickled, as on a cluster."""

    status = "running"

    def __init__(self, kind):
        self.kind, self.left = kind, []

    def nthreads(self):
        return {"tcp://127.0.0.1:1": 1}

    def scatter(self, function, broadcast, hash):
        return cloudpickle.dumps(function)

    def submit(self, function, work, item, pure):
        pickled = cloudpickle.dumps(item)

        def result():
            if self.kind == "workers die":
                raise KilledWorker("task", "worker")
            return function(cloudpickle.loads(work), cloudpickle.loads(pickled))

        return SimpleNamespace(result=result)

    def cancel(self, futures):
        self.left += futures


@contextlib.contextmanager
def cluster(kind):
    """As if the caller were inside of such a client: one that "works", or one whose "workers die"."""
    client = Client(kind)
    distributed = SimpleNamespace(
        default_client=lambda: client, KilledWorker=KilledWorker, comm=SimpleNamespace(CommClosedError=ConnectionError)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "distributed", distributed)
        yield client

"""Maps over items in order: in the caller's thread, in threads, on the caller's joblib backend, or on a Dask cluster.

The choice changes no digit: results come in the order of the items, and sums are formed here.
"""

from __future__ import annotations

import functools
import sys
import time
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import BrokenExecutor, CancelledError
from contextlib import closing, contextmanager, suppress
from itertools import chain
from typing import Any, TypeVar

from causalrisk.errors import BootstrapError
from causalrisk.runtime.interruptions import interruptions_kept
from causalrisk.runtime.memory import keep_freed_memory
from causalrisk.runtime.parallel import chosen_backend, driven, in_threads, joblib_map, streams, work_while

S = TypeVar("S")
T = TypeVar("T")
AHEAD, AHEAD_HERE = 2, 8  # items given out ahead for each thread of a cluster; of our own, where they are small
SMALLER_BLOCKS = "Type  scan(..., block_rows=50_000)  for less memory a worker, or start workers with more."
CARRIED = 2**20  # bytes up to which a function goes to a cluster with every item
LOOK = 1.0  # seconds between looks at a cluster that is at work
SCHEDULER_PATIENCE, WORKER_PATIENCE = 15.0, 120.0  # seconds without the scheduler, or without any worker
ANSWER_PATIENCE = 5.0  # seconds for an answer of the scheduler


def flat_map(
    function: Callable[[S], Iterator[T]], items: Iterable[S], workers: int, name: Callable[[S], str] = str
) -> Iterator[T]:
    """Yield all results of a generator function over the items, in the order of the items.

    Parameters
    ----------
    function : callable
        Work on one item. Elsewhere it is done as a whole before anything is yielded, and function and items are
        pickled.
    items : iterable
        The items; a few are taken ahead.
    workers : int
        Items worked on at a time. On a Dask cluster, that of the caller's `distributed.Client`, there are as many as it
        has threads.
    name : callable, optional
        Name of an item in messages.

    Yields
    ------
    object
        The results.

    Raises
    ------
    BootstrapError
        If workers died over an item, or the cluster is lost.
    """
    backend = chosen_backend() if workers > 1 else None
    client = active_client() or client_of(backend)
    if client is not None:
        yield from on_cluster(client, function, items, name=name, remedy=SMALLER_BLOCKS)
        return
    if backend is not None:
        workers = backend.effective_n_jobs(workers)  # 1, with joblib's warning, where it cannot start processes
    if workers == 1:
        yield from chain.from_iterable(map(function, items))
    elif backend is not None and streams(backend):
        yield from _on_joblib(function, items, workers)
    else:
        with driven(in_threads(functools.partial(_listed, function), items, workers, ahead=workers + 1)) as results:
            yield from results


@contextmanager
def ordered_map(
    function: Callable[[int], T], count: int, workers: int, name: Callable[[int], str] = str, remedy: str = ""
) -> Iterator[Iterator[T]]:
    """Map a function over 0 .. count-1, results in order; no work is left behind.

    Parameters
    ----------
    function : callable
        Work on one block.
    count : int
        Number of blocks.
    workers : int
        Blocks worked on at a time; 1 works in the calling thread.
    name : callable, optional
        Name of a block in messages.
    remedy : str, optional
        Advice where the workers of a Dask cluster die over a block.

    Yields
    ------
    iterator
        The results.
    """
    backend = chosen_backend() if min(workers, count) > 1 else None
    client = client_of(backend)
    if backend is not None and client is None:
        workers = backend.effective_n_jobs(workers)  # 1, with joblib's warning, where it cannot start processes
    alone = functools.partial(_alone, function)
    with interruptions_kept():
        if min(workers, count) == 1:
            yield map(interruptions_kept()(function), range(count))
        elif client is not None:
            with closing(on_cluster(client, alone, range(count), name=name, remedy=remedy)) as results:
                yield results
        elif backend is not None and streams(backend):
            with joblib_map(function, range(count), workers) as results:
                yield results
        else:
            with driven(in_threads(alone, range(count), workers, ahead=AHEAD_HERE * workers)) as results:
                yield results


def _alone(function: Callable[[S], T], item: S) -> list[T]:
    return [function(item)]


def client_of(backend: Any) -> Any:
    """Return the `distributed.Client` of joblib's Dask backend; None for others.

    The tasks are given to it by `on_cluster`: the backend itself does not hear of workers that die over a task or of a
    scheduler that is gone, and would wait for ever.
    """
    return backend.client if type(backend).__name__ == "DaskDistributedBackend" else None


def active_client() -> Any:
    """Return the `distributed.Client` whose context the caller is in, or that was made last; None without one.

    distributed is not imported: a caller who has a client has done that.
    """
    distributed = sys.modules.get("distributed")
    try:
        return None if distributed is None else distributed.default_client()
    except ValueError:  # raised where there is no client
        return None


def _listed(function: Callable[[S], Iterable[T]], item: S) -> list[T]:
    return [*function(item)]


def _on_joblib(function: Callable[[S], Iterator[T]], items: Iterable[S], workers: int) -> Iterator[T]:
    try:
        with joblib_map(functools.partial(_listed, function), items, workers) as results:
            yield from chain.from_iterable(results)
    except BrokenExecutor as error:
        raise BootstrapError(
            "a worker process died: the system ends a process that takes too much memory.\n"
            "Type  fit(n_jobs=1)  to stay in one process, or give scan a smaller block_rows=."
        ) from error


# --- Dask --------------------------------------------------------------------------------------------------------


def on_cluster(
    client: Any, function: Callable[[S], Iterable[T]], items: Iterable[S], *, name: Callable[[S], str], remedy: str
) -> Generator[T]:
    """Work on items on a Dask cluster: give out a few ahead, wait for the first, and give out the next.

    Parameters
    ----------
    client : distributed.Client
        Client of the cluster.
    function, items, name
        As in `flat_map`.
    remedy : str
        Advice where workers die over an item.

    Yields
    ------
    object
        The results, in the order of the items.

    Raises
    ------
    BootstrapError
        If workers died over an item, or the cluster is lost.
    """
    # Pickled once, as an interactive session asks for. What is small goes with every item: the scheduler hands a task
    # to a worker that has its input, and the others would wait until they steal it.
    pickled = sys.modules["distributed.protocol.pickle"].dumps(function)
    work = pickled if len(pickled) <= CARRIED else client.submit(bytes, pickled, pure=False)
    waiting = deque[tuple[Any, str]]()
    try:
        for item in items:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Sending large graph")  # a block of rows, which goes once
                future = client.submit(_by_worker, work, item, pure=False)
            waiting.append((future, name(item)))
            if len(waiting) >= AHEAD * max(_threads(client), 1):
                yield from _result(client, *waiting.popleft(), remedy)
        while waiting:
            yield from _result(client, *waiting.popleft(), remedy)
    finally:
        with suppress(OSError):  # raised where the scheduler has gone
            if client.status == "running":
                client.cancel([future for future, _ in waiting])


def _threads(client: Any) -> int:
    """Count the threads of a cluster; zero where the connection just breaks, which `_result` notices as well."""
    try:  # as client.nthreads(), which would try to connect for half a minute
        return sum(client.sync(client.scheduler.ncores, callback_timeout=ANSWER_PATIENCE).values())
    except OSError:
        return 0


def _by_worker(pickled: bytes, item: Any) -> list[Any]:
    """Work on an item in a Dask worker, which ends after its tasks, or is killed when some seconds are over."""
    worker = sys.modules["distributed"].get_worker()
    task = worker.state.tasks[worker.get_current_task()]
    function = sys.modules["distributed.protocol.pickle"].loads(pickled)
    keep_freed_memory()

    def wanted() -> bool:
        return task.state != "cancelled" and worker.status.name not in ("closing", "closed")

    return work_while(wanted, functools.partial(_listed, function), item)


def _result(client: Any, future: Any, name: str, remedy: str) -> Any:
    """Wait for a result as long as there is a cluster."""
    distributed, seen = sys.modules["distributed"], time.monotonic()
    try:
        while not future.done():
            try:
                distributed.wait([future], timeout=LOOK)
            except TimeoutError:
                seen = _with_cluster(client, seen)
        return future.result()
    except distributed.KilledWorker as error:
        raise BootstrapError(
            f"the Dask workers that were given {name} died one after the other: the system, or Dask's own watch, ends "
            f"a process that takes too much memory.\n{remedy}"
        ) from error
    except CancelledError as error:
        if future.status == "error":  # cancelled by a worker that closes, while the result is wanted
            future.retry()
            return _result(client, future, name, remedy)
        raise _lost(client) from error
    except distributed.comm.CommClosedError as error:
        raise _lost(client) from error


def _with_cluster(client: Any, seen: float) -> float:
    """Raise an error where the cluster has been away for long; the time at which it was last seen."""
    now = time.monotonic()
    if client.status != "running":
        if now - seen > SCHEDULER_PATIENCE:
            raise _lost(client)
        return seen
    if _threads(client):
        return now
    if now - seen > WORKER_PATIENCE:
        raise BootstrapError(
            f"the Dask cluster has had no worker for {WORKER_PATIENCE:.0f} seconds.\n"
            "Start workers, type  client.wait_for_workers(1),  then fit again."
        )
    return seen


def _lost(client: Any) -> BootstrapError:
    address = client.scheduler.address if client.scheduler else "its address"
    return BootstrapError(
        f"the Dask scheduler at {address} does not answer any more, and what its workers were doing is lost.\n"
        "Start it again, type  distributed.Client(address),  then fit again."
    )

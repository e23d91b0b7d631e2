"""The computer, what is installed on it, and what its processes have one of.

The computer: its memory, files written whole or not at all, versions.

A process has one number of threads of BLAS within matrix products: one while the package works, and whatever it was
before afterwards. Its products are many, long and narrow. Threads inside of them wait for each other: two threads took
1.6 to 15 times as long as one on a busy machine with two processors, from 4,642 rows by 10 columns to 20,000 by 400.
"""

from __future__ import annotations

import functools
import os
import platform
import secrets
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, BinaryIO

from threadpoolctl import ThreadpoolController

from causalrisk._version import __version__
from causalrisk.errors import OptionError

USUAL_MEMORY = 16e9  # bytes, where the system does not say


def memory() -> float:
    """Bytes of memory of this computer."""
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, OSError, ValueError):  # not on every system
        return USUAL_MEMORY


def free_memory(root: str = "/") -> float:
    """Bytes of memory that can be had without taking them from others.

    Parameters
    ----------
    root : str
        Root of the system's files.

    Returns
    -------
    float
        Memory that Linux calls available, or that the control group of the process (a container, a batch job) leaves of
        its limit, if that is less; on other systems all memory, or what psutil says where it is imported.
    """
    psutil = sys.modules.get("psutil")
    known = [memory() if psutil is None else float(psutil.virtual_memory().available)]
    known += [1024.0 * size for size in _lines(Path(root, "proc/meminfo"), "MemAvailable:")]
    for folder in _groups(Path(root)):
        for limit, used in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
            files_again = sum(_lines(folder / "memory.stat", "inactive_file"))  # in memory, and on a disk as well
            for most, now in zip(_lines(folder / limit), _lines(folder / used), strict=False):
                known.append(max(most - now + files_again, 0.0))
    return min(known)


def is_in_memory(folder: str, mounts: str = "/proc/mounts") -> bool:
    """Whether Linux says that the files of a folder are in memory, as those of /tmp are on some systems."""
    try:
        lines = [line.split() for line in Path(mounts).read_text().splitlines()]
    except OSError:
        return False
    path = Path(folder).resolve()
    kinds = {Path(where): kind for _, where, kind, *_ in lines if path.is_relative_to(where)}
    return bool(kinds) and kinds[max(kinds, key=lambda where: len(where.parts))] in ("tmpfs", "ramfs")


def _groups(root: Path) -> Iterator[Path]:
    """Control groups of the process, of both versions: their folders from its own up."""
    try:
        lines = Path(root, "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, kinds, path = line.split(":", 2)
        if kinds in ("", "memory"):
            top = root / "sys/fs/cgroup" / kinds
            own = top / path.lstrip("/")
            yield from (folder for folder in (own, *own.parents) if folder == top or top in folder.parents)


def _lines(path: Path, name: str = "") -> list[float]:
    """Return the number in the line of that name in a file of the system, as a list; empty where there is none."""
    try:
        words = [line.split() for line in path.read_text().splitlines()]
    except OSError:
        return []
    found = [line[1] for line in words if len(line) > 1 and line[0] == name] if name else [line[0] for line in words]
    return [float(number) for number in found[:1] if number.isdigit()]


PART = ".part"  # ending of a file that is not yet whole


def would_replace(given: str, what: str, typed: str) -> OptionError:
    """Make the error of an output file that is one of the files read.

    Parameters
    ----------
    given : str
        The option and its value.
    what : str
        Description of the file.
    typed : str
        Advice: the argument to type instead.

    Returns
    -------
    OptionError
        The error.
    """
    return OptionError(f"{given} is {what}, which would be replaced; expected another.\nType  {typed}")


def write_whole(path: str | os.PathLike[str], content: str | bytes) -> Path:
    """Write a file so that it is there whole or not at all, as `whole_file`.

    Parameters
    ----------
    path : str or path
        Where to write; a file that exists is replaced and keeps its permissions, a link stays a link.
    content : str or bytes
        Content; text is written in UTF-8.

    Returns
    -------
    Path
        The path as given.

    Raises
    ------
    OSError
        If the path, which is named, cannot be written; the former file is unchanged.
    """
    with whole_file(path) as stream:
        stream.write(content.encode() if isinstance(content, str) else content)
    return Path(path)


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a file that is replaced as a whole when the block is left, and stays as it was on an exception.

    The content goes into a file of its own beside the target, reaches the disk, and takes the target's place in one
    step. A target that is no plain file, such as /dev/stdout or a named pipe, is written as it is.

    Parameters
    ----------
    path : str or path
        As in `write_whole`.

    Yields
    ------
    binary file
        The open file.

    Raises
    ------
    OSError
        As in `write_whole`; one that names another file is left as it is.
    """
    given = Path(path)
    target = given.resolve()
    if target.exists() and not target.is_file():
        with target.open("wb") as stream:
            yield stream
        return
    part = target.parent / f".{target.name[:40]}-{secrets.token_hex(4)}{PART}"
    try:
        with part.open("xb") as stream:
            if target.exists():
                os.chmod(part, target.stat().st_mode & 0o777)
            yield stream
            stream.flush()
            # On the disk before it takes the old file's place: else a crash could leave an empty file under the name.
            os.fsync(stream.fileno())
        os.replace(part, target)
    except OSError as error:
        if error.errno is None or (error.filename is not None and str(error.filename) != str(part)):
            raise
        raise OSError(error.errno, error.strerror, str(given)) from error
    finally:
        part.unlink(missing_ok=True)


SHOWN = ("numpy", "scipy", "pandas", "patsy", "statsmodels", "matplotlib", "scikit-learn", "pyarrow", "polars")


def show_versions() -> None:
    """Print the versions of Python, the system, this package and what it uses, for a report of a fault.

    Examples
    --------
    >>> from causalrisk import show_versions
    >>> show_versions()
    causalrisk    ...
    Python        ...
    """
    found = {"causalrisk": __version__, "Python": sys.version.split()[0], "system": platform.platform()}
    for name in SHOWN:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    found["threads"] = f"OPENBLAS_NUM_THREADS={os.environ.get('OPENBLAS_NUM_THREADS')}, {os.cpu_count()} processors"
    for name, text in found.items():
        print(f"{name:<13} {text}")


_running: set[object] = set()  # blocks of `one_blas_thread` that have begun and not ended
_limiter: Any = None
_lock = threading.Lock()


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Give matrix products one thread in the block; the number before is back when the last of such blocks has ended.

    The number is one of the process, for BLAS has no other: blocks may be in each other, and in several threads.

    Yields
    ------
    None

    Examples
    --------
    >>> from threadpoolctl import threadpool_info
    >>> with one_blas_thread():
    ...     found = threadpool_info()
    >>> {each["num_threads"] for each in found if each["user_api"] == "blas"}
    {1}
    """
    global _limiter
    block = object()
    with _lock:
        _running.add(block)
        if _limiter is None:
            _limiter = _libraries().limit(limits=1, user_api="blas")
    try:
        yield
    finally:
        with _lock:
            _running.discard(block)
            if not _running and _limiter is not None:
                _limiter.restore_original_limits()
                _limiter = None


@functools.cache
def _libraries() -> ThreadpoolController:
    """Libraries that the process has loaded; to look for them takes longer than a product."""
    import scipy.linalg  # noqa: F401 - which has a BLAS of its own

    return ThreadpoolController()


def _after_fork() -> None:
    """Begin anew in a forked process: the threads that were in a block, or held the lock, are not in it."""
    global _lock
    _lock = threading.Lock()
    _running.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

"""Files written whole or not at all, so that an interruption or a full disk leaves the former file."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from causalrisk.errors import OptionError

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

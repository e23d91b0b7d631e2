"""Files written whole or not at all, so that an interruption or a full disk leaves what was there before."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

PART = ".part"  # ending of a file that is not yet whole


def write_whole(path: str | os.PathLike[str], content: str | bytes) -> Path:
    """Write a file so that it is there whole or not at all.

    The content goes into a file of its own beside the target, reaches the disk, and takes the target's place in one
    step. A target that is no plain file, such as /dev/stdout or a named pipe, is written as it is.

    Parameters
    ----------
    path : str or path
        Where to write; a file that exists is replaced and keeps its permissions, a link stays a link.
    content : str or bytes
        What to write; text in UTF-8.

    Returns
    -------
    Path
        The path as given.

    Raises
    ------
    OSError
        Naming the path, if it cannot be written; what was there is still there.
    """
    given, raw = Path(path), content.encode() if isinstance(content, str) else content
    target = given.resolve()
    if target.exists() and not target.is_file():
        with target.open("wb") as stream:
            stream.write(raw)
        return given
    part = target.parent / f".{target.name[:40]}-{secrets.token_hex(4)}{PART}"
    try:
        with part.open("xb") as stream:
            if target.exists():
                os.chmod(part, target.stat().st_mode & 0o777)
            stream.write(raw)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(part, target)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(given)) from error
    finally:
        part.unlink(missing_ok=True)
    return given

"""Where the coded rows of a scan are kept between the passes of a fit: in memory, on a disk, or nowhere."""

from __future__ import annotations

import math
import numbers
import os
import shutil
import tempfile
from dataclasses import dataclass
from typing import Any

from causalrisk.errors import OptionError, one_of
from causalrisk.runtime.memory import free_memory, is_in_memory

KEEP = ("auto", "memory", "disk", "nothing")
OF_MEMORY, OF_DISK = 0.25, 0.5  # shares of what is free that rows take where no budget is given


@dataclass(frozen=True)
class Keeping:
    """Options of `causalrisk.scan` on where coded rows are kept; they check themselves.

    Parameters
    ----------
    keep : {"auto", "memory", "disk", "nothing"}
        Where; "auto" is memory where they fit, else the disk where they fit, else nothing.
    folder : str, optional
        Folder of the disk; by default that of temporary files.
    budget : float, optional
        Bytes that the rows may take; by default a quarter of the free memory, or half of the room on the disk.
    """

    keep: str = "auto"
    folder: str | None = None
    budget: float | None = None

    def __post_init__(self) -> None:
        one_of("keep", self.keep, KEEP)
        number = isinstance(self.budget, numbers.Real) and not isinstance(self.budget, bool)
        if self.budget is not None and not (number and 0 < self.budget < math.inf):
            raise OptionError(
                f"budget={self.budget!r}; expected a number of bytes or None.\nType  budget=2e9  for 2 GB."
            )
        if self.folder is not None:
            _check_folder(self.folder)

    @property
    def place(self) -> str:
        """The folder of rows on a disk."""
        return tempfile.gettempdir() if self.folder is None else self.folder

    def chosen(self, size: float, taken: float = 0.0) -> tuple[str, str]:
        """Choose where some rows are kept.

        Parameters
        ----------
        size : float
            Their bytes.
        taken : float
            Bytes of the budget that other rows have already.

        Returns
        -------
        where : {"memory", "disk", "nothing"}
            The choice.
        why : str
            Why nothing is kept although something was to be; else empty.
        """
        if self.keep == "nothing":
            return "nothing", ""
        rooms = {"memory": self._most(free_memory(), OF_MEMORY, taken)}
        if self.keep == "disk" or self.folder is not None or not is_in_memory(self.place):
            rooms["disk"] = self._most(shutil.disk_usage(self.place).free, OF_DISK, taken)
        asked = rooms if self.keep == "auto" else {self.keep: rooms[self.keep]}
        for where, room in asked.items():
            if size <= room:
                return where, ""
        said = " and ".join(
            f"{room / 1e9:,.3g} GB {'of memory' if where == 'memory' else f'in {self.place!r}'}"
            for where, room in asked.items()
        )
        why = "what budget= and free room allow" if self.budget else "a quarter of free memory, half of a disk's room"
        return "nothing", f"the coded rows take {size / 1e9:,.3g} GB, and may take {said} ({why})"

    def _most(self, free: float, share: float, taken: float) -> float:
        return share * free if self.budget is None else min(self.budget - taken, free)


def _check_folder(folder: Any) -> None:
    """Raise an OptionError where a file cannot be made in a folder."""
    try:
        if not os.path.isdir(folder):
            raise NotADirectoryError("there is no such folder")
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (OSError, TypeError) as error:
        raise OptionError(
            f"folder={folder!r} cannot hold temporary files: {error}; expected a folder that can be written to.\n"
            f"Type  folder={tempfile.gettempdir()!r}, or leave it out."
        ) from error

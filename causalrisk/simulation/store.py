"""The folder of a study: a file for each finished part, written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from causalrisk._version import __version__
from causalrisk.errors import OptionError

SETTINGS = "study.json"


@dataclass(frozen=True)
class Store:
    """A folder of finished parts.

    Parameters
    ----------
    folder : Path
        The folder.
    entropy : int or list of int
        Root of all random numbers of the study in it.
    """

    folder: Path
    entropy: Any

    @classmethod
    def open(cls, folder: Path, settings: dict[str, Any], entropy: Any, fresh: bool) -> Store:
        """Make the folder of a study, or go on with it.

        Parameters
        ----------
        folder : Path
            The folder.
        settings : dict
            What must not change when a study goes on.
        entropy : int or sequence of int
            Root of all random numbers.
        fresh : bool
            Whether the entropy was drawn, not asked for; that of the folder then takes its place.

        Returns
        -------
        Store
            The store.

        Raises
        ------
        OptionError
            If the folder holds another study.
        """
        file, wanted = folder / SETTINGS, settings | {"entropy": entropy, "version": __version__}
        if file.exists():
            there = json.loads(file.read_text("utf-8"))
            ours = wanted | ({"entropy": there.get("entropy")} if fresh else {})
            for name, value in ours.items():
                if there.get(name) != value:
                    raise OptionError(
                        f"path={str(folder)!r} holds a study with another {name}: {there.get(name)!r}, here {value!r}."
                        "\nGive another path=, or the same settings as then."
                    )
            return cls(folder, there["entropy"])
        folder.mkdir(parents=True, exist_ok=True)
        _write(file, json.dumps(wanted, indent=1))
        return cls(folder, entropy)

    def load(self, key: str, count: int) -> pd.DataFrame | None:
        """Return the part of a key, or None if it is not there with at least so many samples."""
        file = self._file(key)
        if not file.exists():
            return None
        exact = {"estimate": float, "se": float}  # pandas' own parser may lose the last digit
        frame = pd.read_csv(file, converters=exact, keep_default_na=False)
        first = frame["sample"].min()
        frame = frame[frame["sample"] < first + count]
        return frame if frame["sample"].nunique() == count else None

    def save(self, key: str, frame: pd.DataFrame) -> None:
        """Write the part of a key."""
        _write(self._file(key), frame.to_csv(index=False, na_rep="nan"))

    def _file(self, key: str) -> Path:
        readable = re.sub(r"[^A-Za-z0-9.]+", "-", key).strip("-")[:80]
        return self.folder / f"{readable}-{hashlib.sha256(key.encode()).hexdigest()[:8]}.csv"


def _write(file: Path, text: str) -> None:
    """Write a file so that it is there whole or not at all."""
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=".", suffix=".part")
    with os.fdopen(handle, "w", encoding="utf-8", newline="") as stream:
        stream.write(text)
    os.replace(name, file)

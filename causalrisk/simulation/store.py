"""The folder of a study: a file for each finished part, written whole or not at all."""

from __future__ import annotations

import hashlib
import io
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from causalrisk._version import __version__
from causalrisk.errors import OptionError
from causalrisk.runtime.files import write_whole

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
            Settings that must not change when a study goes on.
        entropy : int or sequence of int
            Root of all random numbers.
        fresh : bool
            Whether the entropy was drawn, not asked for; the folder's entropy then takes its place.

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
            there = _settings(file)
            ours = wanted | ({"entropy": there.get("entropy")} if fresh else {})
            for name, value in ours.items():
                if _comparable(there.get(name)) != _comparable(value):
                    raise OptionError(
                        f"path={str(folder)!r} holds a study with another {name}: {there.get(name)!r}, here {value!r}."
                        "\nGive another path=, or the same settings as then."
                    )
            return cls(folder, there["entropy"])
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(file, json.dumps(wanted, indent=1))
        return cls(folder, entropy)

    @staticmethod
    def holds(folder: Path, path: Path) -> bool:
        """Return True if a file is one that the store of a folder keeps, by its name."""
        ours = path.name == SETTINGS or re.fullmatch(r".+-[0-9a-f]{8}\.csv", path.name) is not None
        return ours and path.resolve().parent == folder.resolve()

    def load(self, key: str, count: int) -> pd.DataFrame | None:
        """Return the stored part of a key, or None unless it has at least so many samples."""
        file = self._file(key)
        if not file.exists():
            return None
        exact = {"estimate": float, "se": float}  # pandas' own parser may lose the last digit
        try:
            text = file.read_text("utf-8")
            frame = pd.read_csv(io.StringIO(text), converters=exact, keep_default_na=False, dtype={"sample": "int64"})
            first, sizes = frame["sample"].min(), frame.groupby("sample").size()
            if not text.endswith("\n") or sizes.nunique() != 1:
                raise ValueError("its last sample is not whole")
        except (KeyError, ValueError) as error:  # pandas' own errors are ValueErrors
            raise OptionError(
                f"{str(file)!r} is no finished part of a study ({error!s:.80}); it was cut off or changed.\n"
                "Delete that file: its samples are computed again, the others are kept."
            ) from error
        frame = frame[frame["sample"] < first + count]
        return frame if frame["sample"].nunique() == count else None

    def save(self, key: str, frame: pd.DataFrame) -> None:
        """Write the part of a key."""
        write_whole(self._file(key), frame.to_csv(index=False, na_rep="nan"))

    def _file(self, key: str) -> Path:
        readable = re.sub(r"[^A-Za-z0-9.]+", "-", key).strip("-")[:80]
        return self.folder / f"{readable}-{hashlib.sha256(key.encode()).hexdigest()[:8]}.csv"


def _settings(file: Path) -> dict[str, Any]:
    """Read the settings of a study."""
    try:
        found = json.loads(file.read_text("utf-8"))
    except ValueError as error:  # also raised by the decoder
        found = error
    if isinstance(found, dict) and "entropy" in found:
        return found
    raise OptionError(
        f"{str(file)!r} does not hold the settings of a study ({found!s:.80}); it was cut off or changed.\n"
        "Give another path=, or delete that folder."
    )


def _comparable(value: Any) -> Any:
    """Return settings without the modules that estimators were defined in: moving them changes no number."""
    if isinstance(value, list):
        return [_comparable(item) for item in value]
    return re.sub(r"(?<=: )[\w.<>]*\.(?=[\w<>]+ \{)", "", value) if isinstance(value, str) else value

"""Scanned data: the `Scan` that `causalrisk.scan` returns, how Dask reads its parts, and rules for CSV files."""

from __future__ import annotations

import glob
import itertools
import os
import shutil
import struct
import tempfile
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeVar
from zipfile import BadZipFile

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from causalrisk.design.formulas import PARSER
from causalrisk.design.tables import as_pandas, listing, nearest
from causalrisk.errors import CausalRiskError, DesignError, OptionError, needed
from causalrisk.runtime import with_one_thread

T = TypeVar("T")
PARQUET, CSV = (".parquet", ".pq"), (".csv", ".csv.gz")
# Missing values in CSV files: the defaults of pandas except "None", which is more often a level ("no treatment").
MISSING = (
    "", "NA", "N/A", "n/a", "#N/A", "#N/A N/A", "#NA", "<NA>", "NaN", "nan", "-NaN", "-nan", "NULL", "null",
    "1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN",
)  # fmt: skip
OPTIONS: dict[str, Any] = {"keep_default_na": False, "index_col": False, "low_memory": False}


class Part(NamedTuple):
    """A file, a frame, or a part of a Dask data frame or Arrow dataset.

    `source` is a frame, or a picklable function (columns, maximum rows per frame) that yields frames.
    """

    where: str
    source: Any = None


Frame = tuple[str, pd.DataFrame]  # a name for messages, and consecutive rows of the data


# --- errors that name a file -----------------------------------------------------------------------------------------


UNREADABLE = "Check that it is complete, that text is UTF-8, and that each column has the same type in all files."


@contextmanager
def naming(where: str, advice: str = "") -> Iterator[None]:
    """Put `where` before the message of a DesignError, and `advice` after it."""
    try:
        yield
    except DesignError as error:
        raise DesignError(f"{where}: {error}{advice}") from error


@contextmanager
def reading(where: str, advice: str = UNREADABLE) -> Iterator[None]:
    """Turn errors in reading into a DesignError that names the file or frame."""
    try:
        yield
    except CausalRiskError:
        raise
    except (ImportError, LookupError, NotImplementedError, OSError, ValueError, BadZipFile, struct.error) as error:
        raise DesignError(f"{where} cannot be read: {error}\n{advice}") from error


# --- Dask, and files in a temporary folder ---------------------------------------------------------------------------


def needed_dask() -> Any:
    """Return Dask. Raise an UnavailableError if it is not installed."""
    with needed("data on disk need Dask", '"causalrisk[scale]"'):
        import dask.delayed
    return dask


def computed(works: Iterable[Callable[..., T]], *sources: Iterable[Any]) -> list[T]:
    """Run functions with Dask, and return the results in order. With `sources`, each function gets its source."""
    dask = needed_dask()
    delayed = partial(dask.delayed, pure=False, traverse=False)
    tasks = [delayed(partial(with_one_thread, work))(*own) for work, *own in zip(works, *sources, strict=True)]
    with warnings.catch_warnings():  # pandas sets filters in its threads, and may not restore them
        return list(dask.compute(*tasks))


class Folder:
    """A temporary folder. It is deleted with the last reference to this object in its process, or when Python ends."""

    def __init__(self) -> None:
        self.path = tempfile.mkdtemp(prefix="causalrisk-", dir=needed_dask().config.get("temporary-directory", None))
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)


def mapped(folder: Folder, name: str) -> NDArray[Any]:
    """Return an array that was saved in a folder, memory-mapped."""
    with PARSER:  # np.load parses the header
        return np.load(f"{folder.path}/{name}.npy", mmap_mode="r")


def lazily_mapped(folder: Folder, names: Iterable[str]) -> Any:
    """Return arrays that were saved in a folder as one Dask array. Each is a chunk, memory-mapped where it is used."""
    import dask.array as da

    load = needed_dask().delayed(mapped, traverse=False)
    parts = ((load(folder, name), mapped(folder, name)) for name in names)
    return da.concatenate([da.from_delayed(lazy, own.shape, own.dtype) for lazy, own in parts])


# --- rows ------------------------------------------------------------------------------------------------------------


def check_columns(there: Iterable[Any], columns: Sequence[str] | None, where: str) -> None:
    """Raise a DesignError if a column is missing."""
    known = [str(name) for name in there]
    for name in columns or ():
        if name not in known:
            raise DesignError(f"{where} has no column {name!r}, which is needed.\n{nearest(name, known)}")


def _frames(source: Any, where: str, columns: Sequence[str] | None, most: int) -> Iterator[Frame]:
    done = 0
    with reading(where):
        for whole in [source] if isinstance(source, pd.DataFrame) else source(columns, most):
            check_columns(whole.columns, columns, where)
            chosen = whole if columns is None else whole.loc[:, whole.columns.map(str).isin(columns)]
            for first in range(0, len(chosen), most):
                rows = chosen.iloc[first : first + most]
                yield f"{where}, rows {done + first} to {done + first + len(rows) - 1}", rows
            done += len(chosen)


@dataclass(frozen=True, repr=False)
class Scan:
    """Data on disk, or too large to be processed at once. Made by `causalrisk.scan`.

    Parameters
    ----------
    parts : tuple of Part
        Files, frames, or parts of a data frame or dataset.
    names : list of str
        Names of the columns of the first part. The other parts must have the columns that a model uses.
    frame : Dask DataFrame or None
        The Dask data frame that the parts belong to.
    part_rows : int
        Maximum number of rows that are read and coded at a time.
    """

    parts: tuple[Part, ...]
    names: list[str]
    frame: Any = None
    part_rows: int = 250_000

    def __repr__(self) -> str:
        return f"Scan: {len(self.parts)} parts, the first {self.parts[0].where}"

    def read(self, function: Callable[[int, Iterator[Frame]], list[T]], columns: Any = None) -> list[T]:
        """Read the parts with Dask, and return the lists `function(number, frames)` of all parts as one list."""
        sources = [part.source for part in self.parts]
        if self.frame is not None:
            names = [name for name in self.frame.columns if columns is None or str(name) in columns]
            sources = self.frame[names].to_delayed()
        most = self.part_rows  # a task that used `self` would hold all parts

        def read_part(k: int, where: str, source: Any) -> list[T]:
            return function(k, _frames(source, where, columns, most))

        works = [partial(read_part, k, part.where) for k, part in enumerate(self.parts)]
        return list(itertools.chain.from_iterable(computed(works, sources)))

    def collect(self) -> pd.DataFrame:
        """Read all rows into memory.

        Returns
        -------
        DataFrame
            All rows, numbered from 0, with the columns of the first part.
        """
        found = self.read(lambda _, frames: list(frames), self.names)
        return pd.concat([rows for _, rows in found], ignore_index=True)


def scan(source: Any) -> Scan:
    """Open data that are on disk or too large for memory. A model keeps only the columns that it uses.

    Parameters
    ----------
    source : str, path or DataFrame, list of these, Dask DataFrame, or Arrow dataset
        Names of Parquet or CSV files, with ``*`` and ``?`` as wildcards; data frames; a Dask data frame; or a
        ``pyarrow.dataset.Dataset``.

    Returns
    -------
    Scan
        Object to use as `data` in `from_formula` of any estimator.

    Raises
    ------
    DesignError
        If no file matches, or a file is neither Parquet nor CSV.
    UnavailableError
        If Dask is not installed, or Parquet files are given and pyarrow is not installed.
    OptionError
        If the source has another type.

    Notes
    -----
    A model reads the data once, and writes the values that it needs to a temporary folder. The folder is deleted with
    the model, or when Python ends.

    Examples
    --------
    >>> from causalrisk import IPWRA, datasets, scan
    >>> births = datasets.load_cattaneo2()
    >>> IPWRA.from_formula(
    ...     "bweight ~ mage + medu",
    ...     scan([births[:2000], births[2000:]]),
    ...     treat="mbsmoke",
    ... ).fit()
    IPWRA: ATE -256.86 (24.38), 1 vs 0, n 4642
    """
    needed_dask()
    if isinstance(source, Scan):
        return source
    frame, items = None, [as_pandas(item) for item in (source if isinstance(source, list | tuple) else [source])]
    if _library(source) == "dask":
        frame, names = source, source.columns
        parts = [Part(f"partition {k + 1} of the Dask data frame") for k in range(source.npartitions)]
    elif _library(source) == "pyarrow":
        parts, names = _arrow_parts(source), source.schema.names
    elif items and all(isinstance(item, str | os.PathLike) for item in items):
        paths = {os.path.realpath(path): path for item in items for path in _matching(os.fspath(item))}  # each once
        parts = [Part(path, partial(_csv if path.lower().endswith(CSV) else _parquet, path)) for path in paths.values()]
        first = parts[0].where
        with reading(first):
            names = csv_names(first) if first.lower().endswith(CSV) else _dataset(first).schema.names
    elif items and all(isinstance(item, pd.DataFrame) for item in items):
        parts, names = [Part(f"block {k + 1}", each) for k, each in enumerate(items)], items[0].columns
    else:
        expected = "names of files, data frames, a Dask data frame or an Arrow dataset"
        raise OptionError(f'scan got a {type(source).__name__}; expected {expected}.\nUse `scan("folder/*.parquet")`.')
    return Scan(tuple(parts), list(dict.fromkeys(map(str, names))), frame)


# --- files -----------------------------------------------------------------------------------------------------------


def _matching(pattern: str) -> list[str]:
    found = sorted(glob.glob(pattern, recursive=True)) if glob.has_magic(pattern) else [pattern]
    odd = [path for path in found if not path.lower().endswith((*PARQUET, *CSV)) or not os.path.isfile(path)]
    if odd or not found:
        what = f"{odd[0]!r} is not a file" if found else f"no file matches {pattern!r}"
        advice = f"Check the folder {os.path.dirname(os.path.abspath(pattern))!r}"
        expected = f"expected names that end in {listing((*PARQUET, *CSV))}"
        raise DesignError(f"{what}; {expected}.\n{advice}, and convert other formats with `DataFrame.to_parquet`.")
    return found


def read_csv(path: str | os.PathLike[str], *, na_values: Sequence[str] = (), most: Any = None, **options: Any) -> Any:
    """Read a CSV file. Empty cells and the words in `MISSING` and `na_values` count as missing in every column."""
    csv_names(path, **options)
    return pd.read_csv(path, na_values=[*MISSING, *na_values], chunksize=most, **OPTIONS, **options)


def csv_names(path: str | os.PathLike[str], **options: Any) -> list[str]:
    """Return the column names. Duplicates, or too many fields in the first row, raise an error, unlike in pandas."""
    names = pd.read_csv(path, header=None, nrows=2, dtype=str, na_filter=False, **options).iloc[0]
    twice = names[names.duplicated() & (names != "")]
    if len(twice):
        count = (names == twice.iloc[0]).sum()
        raise DesignError(f"{path} has {count} columns {twice.iloc[0]!r}; expected one.\nRename the others.")
    return [name or f"Unnamed: {k}" for k, name in enumerate(names)]  # as pandas calls them


def _csv(path: str, columns: Any, most: int) -> Iterator[pd.DataFrame]:
    with read_csv(path, most=most) as frames:
        yield from frames  # all columns, because pandas then checks their number


def _dataset(path: str) -> Any:
    with needed(f"{path!r} is a Parquet file, and needs pyarrow", '"causalrisk[scale]"'):
        import pyarrow.dataset
    return pyarrow.dataset.dataset(path, format="parquet")


def _parquet(path: str, columns: Any, most: int) -> Iterator[pd.DataFrame]:
    dataset = _dataset(path)
    for fragment in dataset.get_fragments():
        yield from _arrow(fragment, dataset.schema, columns, most)


def _arrow_parts(dataset: Any) -> list[Part]:
    """Return the fragments of an Arrow dataset, such as its files. A filtered dataset is a single part."""
    try:
        fragments = list(dataset.get_fragments())
    except ValueError:  # the dataset is filtered, but its fragments are not
        return [Part("the Arrow dataset", partial(_batches, dataset.scanner))]
    if not fragments:
        raise DesignError("the Arrow dataset has no files; expected at least one.\nCheck its folder.")
    names = [getattr(each, "path", "") or f"fragment {k} of the Arrow dataset" for k, each in enumerate(fragments, 1)]
    return [Part(name, partial(_arrow, each, dataset.schema)) for name, each in zip(names, fragments, strict=True)]


def _arrow(fragment: Any, schema: Any, columns: Any, most: int) -> Iterator[pd.DataFrame]:
    """Read a fragment of a dataset. Raise an error if its file lacks a column, which Arrow would fill with nulls."""
    import pyarrow.dataset

    in_folders = pyarrow.dataset.get_partition_keys(fragment.partition_expression)
    there = [*fragment.physical_schema.names, *in_folders]
    check_columns(there, columns, getattr(fragment, "path", "a fragment of the Arrow dataset"))
    yield from _batches(partial(fragment.scanner, schema), columns, most)


def _batches(scanner: Callable[..., Any], columns: Any, most: int) -> Iterator[pd.DataFrame]:
    few = {"batch_size": most, "batch_readahead": 1, "fragment_readahead": 1, "use_threads": False}
    for batch in scanner(columns=columns, **few).to_batches():
        yield batch.to_pandas()


def _library(data: Any) -> str:
    """Return "dask" for a Dask data frame, "pyarrow" for an Arrow dataset, and "" for anything else."""
    library = type(data).__module__.partition(".")[0]
    return library if hasattr(data, {"dask": "get_partition", "pyarrow": "get_fragments"}.get(library, "")) else ""


def as_scan(data: Any) -> Any:
    """Turn a Dask data frame or an Arrow dataset into a scan. Anything else is returned unchanged."""
    return scan(data) if _library(data) else data

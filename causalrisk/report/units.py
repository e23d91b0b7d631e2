"""`write_units`, a method of results: scores, weights and predictions of every row, as a Parquet file."""

from __future__ import annotations

import os
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from causalrisk.design import ScannedDesign
from causalrisk.design.columns.dtypes import listing
from causalrisk.design.scan.files import PARQUET
from causalrisk.errors import OptionError, UnavailableError, whole_number
from causalrisk.estimators.record import FitRecord
from causalrisk.inference.units import unit_frames
from causalrisk.runtime.files import whole_file, would_replace


def write_units(record: FitRecord, path: str | os.PathLike[str], *, n_jobs: int = 1, progress: bool = False) -> Path:
    """Write propensity scores, importance weights and predicted potential outcomes to a Parquet file (needs pyarrow).

    A row is a row of the estimation sample, in the order of the data. Of a scan they are worked out in one more pass
    over the data and written block by block, so that they need not fit into memory.

    Parameters
    ----------
    path : str or path
        Where to write: a name that ends in ".parquet" or ".pq". The file is there whole or not at all; one that exists
        is replaced.
    n_jobs : int, default 1
        As in `fit`, of a scan; what is written for a piece of it, such as a whole CSV file, is then in memory at once.
        The numbers do not depend on it.
    progress : bool, default False
        Show on standard error how many rows of a scan are done.

    Returns
    -------
    Path
        Path of the file.

    Raises
    ------
    UnavailableError
        If pyarrow is not installed, or the model came from a file and does not know its scan any more.
    OptionError
        If the path has another ending, or is a file of the scan.
    OSError
        If the file cannot be written; the former file is unchanged.

    Notes
    -----
    The columns are

    - "row": number of the row in all data, from 0, those counted that are not in the sample;
    - "arm": label of its arm, categories in the order of the arms;
    - "propensity", or with several arms "propensity[arm]" for each: as `propensity_scores`; not there without a
      propensity model;
    - "weight": as `importance_weights`;
    - "potential_outcome[arm]" for each arm: as `potential_outcomes`; not there for JRE, whose arm models say nothing of
      single units (``res.start``, the IPWRA fit it started from, writes them).

    Examples
    --------
    >>> import tempfile
    >>> import pandas as pd
    >>> from causalrisk import IPWRA, datasets
    >>> births = datasets.load_cattaneo2()
    >>> res = IPWRA.from_formula("bweight ~ mage", births, treat="mbsmoke").fit()
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     units = pd.read_parquet(res.write_units(f"{folder}/units.parquet"))
    >>> units.head(2).round(2)
       row arm  propensity  weight  potential_outcome[0]  potential_outcome[1]
    0    0   0        0.20    1.25               3379.23               3140.41
    1    1   0        0.24    1.32               3331.69               3151.87
    """
    if n_jobs != -1:
        whole_number("n_jobs", n_jobs, 1)
    _check_path(record, os.fspath(path))
    arrow = _arrow(os.fspath(path))
    with whole_file(path) as stream, closing(unit_frames(record, n_jobs, progress)) as frames, ExitStack() as opened:
        writer = None
        for frame in frames:
            table = arrow.Table.from_pandas(frame, preserve_index=False)
            if writer is None:
                writer = opened.enter_context(arrow.parquet.ParquetWriter(stream, table.schema))
            writer.write_table(table)
    return Path(path)


def _check_path(record: FitRecord, path: str) -> None:
    """Refuse names of other kinds of files, and to replace the data."""
    if not path.lower().endswith(PARQUET):
        raise OptionError(
            f"path={path!r} is no Parquet file by its name; expected one that ends in {listing(PARQUET)}.\n"
            'Type  res.write_units("units.parquet").'
        )
    if isinstance(record.design, ScannedDesign) and record.design.reads(path):
        raise would_replace(f"path={path!r}", "one of the files of the scan", 'res.write_units("units.parquet").')


def _arrow(path: str) -> Any:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise UnavailableError(
            f"{path!r} is to be a Parquet file, which needs pyarrow; it is not installed.\nType  pip install pyarrow."
        ) from error
    return pyarrow

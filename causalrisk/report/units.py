"""`write_units`, a method of results: scores, weights and predictions of every row, as a Parquet file."""

from __future__ import annotations

import functools
import os
from collections.abc import Generator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from causalrisk.design import ScannedDesign
from causalrisk.design.columns.dtypes import listing
from causalrisk.design.design import by_rows, unit_level
from causalrisk.design.scan.encode import CodedBlock, PassCounter
from causalrisk.design.scan.files import PARQUET
from causalrisk.errors import OptionError, UnavailableError, whole_number
from causalrisk.estimators.outcome import predictions
from causalrisk.estimators.problem import ScannedProblem
from causalrisk.estimators.record import FitRecord, of_means
from causalrisk.estimators.sample import Sample
from causalrisk.numerics.linalg import Array
from causalrisk.runtime.system import whole_file, would_replace
from causalrisk.runtime.workers import worker_count


@of_means
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


def check_kept(record: FitRecord) -> None:
    """Refuse a result of one number a row for a scan, whose rows are not kept."""
    if isinstance(record.design, ScannedDesign):
        raise unit_level() if record.design.knows_scan else by_rows()


def _frame(
    sample: Sample,
    labels: tuple[str, ...],
    position: NDArray[np.intp],
    probabilities: Array | None,
    weights: Array,
    predicted: Array | None,
) -> pd.DataFrame:
    """Return a table of the rows of a sample in the order of the data; `position` has their numbers there.

    Probabilities are None where there is no propensity model, predictions for JRE; both are of shape (K, n).
    """

    def by_arm(name: str, values: Array) -> dict[str, Array]:
        return {f"{name}[{label}]": sample.restore(own) for label, own in zip(labels, values, strict=True)}

    columns = {"row": position, "arm": pd.Categorical.from_codes(sample.restore(sample.arm), list(labels))}
    if probabilities is not None and len(labels) == 2:
        columns["propensity"] = sample.restore(probabilities[1])
    elif probabilities is not None:
        columns |= by_arm("propensity", probabilities)
    columns["weight"] = sample.restore(weights)
    return pd.DataFrame(columns | ({} if predicted is None else by_arm("potential_outcome", predicted)))


def unit_frames(record: FitRecord, n_jobs: int, progress: bool) -> Generator[pd.DataFrame]:
    """Yield scores, weights and predictions of every row: in memory one frame, of a scan one for each block.

    Parameters
    ----------
    record : FitRecord
        The fit.
    n_jobs, progress
        As in `fit`, of a scan.

    Yields
    ------
    DataFrame
        The rows in the order of the data: their number in all data ("row"), their arm ("arm"), then, where the fit
        has them, "propensity", "weight" and "potential_outcome[...]".
    """
    design, fit = record.design, record.weight_fit
    if not isinstance(design, ScannedDesign):
        yield _frame(
            record.sample,
            design.labels,
            np.flatnonzero(design.in_sample),
            probabilities=None if fit is None else fit.probabilities,
            weights=np.ones(record.sample.n) if fit is None or not record.spec.uses_propensity else fit.undivided,
            predicted=None if record.joint is not None else record.estimate.predicted,
        )
        return
    problem = ScannedProblem(
        design=design,
        spec=record.spec,
        options=record.options,
        target=record.target,
        n_frame=0 if record.frame is None else len(record.frame.X),
    )
    theta = None if record.joint is not None else record.estimate.theta
    of_block = functools.partial(_of_block, problem, None if fit is None else fit.gamma, theta)
    yield from design.over(of_block, worker_count(n_jobs, None, design.block_bytes), PassCounter(shown=progress))


def _of_block(problem: ScannedProblem, gamma: Array | None, theta: Array | None, coded: CodedBlock) -> pd.DataFrame:
    """Compute the units of a block under propensity and outcome coefficients."""
    block = problem.block(coded)
    probabilities, weights, _ = (None, np.empty(0), None) if gamma is None else block.scored(gamma)
    return _frame(
        block.sample,
        problem.design.labels,
        np.arange(0) if coded.row is None else coded.row,
        probabilities=probabilities,
        weights=weights if problem.spec.uses_propensity else np.ones(block.sample.n),
        predicted=None if theta is None else predictions(block.sample, problem.spec, theta),
    )

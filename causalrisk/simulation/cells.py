"""The double-robustness exercise: each of the two models right or wrong."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from causalrisk.errors import OptionError
from causalrisk.simulation.designs import find_design
from causalrisk.simulation.population import Specified
from causalrisk.simulation.results import StudyResults
from causalrisk.simulation.study import run_study


def four_cells(
    design: Any = "doubly_wrong",
    *,
    n: int | Sequence[int] = 500,
    n_sims: int = 200,
    estimators: Any = None,
    rng: Any = 0,
    n_jobs: int = 1,
    progress: bool = False,
    n_boot: int = 0,
    path: str | Path | None = None,
    reference: str = "IPWRA",
) -> StudyResults:
    """Fit the same samples with each of the two models right or wrong.

    Parameters
    ----------
    design : Design or name, default "doubly_wrong"
        A design of which both formulas are wrong and both right ones are known, such as "kang_schafer".
    n, n_sims, estimators, rng, n_jobs, progress, n_boot, path, reference
        As in `run_study`.

    Returns
    -------
    StudyResults
        The designs are the four cells.

    Raises
    ------
    OptionError
        If the design has no right and wrong formulas.

    Examples
    --------
    >>> from causalrisk import simulation
    >>> design = simulation.designs.DoublyWrong(curvature=0.5)
    >>> names = ["OutcomeRegression", "Hajek", "AIPW"]
    >>> cells = simulation.four_cells(design, n=1000, n_sims=20, estimators=names)
    >>> cells.table["bias"].unstack().round(1)[names] + 0.0
    estimator              OutcomeRegression  Hajek  AIPW
    design           n
    both right       1000                0.0    0.0   0.0
    both wrong       1000                0.2    0.3   0.4
    outcome wrong    1000                0.2    0.0   0.0
    propensity wrong 1000                0.0    0.3   0.0
    """
    base = find_design(design)
    right, right_propensity = base.oracle_formula, base.oracle_propensity
    if right in (None, base.formula) or right_propensity in (None, base.propensity):
        raise OptionError(
            f"design={base.name!r} does not have both formulas wrong and right ones known.\n"
            'Type  design="doubly_wrong"  or  design="kang_schafer".'
        )
    formulas = {"right": str(right), "wrong": base.formula}
    propensities = {"right": str(right_propensity), "wrong": base.propensity}
    cells = [
        Specified(base, label, formulas[outcome], propensities[treatment])
        for label, outcome, treatment in (
            ("both right", "right", "right"),
            ("outcome wrong", "wrong", "right"),
            ("propensity wrong", "right", "wrong"),
            ("both wrong", "wrong", "wrong"),
        )
    ]
    return run_study(
        cells,
        n=n,
        n_sims=n_sims,
        estimators=estimators,
        rng=rng,
        n_jobs=n_jobs,
        progress=progress,
        n_boot=n_boot,
        path=path,
        reference=reference,
    )

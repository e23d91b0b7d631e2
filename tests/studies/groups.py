"""Studies whose estimators run one group after the other, each with a folder of its own."""

from __future__ import annotations

import pandas as pd

from causalrisk.simulation import run_study
from causalrisk.simulation.results import StudyResults


def run_in_groups(design, groups, path=None, run=run_study, **options):
    """Run a study group by group: what is stored of one group stays when another is changed or added.

    Parameters
    ----------
    design : Design, name, or sequence of them
        As in `run_study`.
    groups : mapping of str to estimators
        Estimators of `run_study` by the name of the group.
    path : Path, optional
        Folder, in which each group has its own.
    run : callable, default `run_study`
        What runs a group, `four_cells` for instance.
    **options
        Further options of `run`.

    Returns
    -------
    StudyResults
        Of all estimators, on the same samples.
    """
    parts = [
        run(design, estimators=estimators, path=path and path / name, **options) for name, estimators in groups.items()
    ]
    first, raw = parts[0], pd.concat([part.raw for part in parts], ignore_index=True)
    return StudyResults(raw, first.designs, first.reference, first.entropy, first.n_boot)

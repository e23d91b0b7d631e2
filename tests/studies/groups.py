"""Studies that are kept in a folder, and studies whose estimators run one group after the other."""

from __future__ import annotations

import hashlib
import json

import pandas as pd

import causalrisk as cr
from causalrisk.simulation import run_study
from causalrisk.simulation.results import StudyResults


def kept(folder, design, run=run_study, n_jobs=1, progress=False, **options):
    """Run a study and keep it in a file of the folder, or read it if it was finished there.

    A file is of one version and one set of options. Use another folder after a change of the code of an estimator or
    design.

    Parameters
    ----------
    folder : Path or None
        Folder for finished studies; None keeps nothing.
    design : Design, name, or sequence of them
        As in `run_study`.
    run : callable, default `run_study`
        What runs the study, `four_cells` for instance.
    n_jobs, progress, **options
        Options of `run`.

    Returns
    -------
    StudyResults
        The study.
    """
    settings = [cr.__version__, run, design, options]
    text = json.dumps(settings, default=lambda item: getattr(item, "__qualname__", repr(item)))
    file = folder and folder / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.pickle"
    if file and file.exists():
        return cr.load(file)
    study = run(design, n_jobs=n_jobs, progress=progress, **options)
    if file:
        folder.mkdir(parents=True, exist_ok=True)
        study.save(file)
    return study


def run_in_groups(design, groups, folder=None, **options):
    """Run a study group by group: what is kept of one group stays when another is changed or added.

    Parameters
    ----------
    design : Design, name, or sequence of them
        As in `run_study`.
    groups : mapping of str to estimators
        Estimators of `run_study` by the name of the group.
    folder, **options
        As in `kept`.

    Returns
    -------
    StudyResults
        Of all estimators, on the same samples.
    """
    parts = [kept(folder, design, estimators=estimators, **options) for estimators in groups.values()]
    first, raw = parts[0], pd.concat([part.raw for part in parts], ignore_index=True)
    return StudyResults(raw, first.designs, first.reference, first.entropy, first.n_boot)

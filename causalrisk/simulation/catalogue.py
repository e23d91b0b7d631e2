"""The designs that have a name."""

from __future__ import annotations

from typing import Any

from causalrisk.errors import OptionError, listed, nearest_name
from causalrisk.simulation import designs, published
from causalrisk.simulation.designs import Design

DESIGNS: dict[str, Design] = {
    design.name: design
    for design in (
        designs.Linear(), designs.LinearStrong(), designs.Quadratic(), designs.Strong(), designs.WeakOverlap(),
        designs.DoublyWrong(), designs.KangSchafer(), designs.KangSchaferMean(), designs.TenCovariates(),
        designs.FortyCovariates(), designs.Wiggly(), designs.Interaction(), designs.BinaryOutcome(),
        designs.HeavyTails(), designs.RareTreatment(), designs.Randomized(), designs.LalondeLike(),
        published.Hainmueller(), published.Froelich(), published.LuncefordDavidian(), published.SetoguchiLee(),
        published.HahnMurrayCarvalho(), published.Tan(), published.MissedConfounder(), published.OppositeCurves(),
    )
}  # fmt: skip


def find_design(design: Any) -> Design:
    """Return the design of a name, or the design itself; an OptionError names the nearest to an unknown one.

    Examples
    --------
    >>> from causalrisk.simulation.catalogue import find_design
    >>> find_design("strong")
    Strong(confounding=1.2, curvature=0.35, shape='square', score_curvature=0.0,
        heterogeneity=0.5, n_covariates=4, tails=inf, baseline=0.0)
    """
    if isinstance(design, Design):
        return design
    if isinstance(design, str) and design in DESIGNS:
        return DESIGNS[design]
    close = nearest_name(design, DESIGNS)
    raise OptionError(
        f"design={design!r} is not known; expected a Design, or any of {listed(tuple(DESIGNS))}.\n"
        + (f'Use `design="{close}"`.' if close else "Use one of them.")
    )

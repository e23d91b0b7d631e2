"""Formulas or arrays to one frozen design; the only place that knows patsy."""

from causalrisk.design.build import design_from_arrays, design_from_formula
from causalrisk.design.design import Design
from causalrisk.design.formulas import linear_constraint
from causalrisk.design.moderators import Moderators, moderators
from causalrisk.design.target import TargetRows, target_rows

__all__ = [
    "Design",
    "Moderators",
    "TargetRows",
    "design_from_arrays",
    "design_from_formula",
    "linear_constraint",
    "moderators",
    "target_rows",
]

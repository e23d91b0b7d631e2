"""Design: turn formulas or arrays into one frozen set of arrays. Only this package calls patsy."""

from causalrisk.design.build import check_scored, design_from_arrays, design_from_formula
from causalrisk.design.design import Design, Observation, TargetRows, new_offset, target_rows
from causalrisk.design.did import DiD, with_change
from causalrisk.design.formulas import linear_constraint
from causalrisk.design.on_disk import DesignOnDisk, design_from_scan
from causalrisk.design.rows import ColumnOptions
from causalrisk.design.scan import Scan, as_scan
from causalrisk.design.support import Rules
from causalrisk.design.survey import Survey

__all__ = [
    "ColumnOptions", "Design", "DesignOnDisk", "DiD", "Observation", "Rules", "Scan", "Survey", "TargetRows", "as_scan",
    "check_scored", "design_from_arrays", "design_from_formula", "design_from_scan", "linear_constraint", "new_offset",
    "target_rows", "with_change",
]  # fmt: skip

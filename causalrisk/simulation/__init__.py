"""Monte Carlo studies: designs with a known effect, and estimates from simulated samples."""

from causalrisk.simulation import designs
from causalrisk.simulation.designs import DESIGNS, Design, Draw, Population, Specified
from causalrisk.simulation.results import StudyResults, power
from causalrisk.simulation.study import Trial, four_cells, run_study

__all__ = [
    "DESIGNS", "Design", "Draw", "Population", "Specified", "StudyResults", "Trial", "designs", "four_cells",
    "power", "run_study",
]  # fmt: skip

"""Monte Carlo studies: designs with a known effect, and estimates from samples of them."""

from causalrisk.simulation import designs
from causalrisk.simulation.cells import four_cells
from causalrisk.simulation.designs import DESIGNS
from causalrisk.simulation.entries import Trial
from causalrisk.simulation.plasmode import plasmode
from causalrisk.simulation.population import Design, Draw, Population, Specified
from causalrisk.simulation.power import power
from causalrisk.simulation.results import StudyResults
from causalrisk.simulation.study import run_study

__all__ = [
    "DESIGNS",
    "Design",
    "Draw",
    "Population",
    "Specified",
    "StudyResults",
    "Trial",
    "designs",
    "four_cells",
    "plasmode",
    "power",
    "run_study",
]

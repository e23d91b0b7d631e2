"""The command line: `causalrisk fit FILE FORMULA --treat D`, and its other commands."""

from causalrisk.cli.commands import DEMO_OUTCOME, DEMO_PROPENSITY, main, make_parser

__all__ = ["DEMO_OUTCOME", "DEMO_PROPENSITY", "main", "make_parser"]

"""The command line before a command is chosen: which there are. Nothing of the library is imported here."""

from __future__ import annotations

import argparse

from causalrisk._version import __version__

EXIT_CODES = """exit codes:
  0  done
  1  a fault of the program, which it reports
  2  the input is wrong; the last line says what to type
  3  done, but an optimiser did not converge (the summary says which)
  130  interrupted
"""
ROOT_EXAMPLES = """examples:
  causalrisk demo
  causalrisk fit births.csv "bweight ~ mage + medu" --treat mbsmoke
  causalrisk compare births.csv "bweight ~ mage + medu" --treat mbsmoke
  causalrisk report births.csv "bweight ~ mage + medu" --treat mbsmoke -o report.html
  causalrisk simulate kang_schafer --estimators IPWRA,JRE
  causalrisk COMMAND --help
"""
COMMANDS = {
    "demo": "birth weight on maternal smoking, by all estimators",
    "fit": "fit a model to a data file and print its summary",
    "compare": "all estimators on the same rows and resamples",
    "report": "write a page with summary, diagnostics and plots",
    "simulate": "what the estimators make of samples whose effect is known",
}


def make_root() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    """Return the parser of the command line, and that of each command, which has no arguments yet."""
    root = argparse.ArgumentParser(
        prog="causalrisk",
        description="Average treatment effects from the command line.",
        epilog=f"{ROOT_EXAMPLES}\n{EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    root.add_argument("--version", action="version", version=f"causalrisk {__version__}")
    commands = root.add_subparsers(required=True, metavar="COMMAND", dest="command")
    return root, {
        name: commands.add_parser(
            name,
            help=text,
            description=f"{text[0].upper()}{text[1:]}.",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        for name, text in COMMANDS.items()
    }

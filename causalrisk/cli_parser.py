"""Arguments of the command line."""

from __future__ import annotations

import argparse
from pathlib import Path

from causalrisk._version import __version__

EXIT_CODES = """exit codes:
  0  done
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
FIT_EXAMPLES = """examples:
  causalrisk fit births.csv "bweight ~ mage + medu" --treat mbsmoke
  causalrisk fit trial.csv "y ~ age + C(site)" --treat group --treated drug --propensity "age + I(age**2)"
  causalrisk fit wages.csv "wage ~ educ" --treat union --estimator IPWRA --cov-type HC1 --target treated
  causalrisk fit survey.csv "ill ~ age" --treat smoker --family binomial --effect ratio --weights w --weight-type probability
  causalrisk fit births.csv "bweight ~ mage" --treat mbsmoke --output table.tex
  causalrisk fit births.csv "bweight ~ mage" --treat mbsmoke --json | jq .estimates[0].estimate
"""  # noqa: E501
COMPARE_EXAMPLES = """examples:
  causalrisk compare births.csv "bweight ~ mage + medu" --treat mbsmoke
  causalrisk compare births.csv "bweight ~ mage" --treat mbsmoke --estimators IPWRA,JRE --n-boot 499
  causalrisk compare births.csv "bweight ~ mage" --treat mbsmoke --output table.csv
"""
REPORT_EXAMPLES = """examples:
  causalrisk report births.csv "bweight ~ mage + medu" --treat mbsmoke
  causalrisk report jobs.csv "re78 ~ age + re75" --treat treat --target treated -o jobs.html --title "Job training"
"""


SIMULATE_EXAMPLES = """examples:
  causalrisk simulate kang_schafer
  causalrisk simulate linear strong --n 250,1000 --n-sims 500 --estimators IPWRA,JRE
  causalrisk simulate kang_schafer --n-boot 199 --folder study --json
"""


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line; `command` of what it parses is the name of the command.

    Returns
    -------
    ArgumentParser
        The parser.
    """
    parser = argparse.ArgumentParser(
        prog="causalrisk",
        description="Average treatment effects from the command line.",
        epilog=f"{ROOT_EXAMPLES}\n{EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"causalrisk {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    commands.add_parser("demo", help="birth weight on maternal smoking, by all estimators")
    fit = _command(commands, "fit", "fit a model to a CSV file and print its summary", FIT_EXAMPLES)
    _add_estimator(fit)
    fit.add_argument("--coefficients", action="store_true", default=None, help="print the models' coefficients too")
    fit.add_argument("--explain", action="store_true", help="explain the estimate in plain words below the summary")
    _add_printing(fit)
    compare = _command(commands, "compare", "all estimators on the same rows and resamples", COMPARE_EXAMPLES)
    compare.add_argument("--estimators", metavar="NAMES", help="some only, such as IPWRA,JRE (default: all)")
    _add_printing(compare)
    report = _command(commands, "report", "write a page with summary, diagnostics and plots", REPORT_EXAMPLES)
    _add_estimator(report)
    report.add_argument("--title", metavar="TEXT", help="heading of the page")
    report.add_argument(
        "-o", "--output", type=Path, default=Path("report.html"), metavar="FILE", help="where to write (report.html)"
    )
    _add_simulate(commands)
    return parser


def _add_simulate(commands: argparse._SubParsersAction) -> None:
    """Add the command that reads no file."""
    text = "what the estimators make of samples whose effect is known"
    parser: argparse.ArgumentParser = commands.add_parser(
        "simulate",
        help=text,
        description=f"{text[0].upper()}{text[1:]}.",
        epilog=f"{SIMULATE_EXAMPLES}\n{EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("designs", nargs="+", metavar="DESIGN", help="names of causalrisk.simulation.DESIGNS; a wrong one lists them")
    add("--n", default="500", metavar="SIZES", help='rows of a sample, such as 500 (default) or "250,1000"')
    add("--n-sims", type=int, default=200, metavar="N", help="samples of each design and size (default 200)")
    add("--estimators", metavar="NAMES", help="some only, such as IPWRA,JRE (default: seven)")
    add("--reference", default="IPWRA", metavar="NAME", help="whose mean squared error is 1 (default IPWRA)")
    add("--n-boot", type=int, default=0, metavar="N", help="bootstrap resamples; 0 (default): robust errors")
    add("--alpha", type=float, default=0.05, metavar="P", help="significance level of the intervals (default 0.05)")
    add("--seed", type=int, default=0, metavar="N", help="seed of the random numbers (default 0)")
    add("--jobs", type=int, default=1, metavar="N", help="processes, -1 for one per processor")
    add("--folder", type=Path, metavar="DIR", help="keep finished parts here; the same command goes on from them")
    _add_printing(parser)


def _command(commands: argparse._SubParsersAction, name: str, text: str, examples: str) -> argparse.ArgumentParser:
    """Add a command that reads a file, with the options that all of these share."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=text,
        description=f"{text[0].upper()}{text[1:]}.",
        epilog=f"{examples}\n{EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", metavar="FILE", type=Path, help="CSV file with a header line")
    parser.add_argument("formula", metavar="FORMULA", help='outcome formula, such as "y ~ x1 + x2"')
    add = parser.add_argument_group("data").add_argument
    add("--treat", required=True, metavar="COLUMN", help="treatment column")
    add("--treated", metavar="LEVEL", help="level of the treatment that is treated")
    add("--reference", metavar="LEVEL", help="level it is compared with")
    add("--weights", metavar="COLUMN", help="column of observation weights; needs --weight-type")
    add("--weight-type", metavar="TYPE", help="frequency or probability")
    add("--cluster", metavar="COLUMN", help="cluster column")
    add("--missing", default="drop", choices=("drop", "raise"), help="what to do with missing values")
    add = parser.add_argument_group("models").add_argument
    add("--propensity", metavar="FORMULA", help="propensity formula (default: the outcome's right side)")
    add("--propensity-link", default="logit", metavar="LINK", help="logit (default), probit or cloglog")
    add("--propensity-score", metavar="COLUMN", help="column of known propensity scores")
    add("--family", default="gaussian", metavar="NAME", help="gaussian (default), binomial, poisson or gamma")
    add("--link", metavar="NAME", help="outcome link (default: that of the family)")
    add("--target", default="all", metavar="NAME", help="all (default), treated, control or overlap")
    add("--target-file", type=Path, metavar="FILE", help="CSV file of another population to average over")
    add("--effect", default="difference", metavar="NAME", help="difference (default), ratio, odds_ratio or percent")
    add("--trim", metavar="LIMITS", help='crump, separated, or limits of the propensity score such as "0.05,0.95"')
    add("--clip", metavar="LIMITS", help='limits that propensity scores are set to, such as "0.01,0.99"')
    add = parser.add_argument_group("inference").add_argument
    add("--bootstrap", metavar="KIND", help="pairs (default), bayesian, cluster or stratified")
    add("--n-boot", type=int, default=999, metavar="N", help="bootstrap resamples (default 999)")
    add("--alpha", type=float, default=0.05, metavar="P", help="significance level of the intervals (default 0.05)")
    add("--seed", type=int, default=0, metavar="N", help="seed of the random numbers (default 0)")
    add(
        "--jobs", type=int, default=1, metavar="N", help="threads, -1 for one per processor; digits do not depend on it"
    )
    return parser


def _add_estimator(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("estimator").add_argument
    add("--estimator", default="JRE", metavar="NAME", help="JRE (default), OutcomeRegression, Hajek, IPWRA or AIPW")
    add("--cov-type", metavar="TYPE", help="robust, HC0, HC1, cluster or bootstrap (default for JRE)")
    add("--penalty", metavar="LAMBDA", help='JRE: weight of the bias, a number or "n", "10n", "n1.5", "n2"')
    add("--objective", metavar="NAME", help="JRE: adaptive (default), mse or erm")


def _add_printing(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("output").add_argument
    add("--json", action="store_true", help="print JSON in place of the summary")
    add("-o", "--output", type=Path, metavar="FILE", help="write to FILE: .txt, .html, .tex, .csv or .json")

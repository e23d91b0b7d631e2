"""Command line: `causalrisk demo` and `causalrisk fit`."""

from __future__ import annotations

import argparse
import os
import sys
import textwrap
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np  # noqa: F401  formulas typed on the command line may use np
import pandas as pd

from causalrisk._version import __version__
from causalrisk.compare import ComparisonResults, compare
from causalrisk.datasets import load_cattaneo2
from causalrisk.errors import CausalRiskError, CausalRiskWarning
from causalrisk.models import AIPW, IPWRA, JRE, CausalModel, Hajek, OutcomeRegression
from causalrisk.results import CausalResults

MODELS: tuple[type[CausalModel], ...] = (OutcomeRegression, Hajek, IPWRA, AIPW, JRE)
ESTIMATORS = {model.spec.name: model for model in MODELS} | {"IPW": Hajek}
DEMO_OUTCOME = "bweight ~ prenatal1 + mmarried + mage + fbaby"
DEMO_PROPENSITY = "mmarried + mage + I(mage**2) + fbaby + medu"
FIT_EXAMPLES = """examples:
  causalrisk fit births.csv "bweight ~ mage + medu" --treat mbsmoke
  causalrisk fit trial.csv "y ~ age + C(site)" --treat group --treated drug --propensity "age + I(age**2)"
  causalrisk fit wages.csv "wage ~ educ" --treat union --estimator IPWRA --cov-type HC1
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    arguments : sequence of str, optional
        Arguments; by default those of the process.

    Returns
    -------
    int
        Exit code: 0, or 2 where the input is wrong.
    """
    options = _parser().parse_args(arguments)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CausalRiskWarning)  # the summary prints them as notes
            text = options.run(options)
    except UnicodeDecodeError:
        print("causalrisk: the file is not UTF-8 text; save it as UTF-8, with commas between columns.", file=sys.stderr)
        return 2
    except (CausalRiskError, OSError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        print(f"causalrisk: {type(error).__name__}: {error}", file=sys.stderr)
        if isinstance(error, CausalRiskError):
            print("(On the command line an option such as treated= is typed --treated.)", file=sys.stderr)
        return 2
    try:
        print(text, flush=True)
    except BrokenPipeError:  # the reader, head say, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="causalrisk", description="Average treatment effects from the command line.")
    parser.add_argument("--version", action="version", version=f"causalrisk {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    demo = commands.add_parser("demo", help="birth weight on maternal smoking, by all estimators")
    demo.set_defaults(run=_demo)
    fit = commands.add_parser(
        "fit",
        help="fit a model to a CSV file and print its summary",
        epilog=FIT_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    fit.set_defaults(run=_fit)
    fit.add_argument("file", metavar="FILE", type=Path, help="CSV file with a header line")
    fit.add_argument("formula", metavar="FORMULA", help='outcome formula, such as "y ~ x1 + x2"')
    fit.add_argument("--treat", required=True, metavar="COLUMN", help="treatment column")
    fit.add_argument("--treated", metavar="LEVEL", help="level of the treatment that is treated")
    fit.add_argument("--reference", metavar="LEVEL", help="level it is compared with")
    fit.add_argument("--propensity", metavar="FORMULA", help="propensity formula (default: the outcome's right side)")
    fit.add_argument("--propensity-link", default="logit", choices=("logit", "probit", "cloglog"))
    fit.add_argument("--estimator", default="JRE", choices=tuple(ESTIMATORS))
    fit.add_argument("--cluster", metavar="COLUMN", help="cluster column")
    fit.add_argument("--cov-type", choices=("robust", "HC0", "HC1", "cluster", "bootstrap"))
    fit.add_argument("--n-boot", type=int, default=999, metavar="N", help="bootstrap resamples (default 999)")
    fit.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the random numbers (default 0)")
    fit.add_argument("--missing", default="drop", choices=("drop", "raise"), help="what to do with missing values")
    fit.add_argument("--coefficients", action="store_true", default=None, help="print the models' coefficients too")
    return parser


def _level(text: str | None, column: Any) -> Any:
    """Return the level of a column that is typed as the text, or the text itself."""
    if text is None or column is None:
        return text
    for level in column.dropna().unique():
        same_number = isinstance(level, (int, float)) and _number(text) == level
        if str(level) == text or same_number:
            return level
    return text


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _fit(options: argparse.Namespace) -> str:
    data = pd.read_csv(options.file)
    treatment = data.get(options.treat)
    model = ESTIMATORS[options.estimator].from_formula(
        options.formula,
        data,
        treat=options.treat,
        propensity=options.propensity,
        propensity_link=options.propensity_link,
        treated=_level(options.treated, treatment),
        reference=_level(options.reference, treatment),
        cluster=options.cluster,
        missing=options.missing,
    )
    res = model.fit(cov_type=options.cov_type, n_boot=options.n_boot, rng=options.seed)
    return str(res.summary(coefficients=options.coefficients or None))


def _demo(options: argparse.Namespace) -> str:
    births, levels = load_cattaneo2(), {0: "nonsmoker", 1: "smoker"}
    model = JRE.from_formula(DEMO_OUTCOME, births, treat="mbsmoke", propensity=DEMO_PROPENSITY, levels=levels)
    joint = model.fit()
    together = compare(DEMO_OUTCOME, births, treat="mbsmoke", propensity=DEMO_PROPENSITY, levels=levels)
    summary = together.summary(title="All estimators, same data, same 999 resamples")
    return "\n".join([_demo_intro(), str(joint.summary()), "", str(summary), "", _demo_reading(joint, together)])


def _demo_intro() -> str:
    return (
        "Birth weight in grams of 4642 infants, by whether the mother smoked (cattaneo2).\n\n"
        ">>> births = causalrisk.datasets.load_cattaneo2()\n"
        f'>>> model = causalrisk.JRE.from_formula("{DEMO_OUTCOME}", births,\n'
        f'...     treat="mbsmoke", propensity="{DEMO_PROPENSITY}",\n'
        '...     levels={0: "nonsmoker", 1: "smoker"})\n'
        ">>> print(model.fit().summary())\n"
    )


def _demo_reading(joint: CausalResults, together: ComparisonResults) -> str:
    adjusted = together.table["effect"].drop("Unadjusted")
    crude, least, most = -together.table.loc["Unadjusted", "effect"], -adjusted.max(), -adjusted.min()
    low, high = joint.conf_int().loc["ATE"]
    net = joint.replicate_bias["net"].to_numpy()
    paragraphs = (
        f"What it shows: infants of smokers weigh {crude:.0f} g less on average; adjusted for age, "
        f"education, marriage, prenatal care and birth order it is {least:.0f} to {most:.0f} g, "
        "whichever estimator is used.",
        f"JRE says {-joint.effect:.0f} g (95% interval {-high:.0f} to {-low:.0f}); IPWRA, where it starts, says "
        f"{-joint.start.effect:.0f} g. Over the propensity scores that the data allow, the arms' biases leave "
        f"{float((net**2).mean()) ** 0.5:.2f} g of net bias (RMS) in JRE.",
        "That the groups are comparable given these covariates is an assumption; no estimator tests it.",
    )
    return "\n".join(textwrap.fill(paragraph, 78) for paragraph in paragraphs)

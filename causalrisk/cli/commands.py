"""Commands of the command line: arguments and actions, and messages of the library in its words."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import textwrap
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from causalrisk.cli.data_files import OTHERS, TEXT, read_file
from causalrisk.cli.root import EXIT_CODES, make_root
from causalrisk.datasets import load_cattaneo2
from causalrisk.design.did import DiD
from causalrisk.design.formulas.evaluation import only_safe
from causalrisk.design.scan.files import same_file
from causalrisk.design.survey import LONELY, REPLICATE_TYPES, Survey
from causalrisk.errors import CausalRiskError, CausalRiskWarning, OptionError
from causalrisk.estimators.options import LEARNER_USES
from causalrisk.inference.hypotheses import ALTERNATIVES
from causalrisk.inference.simultaneous import ADJUSTMENTS
from causalrisk.learners.cross_fitting import NAMED, SMOOTH
from causalrisk.models.comparison import ComparisonResults, compare
from causalrisk.models.estimators import ALIASES, BY_NAME, Unadjusted
from causalrisk.models.keywords import unknown_estimator
from causalrisk.models.results import CausalResults
from causalrisk.propensity.targets import POPULATIONS
from causalrisk.report.page.explain import Prose
from causalrisk.report.page.sections import ASSUMPTIONS, TRENDS
from causalrisk.report.tables.stacked import ResultSummary
from causalrisk.runtime.system import interruptions_kept, would_replace, write_whole
from causalrisk.simulation import run_study
from causalrisk.simulation.entries import COMPETITORS
from causalrisk.simulation.study import Store

SUFFIXES = (".txt", ".md", ".html", ".tex", ".csv", ".json", ".docx")
FIT_EXAMPLES = """examples:
  causalrisk fit births.csv "bweight ~ mage + medu" --treat mbsmoke
  causalrisk fit trial.csv "y ~ age + C(site)" --treat group --treated drug --propensity "age + I(age**2)"
  causalrisk fit wages.csv "wage ~ educ" --treat union --estimator IPWRA --cov-type HC1 --target treated
  causalrisk fit survey.csv "ill ~ age" --treat smoker --family binomial --effect ratio --weights w --weight-type probability
  causalrisk fit survey.csv "ill ~ age" --treat smoker --weights w --strata stratum --psu psu --nest --subpop adult
  causalrisk fit falls.csv "falls ~ age" --treat drug --family poisson --exposure years --estimator IPWRA
  causalrisk fit births.csv "bweight ~ mage + medu" --treat mbsmoke --learner hist-gradient-boosting --n-repeats 3
  causalrisk fit trial.csv "y ~ age" --treat group --estimator OutcomeRegression --permutations 9999 --permute-within site
  causalrisk fit trial.csv "y ~ age" --treat dose --reference 0 --pairwise --against reference --adjust single-step
  causalrisk fit trial.csv "y ~ age" --treat group --equivalence -2 2
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
    root, commands = make_root()
    fit = commands["fit"]
    _add_file(fit, FIT_EXAMPLES)
    _add_estimator(fit)
    fit.add_argument("--coefficients", action="store_true", default=None, help="print the models' coefficients too")
    fit.add_argument("--explain", action="store_true", help="explain the estimate in plain words below the summary")
    fit.add_argument("--by", metavar="COLUMN", help='effects in its groups below the summary, or along it: "~ age"')
    fit.add_argument("--pairwise", action="store_true", help="effects between all pairs of levels below the summary")
    fit.add_argument(
        "--permutations", metavar="N", help='randomisation test for trials below the summary, such as 9999 or "all"'
    )
    fit.add_argument("--permute-within", metavar="COLUMN", help="its strata (whole clusters where they have one arm)")
    fit.add_argument(
        "--alternative", choices=tuple(ALTERNATIVES), help="one-sided tests of the effects below the summary"
    )
    fit.add_argument(
        "--equivalence", nargs=2, type=limit, metavar=("LOW", "HIGH"),
        help='test that the effects lie between two limits below the summary; "none" for one of them: non-inferiority',
    )  # fmt: skip
    fit.add_argument(
        "--adjust", metavar="HOW", help=f"adjust --by and --pairwise for their number: {', '.join(ADJUSTMENTS)}"
    )
    fit.add_argument(
        "--against", metavar="LEVEL", help='level that --pairwise compares the others with, or "reference"'
    )
    fit.add_argument(
        "--balance", action="store_true",
        help="balance of the covariates below the summary; with --observed of the rows with an outcome and all too",
    )  # fmt: skip
    fit.add_argument("--sensitivity", action="store_true", help="sensitivity to confounding below the summary")
    _add_printing(fit)
    compare = commands["compare"]
    _add_file(compare, COMPARE_EXAMPLES)
    compare.add_argument("--estimators", metavar="NAMES", help="some only, such as IPWRA,JRE (default: all)")
    _add_printing(compare)
    report = commands["report"]
    _add_file(report, REPORT_EXAMPLES)
    _add_estimator(report)
    report.add_argument("--title", metavar="TEXT", help="heading of the page")
    report.add_argument(
        "--assumption", action="append", metavar="NAME=TEXT",
        help=f"why an assumption holds, once for each of {', '.join([*ASSUMPTIONS, *TRENDS])}",
    )  # fmt: skip
    report.add_argument(
        "-o", "--output", type=Path, default=Path("report.html"), metavar="FILE", help="where to write (report.html)"
    )
    _add_simulate(commands["simulate"])
    return root


def _add_simulate(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command that reads no file."""
    parser.epilog = f"{SIMULATE_EXAMPLES}\n{EXIT_CODES}"
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


def _add_file(parser: argparse.ArgumentParser, examples: str) -> None:
    """Add the arguments that all commands share which read a file."""
    parser.epilog = f"{examples}\n{EXIT_CODES}"
    parser.add_argument(
        "file", metavar="FILE", type=Path, help=f"data with column names: {', '.join((*TEXT, *OTHERS))}"
    )
    parser.add_argument(
        "formula", metavar="FORMULA", help='outcome formula, such as "y ~ x1 + x2" (see --allow-python)'
    )
    add = parser.add_argument_group("file").add_argument
    add("--sep", metavar="SIGN", help='between columns of a text file (default a comma), such as ";" or "\\t"')
    add("--decimal", default=".", metavar="SIGN", help='decimal mark of a text file (default a point), such as ","')
    add("--thousands", metavar="SIGN", help="what separates thousands in a text file")
    add("--encoding", default="utf-8", metavar="NAME", help="encoding of a text file (default utf-8), such as latin-1")
    add = parser.add_argument_group("data").add_argument
    add("--treat", required=True, metavar="COLUMN", help="treatment column")
    add("--treated", metavar="LEVEL", help="level of the treatment that is treated")
    add("--reference", metavar="LEVEL", help="level it is compared with")
    add("--levels", metavar="LABELS", help='printed labels of the levels, such as "0=nonsmoker,1=smoker"')
    add("--weights", metavar="COLUMN", help="column of observation weights; needs --weight-type")
    add("--weight-type", metavar="TYPE", help="frequency or probability")
    add("--cluster", metavar="COLUMN", help='cluster column; two-way clusters by two, such as "firm,year"')
    add("--exposure", metavar="COLUMN", help="column of how long each unit was observed; its logarithm is the offset")
    add("--offset", metavar="COLUMN", help="column of a known part of the outcome models' linear predictor")
    add("--before", metavar="COLUMN", help="the outcome before the treatment: difference-in-differences")
    add("--time", metavar="COLUMN", help="the same with a row for each unit and period: column of the two periods")
    add("--unit", metavar="COLUMN", help="and column of the unit; repeated cross sections have none")
    add("--not-normalized", action="store_false", dest="normalize", help="weights of its controls as they are (AIPW)")
    add("--observed", metavar="FORMULA", help='model of missing outcomes, such as "x1 + d"; they are weighted for')
    add(
        "--missing", default="drop", choices=("drop", "raise", "indicator"),
        help="what to do with missing values; indicator: keep rows that miss covariates, with a term for it",
    )  # fmt: skip
    add(
        "--collinear", default="drop", choices=("drop", "raise"),
        help="what to do with columns that the rows of an arm do not tell from others",
    )  # fmt: skip
    add("--na", metavar="WORDS", help="further words that are missing values in every column, such as None")
    _add_survey(parser)
    _add_models(parser)
    _add_learners(parser)
    add = parser.add_argument_group("inference").add_argument
    add("--bootstrap", metavar="KIND", help="pairs (default), bayesian, cluster, stratified, multiplier, or rescaled")
    add("--multiplier", metavar="LAW", help="of --bootstrap multiplier: rademacher (default), webb or mammen")
    add("--n-boot", type=int, metavar="N", help="bootstrap resamples (default 999); asks for the bootstrap")
    add("--small-sample", action="store_true", help="the small-sample factor of HC1 for clustered standard errors too")
    add("--use-t", action="store_true", default=None, help="t tests and intervals: clusters less one, or n - k")
    add("--df", type=float, metavar="DF", help="t tests and intervals with so many degrees of freedom")
    add("--alpha", type=float, default=0.05, metavar="P", help="significance level of the intervals (default 0.05)")
    add("--seed", type=int, default=0, metavar="N", help="seed of the random numbers (default 0)")
    add(
        "--jobs", type=int, default=1, metavar="N", help="threads, -1 for one per processor; digits do not depend on it"
    )


def _add_survey(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("survey design").add_argument
    add("--strata", metavar="COLUMN", help="strata; with these options --weights are sampling weights")
    add("--psu", metavar="COLUMN", help="first-stage units (default: the rows)")
    add("--fpc", metavar="COLUMN", help="first-stage units of the stratum in the population, or the share sampled")
    add("--nest", action="store_true", help="numbers of the units begin anew in each stratum")
    add("--lonely", metavar="RULE", help=f"a stratum with one unit: {', '.join(LONELY)} (default fail)")
    add("--subpop", metavar="COLUMN", help='subpopulation that the effect is of: a column of 0 and 1, or "age >= 20"')
    add("--replicate-weights", metavar="NAMES", help='columns of replicate weights, such as "repw*" or "r1,r2,r3"')
    add("--replicate-type", metavar="TYPE", help=f"how they were made: {', '.join(REPLICATE_TYPES)}")
    add("--rho", type=float, metavar="RHO", help="Fay's factor")
    add("--scale", type=float, metavar="NUMBER", help="factor of the sum over the replicates (default: by their type)")
    add("--rscales", metavar="NUMBERS", help='factors of their squares, such as "0.5" or "0.5,0.5,0.75"')
    add("--mse", action="store_true", default=None, help="squares about the estimate, not the mean of the replicates")
    add("--factors", action="store_false", dest="combined", help="replicate weights are factors of --weights")


def _add_models(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("models").add_argument
    add("--propensity", metavar="FORMULA", help="propensity formula (default: the outcome's right side)")
    add(
        "--allow-python", action="store_true",
        help="run formulas as Python; else they may hold columns, numbers, operators, patsy's functions, np.log ...",
    )  # fmt: skip
    add("--propensity-link", default="logit", metavar="LINK", help="logit (default), probit or cloglog")
    add("--propensity-loss", default="ml", metavar="LOSS", help="ml (default), or calibrated: exact balance")
    add("--propensity-score", metavar="COLUMN", help="column of known propensity scores")
    add("--family", default="gaussian", metavar="NAME", help="gaussian (default), binomial, poisson or gamma")
    add("--link", metavar="NAME", help="outcome link (default: that of the family)")
    add("--at-exposure", metavar="VALUE", help="exposure that the means are at: a number (default 1) or observed")
    add("--target", metavar="NAME", help=f"{', '.join(POPULATIONS)} or a level (default: all, of changes treated)")
    add("--target-file", type=Path, metavar="FILE", help="data file of another population to average over")
    add(
        "--effect",
        default="difference",
        metavar="NAME",
        help="difference (default), ratio, odds_ratio, percent or quantile",
    )
    add("--quantiles", metavar="LEVELS", help='levels of quantile effects, such as "0.1,0.5,0.9" (default quartiles)')
    add("--trim", metavar="LIMITS", help='crump, separated, or limits of the propensity score such as "0.05,0.95"')
    add("--clip", metavar="LIMITS", help='limits that propensity scores are set to, such as "0.01,0.99"')


def _add_learners(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("learners").add_argument
    names = ", ".join((SMOOTH, *NAMED))
    add("--learner", action="append", metavar="NAME", help=f"what predicts the outcome: {names}; again for several")
    add("--smooth", action="store_true", help="short for --learner smooth, which needs nothing installed")
    add("--learner-use", metavar="USE", help=f"what is done with the predictions: {', '.join(LEARNER_USES)}")
    add("--n-folds", type=int, default=5, metavar="N", help="folds that predictions are held out by (default 5)")
    add("--n-repeats", type=int, default=1, metavar="N", help="fits with other folds each, an odd number (default 1)")


def _add_estimator(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("estimator").add_argument
    add("--estimator", default="JRE", metavar="NAME", help=f"{', '.join(ESTIMATORS)} (default JRE)")
    add("--cov-type", metavar="TYPE", help="robust, HC0, HC1, cluster, jackknife or bootstrap (default for JRE)")
    add("--objective", metavar="NAME", help="JRE: risk (default) or erm")
    add("--anchor", type=float, metavar="ALPHA", help="JRE, risk: weight of the fit (default: chosen by rows held out)")
    add("--share", type=float, metavar="C", help="JRE, risk: share of the start's heterogeneity left out of the risk")
    add("--penalty", type=float, metavar="LAMBDA", help="JRE, erm: weight of the bias (default: n squared)")


def _add_printing(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("output").add_argument
    add("--json", action="store_true", help="print JSON in place of the summary")
    add("-o", "--output", type=Path, metavar="FILE", help=f"write to FILE: {', '.join(SUFFIXES)}")


ESTIMATORS = {name: model for name, model in (BY_NAME | ALIASES).items() if model is not Unadjusted}
NAMES = (*BY_NAME, *ALIASES, *COMPETITORS)
DEMO_OUTCOME = "bweight ~ prenatal1 + mmarried + mage + fbaby"
DEMO_PROPENSITY = "mmarried + mage + I(mage**2) + fbaby + medu"
DONE, FAULT, WRONG_INPUT, NOT_CONVERGED = 0, 1, 2, 3
FAULTS = (ArithmeticError, AttributeError, ImportError, LookupError, MemoryError, RuntimeError, TypeError, ValueError)


def run(arguments: Sequence[str]) -> int:
    """Run a command.

    Parameters
    ----------
    arguments : sequence of str
        The name of the command and its arguments.

    Returns
    -------
    int
        Exit code: 0; 1 for a fault of the program; 2 where the input is wrong; 3 where an optimiser did not converge.
    """
    options = make_parser().parse_args(arguments)
    trust = nullcontext() if getattr(options, "allow_python", False) else only_safe()
    runs = {"demo": _demo, "fit": _fit, "compare": _compare, "report": _report, "simulate": _simulate}
    try:
        with interruptions_kept(), trust, warnings.catch_warnings():
            warnings.simplefilter("ignore", CausalRiskWarning)  # the summary prints them as notes
            text, converged = runs[options.command](options)
    except CausalRiskError as error:
        known = {name.replace("_", "-") for name in vars(options)}
        print(f"causalrisk: {in_options(str(error), known)}", file=sys.stderr)
        return WRONG_INPUT
    except OSError as error:
        print(f"causalrisk: {error.strerror or error}: {error.filename or ''}", file=sys.stderr)
        return WRONG_INPUT
    except FAULTS as error:
        print(
            f"causalrisk: {type(error).__name__}: {error}\nThis is a fault of the program. Please report it with the "
            "command that you typed.",
            file=sys.stderr,
        )
        return FAULT
    try:
        print(text, flush=True)
    except BrokenPipeError:  # the reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:  # for example on a full disk
        print(f"causalrisk: the output was not written whole: {error.strerror}.", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return WRONG_INPUT
    return DONE if converged else NOT_CONVERGED


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


def limit(text: str) -> float | None:
    """Return a limit of equivalence; None for "none", where there is none on this side.

    Parameters
    ----------
    text : str
        As it is typed.

    Returns
    -------
    float or None
        The limit.
    """
    return None if text.casefold() == "none" else float(text)


def _number_or_text(text: str | None) -> float | str | None:
    number = None if text is None else _number(text)
    return text if number is None else number


def _one_or_several(given: Sequence[str] | None) -> str | list[str] | None:
    """Return names that are given by an option each, or by one with commas between them; one name as it is."""
    names = [name.strip() for text in given or () for name in text.split(",")]
    return names if len(names) > 1 else next(iter(names), None)


def _limits(text: str | None) -> Any:
    """Return "0.1,0.9" as a pair of numbers; anything else as it is, for the library to refuse."""
    numbers = _levels(text)
    return tuple(numbers) if isinstance(numbers, list) and len(numbers) == 2 else text


def _levels(text: str | None) -> list[float] | str | None:
    """Return "0.1,0.9" as a list of numbers; anything else as it is, for the library to refuse."""
    levels = [] if text is None else [_number(part) for part in text.split(",")]
    return text if None in levels or not levels else [level for level in levels if level is not None]


def _design_options(options: argparse.Namespace, data: pd.DataFrame) -> dict[str, Any]:
    """Return the options that every command with a file has, as the library spells them."""
    if options.target_file is not None and options.target is not None:
        raise OptionError("--target and --target-file were both given.\nGive one of them.")
    treatment = data.get(options.treat)
    same = ("treat", "propensity", "propensity_link", "propensity_loss", "propensity_score", "family", "link")
    more = ("weights", "weight_type", "offset", "exposure", "effect", "observed", "missing", "collinear")
    learned = ("smooth", "learner_use", "n_folds", "n_repeats")
    return (
        {name: getattr(options, name) for name in (*same, *more, *learned)}
        | _survey_options(options)
        | {
            "cluster": None if options.cluster is None else _one_or_several([options.cluster]),
            "learner": _one_or_several(options.learner),
            "target": options.target if options.target_file is None else _read(options, options.target_file),
            "at_exposure": _number_or_text(options.at_exposure),
            "levels": _labels(options.levels, treatment),
            "treated": _level(options.treated, treatment),
            "reference": _level(options.reference, treatment),
            "quantiles": _levels(options.quantiles),
            "trim": _limits(options.trim),
            "clip": _limits(options.clip),
            "did": _did(options),
        }
    )


def _did(options: argparse.Namespace) -> DiD | None:
    """Return where the outcomes before the treatment are; None where nothing of it is typed."""
    places = (options.before, options.time, options.unit)
    if places == (None, None, None) and options.normalize:
        return None
    return DiD(before=options.before, time=options.time, unit=options.unit, normalize=options.normalize)


def _survey_options(options: argparse.Namespace) -> dict[str, Any]:
    """Return the survey design, in the place of the weights, and the subpopulation; nothing where none is typed."""
    names = ("strata", "psu", "fpc", "nest", "lonely", "replicate_type", "rho", "scale", "mse")
    typed = {name: getattr(options, name) for name in names if getattr(options, name)}
    if options.replicate_weights is not None:
        several = _one_or_several([options.replicate_weights])
        typed |= {"replicate_weights": several, "combined": options.combined}
    if options.rscales is not None:
        factors = [_number(factor) for factor in options.rscales.split(",")]
        typed["rscales"] = factors if len(factors) > 1 else factors[0]
    if not typed and options.subpop is None:
        return {}
    if options.weight_type not in (None, "probability"):
        raise OptionError(
            f"--weight-type {options.weight_type}: the weights of a survey are sampling weights.\n"
            "Leave --weight-type out."
        )
    survey = Survey(weights=options.weights, **typed)
    return {"design": survey, "subpop": options.subpop, "weights": None, "weight_type": None}


def _read(options: argparse.Namespace, path: Path) -> pd.DataFrame:
    """Read a file."""
    missing = frozenset() if options.na is None else frozenset(options.na.split(","))
    return read_file(path, options.sep, options.decimal, options.thousands, encoding=options.encoding, missing=missing)


def _labels(text: str | None, treatment: Any) -> dict[Any, str] | None:
    """Return "0=no,1=yes" as a mapping of levels, as they are in the data, to labels."""
    if text is None:
        return None
    pairs = [part.partition("=") for part in text.split(",")]
    if any(not sign for _, sign, _ in pairs):
        raise OptionError(f'--levels {text}: expected level=label pairs.\nType  --levels "0=control,1=treated"')
    return {_level(level.strip(), treatment): label.strip() for level, _, label in pairs}


def _fitted(options: argparse.Namespace, data: pd.DataFrame) -> CausalResults:
    estimator = _as_spelt(options.estimator, ESTIMATORS)
    if estimator not in ESTIMATORS:
        raise OptionError(unknown_estimator(options.estimator, ESTIMATORS))
    model = ESTIMATORS[estimator].from_formula(options.formula, data, **_design_options(options, data))
    names = ("objective", "anchor", "share", "penalty")
    joint = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    if joint and estimator != "JRE":
        raise OptionError(f"--{next(iter(joint))} is an option of JRE.\nType  --estimator JRE, or leave it out.")
    return model.fit(cov_type=options.cov_type, **_inference_options(options), **joint)


def _inference_options(options: argparse.Namespace) -> dict[str, Any]:
    """Return the options of standard errors that every command with a file has, as the library spells them."""
    same = ("bootstrap", "multiplier", "n_boot", "small_sample", "use_t", "df")
    return {name: getattr(options, name) for name in same} | {"rng": options.seed, "n_jobs": options.jobs}


def _fit(options: argparse.Namespace) -> tuple[str, bool]:
    _check_output(options)
    data = _read(options, options.file)
    res = _fitted(options, data)
    summary = res.summary(options.alpha, coefficients=options.coefficients or None)
    values = {
        "glance": _records(res.glance())[0],
        "estimates": _records(res.tidy(alpha=options.alpha)),
        "notes": summary.notes,
    }
    against = _level(options.against, data.get(options.treat))
    adjust, alpha, limits = options.adjust, options.alpha, options.equivalence
    missing = bool(res.glance()["n_without_outcome"].iloc[0])
    asked = {
        "one-sided": (options.alternative, lambda: _one_sided(res, options.alternative, alpha)),
        "equivalence": (
            options.equivalence is not None,
            lambda: res.equivalence_test(low=limits[0], high=limits[1], alpha=alpha).summary_frame(),
        ),
        "groups": (options.by, lambda: res.effects_by(options.by, data, alpha, n_jobs=options.jobs, adjust=adjust)),
        "pairs": (options.pairwise or against is not None, lambda: res.pairwise(alpha, adjust=adjust, against=against)),
        "permutation_test": (options.permutations, lambda: _permuted(options, res, data)),
        "balance": (options.balance, res.balance),
        "balance_observed": (options.balance and missing, lambda: res.balance(between="observed")),
        "sensitivity": (options.sensitivity, res.sensitivity),
    }
    tables = {name: make() for name, (wanted, make) in asked.items() if wanted}
    explained = res.explain(options.alpha) if options.explain else None
    return _shown(options, summary=summary, values=values, explained=explained, tables=tables), res.converged


def _permuted(options: argparse.Namespace, res: CausalResults, data: pd.DataFrame) -> pd.DataFrame:
    """Return the randomisation test, one row."""
    count = options.permutations
    found = res.permutation_test(
        int(count) if count.isdecimal() else count, strata=options.permute_within, data=data, rng=options.seed,
        n_jobs=options.jobs,
    )  # fmt: skip
    return found.tidy().set_index("term")


def _one_sided(res: CausalResults, alternative: str, alpha: float) -> pd.DataFrame:
    """Return one-sided tests against no effect, on the scale that two-sided ones are on."""
    null = res._record.options.effect_scale.null
    low, high = (null, None) if alternative == "larger" else (None, null)
    return res.equivalence_test(low, high, alpha=alpha).summary_frame().drop(columns=["P", "shown"])


def _compare(options: argparse.Namespace) -> tuple[str, bool]:
    _check_output(options)
    data = _read(options, options.file)
    together = compare(
        options.formula, data, estimators=_names(options), **_inference_options(options),
        **_design_options(options, data),
    )  # fmt: skip
    values = {
        "glance": _records(together.glance()),
        "estimates": _records(together.tidy(alpha=options.alpha)),
        "differences": _records(together.differences.reset_index()),
        "notes": together.summary().notes,
    }
    converged = all(res.converged for res in together.results.values())
    return _shown(options, together.summary(options.alpha), values), converged


def _simulate(options: argparse.Namespace) -> tuple[str, bool]:
    _check_output(options)
    sizes = [_number(size) for size in options.n.split(",")]
    if not all(size is not None and size == int(size) for size in sizes):
        raise OptionError(f'--n {options.n}: expected whole numbers.\nType  --n 500 or "250,1000"')
    study = run_study(
        options.designs, n=[int(size or 0) for size in sizes], n_sims=options.n_sims, estimators=_names(options),
        rng=options.seed, n_jobs=options.jobs, n_boot=options.n_boot, path=options.folder,
        reference=_as_spelt(options.reference, NAMES),
    )  # fmt: skip
    summary = study.summary(options.alpha)
    values = {
        "table": _records(study.table_at(options.alpha).reset_index()),
        "failures": _records(study.failures),
        "notes": summary.notes,
    }
    return _shown(options, summary, values), True


def _names(options: argparse.Namespace) -> list[str] | None:
    if options.estimators is None:
        return None
    return [_as_spelt(name.strip(), NAMES) for name in options.estimators.split(",")]


def _as_spelt(name: str, known: Iterable[str]) -> str:
    return {word.casefold(): word for word in known}.get(name.casefold(), name)


def _report(options: argparse.Namespace) -> tuple[str, bool]:
    _check_output(options, (".html", ".htm", ""))
    stated = _stated(options.assumption or [])
    res = _fitted(options, _read(options, options.file))
    path = res.report(options.output, title=options.title, alpha=options.alpha, assumptions=stated)
    return f"{res!r}\nWritten: {path}", res.converged


def _stated(given: Sequence[str]) -> dict[str, str]:
    """Return "name=text" arguments as a mapping."""
    pairs = [part.partition("=") for part in given]
    for name, sign, _ in pairs:
        if not sign:
            raise OptionError(
                f"--assumption {name}: expected a name and why it holds.\n"
                f'Type  --assumption "{next(iter(ASSUMPTIONS))}=..."'
            )
    return {name.strip(): text.strip() for name, _, text in pairs}


def _check_output(options: argparse.Namespace, suffixes: Sequence[str] = SUFFIXES) -> None:
    """Refuse an output file that cannot or must not be written, before anything is computed."""
    path: Path | None = options.output
    if path is None:
        return
    if path.suffix.lower() not in suffixes:
        raise OptionError(
            f"--output {path}: the ending {path.suffix!r} is not known; expected one of "
            f"{', '.join(filter(None, suffixes))}.\nType  --output {path.with_suffix(suffixes[0])}"
        )
    if not path.parent.is_dir():
        raise OptionError(
            f"--output {path}: there is no folder {str(path.parent)!r}.\nMake it, or type  --output {path.name}"
        )
    for name, given in vars(options).items():
        if isinstance(given, Path) and name != "output" and (same_file(path, given) or Store.holds(given, path)):
            what = f"a file that the command reads ({'--' * (name != 'file')}{name.replace('_', '-')} {given})"
            raise would_replace(f"--output {path}", what, f"--output {path.stem}-results{suffixes[0]}")


def _shown(
    options: argparse.Namespace,
    summary: ResultSummary,
    values: dict[str, Any],
    explained: Prose | None = None,
    tables: Mapping[str, pd.DataFrame] | None = None,
) -> str:
    """Return the text to print: the summary, JSON, or the path they were written to."""
    path: Path | None = options.output
    kind = path.suffix.lower() if path is not None else ".json" if options.json else ".txt"
    titled = [(name.replace("_", " ").capitalize(), table) for name, table in (tables or {}).items()]
    below = [f"{title}\n{table.to_string()}" for title, table in titled]
    pages = [f"<h2>{title}</h2>\n{table.to_html()}" for title, table in titled]
    values = values | {name: _records(table.reset_index()) for name, table in (tables or {}).items()}
    if explained is not None:
        values = values | {"explanation": str(explained)}
        below, pages = [*below, str(explained)], [*pages, explained.as_html()]
    if below and kind in (".tex", ".csv", ".md", ".docx"):
        raise OptionError(
            f"what stands below the summary is not written as {kind}.\n"
            f"Type  --output {Path(options.output).with_suffix('.html')}"
        )
    if kind == ".docx":
        return f"Written: {summary.save(Path(options.output))}"
    makers: dict[str, Callable[[], str]] = {
        ".json": lambda: json.dumps(values, indent=2, allow_nan=False),
        ".txt": lambda: "\n\n".join([str(summary), *below]),
        ".md": summary.as_markdown,
        ".html": lambda: "\n".join([summary.as_html(), *pages]),
        ".tex": summary.as_latex,
        ".csv": summary.as_csv,
    }
    text = makers[kind]()
    if path is None:
        return text
    write_whole(path, f"{text}\n")
    return f"Written: {path}"


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a frame as JSON has them: numbers that are missing or infinite are null."""
    return [
        {
            str(name): None if isinstance(value, float) and not np.isfinite(value) else value
            for name, value in row.items()
        }
        for row in frame.to_dict("records")
    ]


def _demo(options: argparse.Namespace) -> tuple[str, bool]:
    births, levels = load_cattaneo2(), {0: "nonsmoker", 1: "smoker"}
    together = compare(DEMO_OUTCOME, births, treat="mbsmoke", propensity=DEMO_PROPENSITY, levels=levels)
    joint = together.bootstrapped["JRE"]  # what the code that is shown prints, without another bootstrap
    summary = together.summary(title="All estimators, same data, same 999 resamples")
    parts = [_demo_intro(), str(joint.summary()), "", str(summary), "", _demo_reading(joint, together)]
    return "\n".join(parts), joint.converged


def _demo_intro() -> str:
    return (
        "Birth weight in grams of 4642 infants, by whether the mother smoked (cattaneo2).\n\n"
        ">>> from causalrisk import JRE, datasets\n"
        ">>> births = datasets.load_cattaneo2()\n"
        f'>>> model = JRE.from_formula("{DEMO_OUTCOME}", births,\n'
        f'...     treat="mbsmoke", propensity="{DEMO_PROPENSITY}",\n'
        '...     levels={0: "nonsmoker", 1: "smoker"})\n'
        ">>> print(model.fit().summary())\n"
    )


def _demo_reading(joint: CausalResults, together: ComparisonResults) -> str:
    adjusted = together.table["estimate"].drop("Unadjusted")
    crude, least, most = -together.table.loc["Unadjusted", "estimate"], -adjusted.max(), -adjusted.min()
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


RENAMED = {
    "rng": "seed", "n_jobs": "jobs", "estimators": "estimator", "assumptions": "assumption",
    "n_permutations": "permutations", "strata": "permute-within",
}  # fmt: skip
VALUE = r"(\"[^\"]*\"|'[^']*'|\([^()]*\)|\[[^\]]*\]|\{[^}]*\}|[\w.+-]*\w)"
READING = {"sep": "--sep", "decimal": "--decimal", "thousands": "--thousands", "encoding": "--encoding"}


def in_options(message: str, known: Iterable[str]) -> str:
    """Return a message with the options of the command line for the keywords of the library.

    Parameters
    ----------
    message : str
        Of an error or a warning.
    known : iterable of str
        The options of the command, such as "weight-type".

    Returns
    -------
    str
        The message; Python that has no counterpart stays, and is said to be Python.
    """
    known = set(known)
    options = {name.replace("-", "_"): f"--{name}" for name in known}
    options |= {python: f"--{typed}" for python, typed in RENAMED.items() if typed in known and python not in known}
    if "na" in known:
        masked = rf"data\[[^]]*\] = data\[[^]]*\]\.mask\(data\[[^]]*\]\.isin\({VALUE}\)\)"
        message = re.sub(masked, lambda m: f"--na {_shell(m[1])}", message)
    message = re.sub(r"pd\.read_csv\(\.\.\., ([^()]*)\)", lambda m: _reading(m[1]), message)
    message = re.sub(
        rf"\bmodel\.with_options\(((?:\w+={VALUE}(?:, )?)+)\)\.fit\(\)(?:\.\w+\(\.\.\.\))?", lambda m: m[1], message
    )
    message = re.sub(
        rf"(?:from_formula|fit|summary)\((?:\.\.\., )?((?:\w+=(?:{VALUE}|\.\.\.)(?:, )?)+)\)", lambda m: m[1], message
    )
    options["formula"] = ""  # goes by position
    message = re.sub(r", or a family of statsmodels such as [\w.]+\([^()]*\)", "", message)
    typed = re.compile(rf"(?<!\w\()\b(\w+)=(?!sm\.)({VALUE})")
    message = typed.sub(lambda m: _option(options[m[1]], m[2]) if m[1] in options else m[0], message)
    message = re.sub(r"\b(\w+)=(?=[ ,.;:)])", lambda m: options.get(m[1], m[0]), message)
    if re.search(r"data\[\"|from_formula\(|\b(?:res|model|sm)\.\w", message.rsplit("\n", 1)[-1]):
        return f"{message}\n(That is Python: the file can be changed so, or the analysis be done there.)"
    return message


def _option(name: str, value: str) -> str:
    return name if value == "True" else f"{name} {_shell(value)}".strip()


def _reading(given: str) -> str:
    pairs = re.findall(rf"(\w+)=({VALUE})", given)
    return " ".join(f"{READING.get(name, '--' + name)} {_shell(value)}" for name, value, *_ in pairs)


def _shell(value: str) -> str:
    """Return a Python literal as a shell word, quoted where it needs to be."""
    if value[0] in "([":
        value = value[1:-1].replace(" ", "").replace('"', "").replace("'", "")
    elif value[0] == "{":
        pairs = re.findall(r"([^{,:]+): ([^,}]+)", value)
        value = ",".join("=".join(part.strip(" \"'") for part in pair) for pair in pairs)
    else:
        value = value.strip("\"'")
    return value if re.fullmatch(r"[\w.,=+-]+", value) else f'"{value}"'

"""The command line: `causalrisk fit FILE FORMULA --treat COLUMN`, and three other commands."""

from __future__ import annotations

import argparse
import ast
import json
import os
import re
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import causalrisk as cr

if TYPE_CHECKING:
    import pandas as pd

TEXT = {".csv": ",", ".csv.gz": ",", ".tsv": "\t", ".txt": ","}
OTHERS = {".dta": "read_stata", ".parquet": "read_parquet", ".xlsx": "read_excel"}
MARKS = "Use `--sep`, `--decimal` and `--encoding`, such as `--sep ';' --decimal ',' --encoding latin-1`."
FORMATS = (".txt", ".md", ".html", ".tex", ".csv", ".docx", ".json")
EPILOG = """examples:
  causalrisk demo
  causalrisk fit births.csv "bweight ~ mage + medu" --treat mbsmoke
  causalrisk compare births.csv "bweight ~ mage + medu" --treat mbsmoke
  causalrisk report births.csv "bweight ~ mage" --treat mbsmoke -o births.html

Python also has learners, surveys, missing outcomes, difference-in-differences,
effects by group, hypothesis tests, data larger than memory and simulation.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    options = make_parser().parse_args(arguments)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", cr.CausalRiskWarning)  # the summary prints them as notes
            print(options.run(options), flush=True)
    except BrokenPipeError:  # a reader such as head has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python writes the rest when it ends
    except (cr.CausalRiskError, OSError) as error:
        print(f"causalrisk: {error}", file=sys.stderr)
        for name in sorted(vars(options).keys() & re.findall(r"\b(\w+)=", str(error))):
            print(f"`{name}=` of Python is `--{name.replace('_', '-')}` here.", file=sys.stderr)
        return 2
    return 0


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    root = argparse.ArgumentParser("causalrisk", epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter)
    root.description = "Average treatment effects from the command line."
    root.add_argument("--version", action="version", version=f"causalrisk {cr.__version__}")
    add = root.add_subparsers(required=True, metavar="COMMAND").add_parser
    add("demo", help="an example: birth weight and smoking").set_defaults(run=_demo)
    for name, about in (
        ("fit", "fit a model to a data file and print its summary"),
        ("compare", "several estimators on the same rows and resamples"),
        ("report", "write a page with summary, diagnostics and plots"),
    ):
        usage = f"causalrisk {name} FILE FORMULA --treat COLUMN [options]"
        command = add(name, help=about, usage=usage, description=f"{about.capitalize()}.", allow_abbrev=False)
        command.set_defaults(run=_run, command=name)
        _add_options(command, name)
    return root


def _add_options(command: argparse.ArgumentParser, name: str) -> None:
    add = command.add_argument
    add("file", metavar="FILE", type=Path, help=f"data with column names: {', '.join((*TEXT, *OTHERS))}")
    add("formula", metavar="FORMULA", help='outcome formula, such as "y ~ x1 + C(site)"')
    add("--treat", required=True, metavar="COLUMN", help="treatment column")
    add("--treated", metavar="LEVEL", help="treatment level of the treated group")
    add("--reference", metavar="LEVEL", help="treatment level of the comparison group")
    add("--propensity", metavar="FORMULA", help="propensity formula (default: right side of FORMULA)")
    add("--family", help="gaussian, binomial, poisson, gamma (default gaussian)")
    add("--effect", default="difference", help="difference (default), ratio, odds_ratio, percent, quantile")
    add("--target", help="population: all (default), treated, controls, overlap, ... or a level")
    add("--weights", metavar="COLUMN", help="observation weights; needs --weight-type")
    add("--weight-type", metavar="TYPE", help="frequency or probability")
    add("--cluster", metavar="COLUMN", help='clusters; two-way clusters are "firm,year"')
    if name == "compare":
        add("--estimator", metavar="NAMES", help="such as AIPW,JRE (default: all)")
    else:
        add("--estimator", default="AIPW", metavar="NAME", help="OutcomeRegression, IPW, IPWRA, AIPW or JRE")
        add("--cov-type", metavar="TYPE", help="robust (default; bootstrap for JRE), HC1, jackknife, bootstrap")
    add("--n-boot", type=int, metavar="N", help="number of bootstrap resamples (default 999); implies the bootstrap")
    add("--seed", type=int, default=0, metavar="N", help="seed of the random numbers (default 0)")
    add("--alpha", type=float, default=0.05, metavar="P", help="1 - confidence level (default 0.05)")
    add("--sep", metavar="SIGN", help='separator of a text file (default ","; tab for .tsv)')
    add("--decimal", default=".", metavar="SIGN", help='decimal mark of a text file (default ".")')
    add("--encoding", default="utf-8", metavar="NAME", help="encoding of a text file (default utf-8)")
    add("--na", metavar="WORDS", help="further words for missing values, such as NA,unknown")
    page = {"default": Path("report.html"), "help": "file to write (default report.html)"}
    other = {"help": f"write to FILE: {', '.join(FORMATS)}"}
    add("-o", "--output", type=Path, metavar="FILE", **(page if name == "report" else other))


def _run(options: argparse.Namespace) -> str:
    """Run the command `fit`, `compare` or `report`. Return the text to print: the results, or the path of the file."""
    drawn: dict[str, Any] = {"n_boot": options.n_boot, "rng": options.seed}
    if options.command == "compare":
        names = options.estimator and options.estimator.replace(",", " ")
        res: Any = cr.compare(**_arguments(options, names)[1], estimators=names, **drawn)
    else:
        (model,), given = _arguments(options, [options.estimator])
        res = model.from_formula(**given).fit(cov_type=options.cov_type, **drawn)
    if options.command == "report":
        return f"{res!r}\nWritten: {res.report(options.output, alpha=options.alpha)}"
    summary = res.summary(options.alpha)
    if options.output is None:
        return str(summary)
    if options.output.suffix.lower() == ".json":
        estimates = res.tidy(alpha=options.alpha).to_dict("records")
        found = json.dumps({"glance": res.glance().to_dict("records"), "estimates": estimates, "notes": summary.notes})
        strict = json.loads(found, parse_constant=lambda _: None)  # JSON has neither NaN nor Infinity
        options.output.write_text(json.dumps(strict, indent=2) + "\n", "utf-8")
    else:
        summary.save(options.output)
    return f"Written: {options.output}"


def _arguments(options: argparse.Namespace, names: Any) -> tuple[list[Any], dict[str, Any]]:
    """Return the named model classes and the arguments of a model, after checking the output and the formulas."""
    global exp, log, sqrt  # functions that formulas may name
    from numpy import exp, log, sqrt

    from causalrisk.models.estimators import chosen_models

    _check_output(options, (".html", ".htm") if options.command == "report" else FORMATS)
    models, data = chosen_models(names), read_file(options)
    check_formula(options.formula, data, "outcome")
    check_formula(options.propensity or "", data, "propensity")
    same = ("formula", "treat", "propensity", "effect", "weights", "weight_type", "cluster", "family")
    treatment = data.get(options.treat)
    given = {"data": data} | {name: getattr(options, name) for name in same}
    given |= {name: _level(getattr(options, name), treatment) for name in ("treated", "reference", "target")}
    if options.cluster not in data and "," in (options.cluster or ""):
        given["cluster"] = options.cluster.split(",")
    given = {name: value for name, value in given.items() if value is not None}
    return models, given


def _level(text: str | None, column: pd.Series | None) -> Any:
    """Return the level of a column that prints as `text`; if there is none, the text itself."""
    for level in () if text is None or column is None else column.dropna().unique():
        if str(level) == text or (isinstance(level, float) and level.is_integer() and str(int(level)) == text):
            return level
    return text


def _check_output(options: argparse.Namespace, endings: Sequence[str]) -> None:
    path = options.output
    if path is None:
        return
    if path.suffix.lower() not in endings:
        raise cr.OptionError(f"--output {path}: expected a name that ends in {', '.join(endings)}.")
    if not path.parent.is_dir():
        raise cr.OptionError(f"--output {path}: there is no folder '{path.parent}'. Make it first.")
    if path.exists() and options.file.exists() and path.samefile(options.file):
        raise cr.OptionError(f"--output {path} is the data file. Use another name.")


def _demo(options: argparse.Namespace) -> str:
    formula = "bweight ~ prenatal1 + mmarried + mage + fbaby"
    propensity = "mmarried + mage + I(mage**2) + fbaby + medu"
    births = cr.datasets.load_cattaneo2()
    res = cr.AIPW.from_formula(formula, births, treat="mbsmoke", propensity=propensity).fit()
    together = cr.compare(formula, births, treat="mbsmoke", propensity=propensity)
    return f"""Birth weight in grams of 4642 infants, by whether the mother smoked (cattaneo2).

>>> from causalrisk import AIPW, compare, datasets
>>> births = datasets.load_cattaneo2()
>>> formula = "{formula}"
>>> propensity = "{propensity}"
>>> print(AIPW.from_formula(formula, births, treat="mbsmoke", propensity=propensity).fit().summary())

{res.summary()}

>>> print(compare(formula, births, treat="mbsmoke", propensity=propensity).summary())

{together.summary()}

Comparability of the groups given these covariates is an assumption that no
estimator tests."""


def read_file(options: argparse.Namespace) -> pd.DataFrame:
    """Read the local data file `options.file`, whose ending gives the format."""
    import pandas as pd

    from causalrisk.design.scan import read_csv, reading

    path, ending = options.file, "".join(options.file.suffixes).lower()
    kind = next((known for known in (*TEXT, *OTHERS) if ending.endswith(known)), None)
    if kind is None:
        raise cr.DesignError(f"{str(path)!r}: expected a file that ends in {', '.join((*TEXT, *OTHERS))}.")
    if not path.is_file():
        raise cr.DesignError(f"there is no file {str(path)!r} on this computer.")
    sep, words = (options.sep or TEXT.get(kind, "")).replace("\\t", "\t"), (options.na or "").split(",")
    if kind in TEXT and len(sep) != 1:
        raise cr.OptionError(f"--sep {sep}: expected one character.")
    with reading(repr(str(path)), MARKS if kind in TEXT else "Check that the file is complete."):
        if kind in OTHERS:
            return getattr(pd, OTHERS[kind])(path)
        data = read_csv(path, sep=sep, decimal=options.decimal, encoding=options.encoding, na_values=words)
        if len(data.columns) == 1:
            raise cr.DesignError(f"{str(path)!r} has one column, {data.columns[0]!r}.\n{MARKS}")
        return data


CONTRAST = r"((Diff|Helmert|Poly|Sum|Treatment)(\((reference=)?('[^']*'|\"[^\"]*\"|-?[\d.]+)?\))?)?"
SIZE = r"((df=|degree=)?([12]?\d|30)|knots=[\[(][-\d., e]{,300}[\])])"
FUNCTIONS = {  # patterns of functions, and of their arguments after the first
    r"I|abs|center|exp|log|scale|sqrt|standardize|np\.(abs|exp|expm1|log|log10|log1p|log2|sign|sqrt|square)": "",
    "C": CONTRAST,
    "bs|cc|cr": f"({SIZE}(, {SIZE})*)?",
}
OPERATORS = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.Mod, ast.FloorDiv, ast.BitAnd, ast.BitOr)


def check_formula(text: str, data: pd.DataFrame, model: str) -> None:
    """Raise an error for a formula that does more than compute with columns, because formulas run as Python code."""
    from causalrisk.design.formulas import refuse_foreign

    try:
        for side in filter(str.strip, text.split("~")):
            # `a:b` is not Python, so check `a*b` instead, which has the same parts. Quoted text is left as it is.
            code = re.sub(r"(\"[^\"]*\"|'[^']*')|:", lambda m: m[1] or "*", side).strip()
            _check_part(ast.parse(code, mode="eval").body, [*map(str, data)])
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        refuse_foreign(text, model)  # for the notation of R and Stata, an error that says what to type here
        if isinstance(error, cr.DesignError):
            raise
        why = str(getattr(error, "msg", error)).rstrip(".")
        raise cr.DesignError(f"the {model} formula {text!r} cannot be read: {why}.") from error


def _check_part(node: ast.AST, columns: Sequence[str]) -> None:
    """Raise an error if a part of a formula is not on the list of allowed parts."""
    from causalrisk.design.tables import nearest

    parts: Sequence[ast.AST] | None = None
    match node:
        case ast.Name(name) | ast.Call(ast.Name("Q"), [ast.Constant(str(name))], []) if name in columns:
            parts = []
        case ast.Name(name):
            raise cr.DesignError(f"{name!r} in a formula is not a column of the file.\n{nearest(name, columns)}")
        case ast.Constant(int() | float()):
            parts = []
        case ast.UnaryOp(ast.USub() | ast.UAdd(), part):
            parts = [part]
        case ast.BinOp(base, ast.Pow(), power) if re.fullmatch(r"-?(10|\d(\.\d+)?)", ast.unparse(power)):
            parts = None if ast.Pow in map(type, ast.walk(base)) else [base]  # 9**9**9 has no bound
        case ast.BinOp(left, operator, right) if isinstance(operator, OPERATORS):
            parts = [left, right]
        case ast.Compare(left, _, others):
            parts = [part for part in (left, *others) if not isinstance(part, ast.Constant)]
        case ast.Call(function, [part, *more], options):
            name, further = ast.unparse(function), ", ".join(map(ast.unparse, [*more, *options]))
            if any(re.fullmatch(names, name) and re.fullmatch(own, further) for names, own in FUNCTIONS.items()):
                parts = [part]
    if parts is None:
        raise cr.DesignError(
            f"`{ast.unparse(node)[:80]}` is not allowed in a formula on the command line. Make it a column of the file."
            "\nAllowed are columns, numbers, operators, comparisons, I, abs, center, exp, log, scale, sqrt, "
            "standardize, bs, cc, cr, C, Q, np.log, np.log1p and other numpy functions of one argument."
        )
    for each in parts:
        _check_part(each, columns)

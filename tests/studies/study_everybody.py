"""JRE beside the estimators a referee asks about: `python -m tests.studies.study_everybody --jobs 2 --store FOLDER`.

The study writes tables/everybody.csv and the page docs/explanation/everybody.md; `--pages` writes the page from the
stored table. The folder keeps the finished study of each population, so that a run that was interrupted goes on with
the next. DoubleML takes `pip install doubleml`; without it it is left out, and a line says so.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # one thread a process; must be set before numpy loads

import argparse
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd

import causalrisk as cr
from causalrisk.simulation.designs import SEED
from tests.studies import published
from tests.studies.competitors import doubleml_irm
from tests.studies.evidence_pages import TABLES, counted, filled, markdown, number
from tests.studies.groups import kept
from tests.studies.own_designs import LalondeLike, MissedConfounder, OppositeCurves
from tests.studies.study_coverage import resampled_error

OWN = [
    "linear", "linear_strong", "heavy_tails", "randomized", "quadratic", "strong", "weak_overlap", "doubly_wrong",
    "kang_schafer", "ten_covariates", "wiggly", "interaction", "binary_outcome", "rare_treatment", LalondeLike(),
]  # fmt: skip
PUBLISHED = [
    published.Hainmueller(outcome=2), published.Hainmueller(), published.Froelich(), published.Froelich(0.0, 1.0),
    published.LuncefordDavidian(), published.SetoguchiLee(), published.HahnMurrayCarvalho(), published.Tan(),
]  # fmt: skip
LOSSES = [MissedConfounder(), OppositeCurves()]
PAGE = Path(__file__).resolve().parents[2] / "docs" / "explanation" / "everybody.md"
LARGE = 200_000  # units from which the share of effective observations and the effect under overlap weights come
OVERLAP = "overlap weights"
REFERENCE = "IPWRA"
COMMAND = "python -m tests.studies.study_everybody"


def with_squares(trial):
    """IPWRA with the squares of covariates that have more than two values in both formulas; see `run_study`."""
    rhs = trial.formula.partition("~")[2].strip()
    names = [name for name in trial.propensity.split(" + ") if name in trial.data and trial.data[name].nunique() > 2]
    squares = "".join(f" + I({name}**2)" for name in names)
    res = cr.IPWRA.from_formula(
        f"y ~ {rhs}{squares}", trial.data, treat="d", propensity=trial.propensity + squares
    ).fit()
    return res.effect, res.effect_se


def with_overlap_weights(trial):
    """IPW with overlap weights, whose effect is not the design's; see `truths`."""
    res = trial.model(cr.IPW, target="overlap").fit(rng=trial.seed)
    return res.effect, res.effect_se


def estimators(n_boot):
    """Return the estimators, with the standard errors they have by default, but fewer resamples."""
    resamples = {"cov_type": "bootstrap", "n_boot": n_boot}
    if not find_spec("doubleml"):
        print("Without DoubleML: type  pip install doubleml.")
    return {
        REFERENCE: "IPWRA",
        "IPWRA squares": with_squares,
        "IPWRA calibrated": ("IPWRA", {"propensity_loss": "calibrated"}),
        "AIPW": "AIPW",
        "AIPW smooth": ("AIPW", {"learner": "smooth"}),
        "TMLE": "TMLE",
        **({"DoubleML": doubleml_irm} if find_spec("doubleml") else {}),
        OVERLAP: with_overlap_weights,
        "JRE": ("JRE", resamples),
        "JRE smooth": ("JRE", resamples | {"learner": "smooth"}),
    }


def truths(design):
    """Return the share of effective observations in the worse arm, and the effect under overlap weights."""
    units = design.population(LARGE, np.random.default_rng(SEED))
    e, effect = units.score, units.mean[1] - units.mean[0]
    # of an arm with chance p weighted by 1 / p: (E 1)^2 / (E 1/p), over the arm's share E p
    shares = [1 / (np.mean(1 / p) * np.mean(p)) for p in (e, 1 - e)]
    return min(shares), float(np.average(effect, weights=e * (1 - e)))


def root_ratio(error, reference):
    """Root mean squared error over that of the reference."""
    return np.sqrt((error**2).mean(axis=0) / (reference**2).mean(axis=0))


def summarise(study):
    """Return one row for each design and estimator, on the samples where all succeeded."""
    rows = []
    for design in study.designs:
        share, overlap_effect = truths(design)
        part = study.raw[study.raw["design"] == design.name]
        wide = part.pivot(index="sample", columns="estimator", values=["estimate", "se"]).dropna()
        reference = wide["estimate", REFERENCE].to_numpy() - design.effect
        for name in part["estimator"].unique():
            error = wide["estimate", name].to_numpy() - (overlap_effect if name == OVERLAP else design.effect)
            se = wide["se", name].to_numpy()
            rows.append(
                {
                    "design": design.name, "estimator": name, "samples": len(wide), "effective": share,
                    "bias": error.mean() / reference.std(ddof=1),
                    "rmse": root_ratio(error, reference), "rmse_mc": resampled_error(root_ratio, error, reference),
                    "coverage": np.mean(np.abs(error) <= 1.959964 * se),
                    "length": se.mean() / wide["se", REFERENCE].mean(),
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


def cells(table, value):
    """Return a table of Markdown: a row a population, a column an estimator; ratios of JRE with Monte Carlo errors."""
    names, rows = list(table["estimator"].unique()), []
    for design, part in table.groupby("design", sort=False):
        found = part.set_index("estimator")
        errors = [found.loc[name, "rmse_mc"] if value == "rmse" and "JRE" in name else None for name in names]
        rows.append([design, *(number(found.loc[name, value], mc, 2) for name, mc in zip(names, errors, strict=True))])
    return markdown(rows, ["population", *names])


def page(table, command):
    """Return the text of the page."""
    joint = table[table["estimator"] == "JRE"].sort_values("rmse", ascending=False, kind="stable")
    table = pd.concat([table[table["design"] == design] for design in joint["design"]])
    overall = []
    for name, part in table.groupby("estimator", sort=False):
        worst = part.loc[part["rmse"].idxmax()]
        mean, coverage = np.exp(np.log(part["rmse"]).mean()), part["coverage"]
        overall.append([name, number(mean, digits=2), f"{worst['rmse']:.2f} ({worst['design']})",
                        number(coverage.mean(), digits=2), number(coverage.min(), digits=2)])  # fmt: skip
    heads = ["estimator", "RMSE, mean", "RMSE, worst", "coverage, mean", "coverage, lowest"]
    shares = [[row.design, number(row.effective, digits=2), str(row.samples)] for row in joint.itertuples()]
    return filled(
        PAGE_TEXT.format(
            overall=markdown(overall, heads), rmse=cells(table, "rmse"), coverage=cells(table, "coverage"),
            bias=cells(table, "bias"), length=cells(table, "length"), command=command, n_designs=len(joint),
            shares=markdown(shares, ["population", "effective share", "samples"]),
            samples=counted(joint),
        )
    )  # fmt: skip


PAGE_TEXT = """# JRE next to other estimators

The [evidence](evidence.md) compares JRE with IPWRA. Here are more estimators.

- IPWRA with squares in both formulas, and IPWRA with calibrated weights.
- AIPW, AIPW on predictions (`learner="smooth"`), TMLE and overlap weights.
- DoubleML's interactive model: linear and logistic regressions, cross-fitted.
- "JRE smooth", the stack of the formula and a learner: `JRE(learner="smooth")`.

There are {n_designs} populations of n = 500, {samples} samples each: our own, and
those of other papers (`tests/studies/published.py`). Two of them, `opposite_curves` and `missed_confounder`,
were made because JRE loses there.

**RMSE is over IPWRA's: below 1 is better.** The table has the geometric mean over the populations, the worst, and the
share of 95% intervals that contain the effect:

{overall}

Overlap weights have an effect of their own, on units that could be in either group. They are judged by that effect.

## Root mean squared error, losses of JRE first

In parentheses: Monte Carlo error.

{rmse}

- `opposite_curves`: the groups bend in opposite ways, and both models miss the square. Held-out variance cannot see
  that. The fit [warns](jre.md#what-to-report) if JRE and IPWRA differ and tests find that both models miss a curve.
- `missed_confounder`: the outcome formula lacks a strong confounder. The score's linear predictor joins the outcome
  columns, which fixes most of it.
- Squares in both formulas beat JRE where a square is what is missing, and lose elsewhere.
- The stack loses in `opposite_curves` alone. It needs more time and more rows than JRE on the formula.

## Coverage of 95% intervals

Each estimator has its default intervals: robust, for JRE from the bootstrap (with fewer resamples than the default).
With 50 samples the Monte Carlo error is 0.03 at 0.95 and 0.07 at 0.5.

{coverage}

No interval covers the bias of two wrong models.

## Bias

In standard deviations of IPWRA's estimates.

{bias}

## Length of intervals, over IPWRA's

{length}

## Overlap

Effective observations in the worse group, as a share of its observations, if the true scores were known. Above 0.8
overlap is good: all estimators with a correct model cover. Below 0.5 look at the [weights](../howto/diagnostics.md)
first.

{shares}

Made by `{command}`.
"""


def arguments():
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--full", action="store_true", help="1,000 samples instead of 50: hours")
    parser.add_argument("--pages", action="store_true", help="no study: the page from the stored table")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--store", type=Path, help="folder for finished studies")
    return parser.parse_args()


def main():
    """Run the study and write its table and page."""
    args = arguments()
    file, command = TABLES / "everybody.csv", COMMAND + " --full" * args.full
    if not args.pages:
        options = {"n": 500, "n_sims": 1000 if args.full else 50, "n_jobs": args.jobs, "progress": True}
        options["estimators"] = estimators(199)
        found = [summarise(kept(args.store, design, **options)) for design in [*OWN, *PUBLISHED, *LOSSES]]
        pd.concat(found).to_csv(file, index=False, float_format="%.6g")
    PAGE.write_text(page(pd.read_csv(file), command), "utf-8")


if __name__ == "__main__":
    main()

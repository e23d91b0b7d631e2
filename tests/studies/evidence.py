"""The evidence behind the defaults: `python -m tests.studies.evidence --quick --jobs 2` writes docs/explanation.

Every table is a study of `causalrisk.simulation`; `--store FOLDER` keeps finished parts, so that a run that was
interrupted goes on.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # one thread a process; must be set before numpy loads

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import causalrisk as cr
from causalrisk.simulation import DESIGNS, run_study
from tests.studies.averages import geometric_mean
from tests.studies.designs import MISSPECIFIED, RIGHT
from tests.studies.evidence_text import COVERAGE, GAIN, HEAD, MEAN, OTHERS, TRIED
from tests.studies.study_defaults import compare_settings

MORE = (
    "quadratic",
    "interaction",
    "binary_outcome",
    "heavy_tails",
    "rare_treatment",
    "lalonde_like",
    "forty_covariates",
)
SIZES = (200, 500, 1000)
FOLDER = Path(__file__).resolve().parents[2] / "docs" / "explanation"


@dataclass(frozen=True)
class Grid:
    """How much work a run does.

    Parameters
    ----------
    misspecified, right, more : int
        Samples of each design of these groups.
    others : int
        Samples of the comparison of all estimators.
    covered : int
        Samples of the coverage study.
    n_boot : int
        Resamples there.
    mean : int
        Samples of Kang and Schafer's mean problem.
    n_replicates : int
        Propensity replicates of JRE.
    settings : int
        Samples of each design in the comparison of settings.
    """

    misspecified: int
    right: int
    more: int
    others: int
    covered: int
    n_boot: int
    mean: int
    n_replicates: int
    settings: int


QUICK = Grid(300, 800, 150, 60, 500, 99, 600, 60, 60)
FULL = Grid(2000, 5000, 2000, 2000, 2000, 399, 5000, 500, 2000)


def number(value, error=None, digits=2):
    """Write a number with its Monte Carlo error in parentheses."""
    return f"{value:.{digits}f}" + ("" if error is None else f" ({error:.{digits}f})")


def markdown(rows, head):
    """Write rows of text as a markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def gains(args, grid, estimators):
    """Mean squared error of JRE over that of IPWRA, for every design and size.

    Returns
    -------
    studies : list of StudyResults
        One for each group of designs.
    text : str
        The tables.
    """
    groups = ((MISSPECIFIED, grid.misspecified), (RIGHT, grid.right), (MORE, grid.more))
    options = {"n": SIZES, "estimators": {"IPWRA": "IPWRA", **estimators}, "n_jobs": args.jobs, "progress": True}
    studies = [
        run_study(list(names), n_sims=count, path=args.store and args.store / f"gains-{count}", **options)
        for names, count in groups
    ]
    parts = []
    for label in estimators:
        rows = []
        for study in studies:
            table = study.table.xs(label, level="estimator")
            rows += [
                [name, *(number(*table.loc[(name, n), ["mse_ratio", "mse_ratio_mc"]], digits=3) for n in SIZES)]
                for name in dict.fromkeys(table.index.get_level_values("design"))
            ]
        table = studies[0].table.xs(label, level="estimator")
        means = [geometric_mean(*table.xs(n, level="n")[["mse_ratio", "mse_ratio_mc"]].to_numpy().T) for n in SIZES]
        rows.insert(len(MISSPECIFIED), ["**geometric mean of these six**", *(number(*m, digits=3) for m in means)])
        heads = [label, *(f"n = {n}" for n in SIZES)]
        parts.append(markdown(rows, heads))
    return studies, "\n\n".join(parts)


def others(args, grid):
    """Every estimator at n = 500."""
    names = ["Unadjusted", "OutcomeRegression", "Hajek", "IPWRA", "AIPW", "JRE"]
    study = run_study(
        [*MISSPECIFIED, *RIGHT, "lalonde_like"], n=500, n_sims=grid.others, estimators=names, n_jobs=args.jobs,
        progress=True, path=args.store and args.store / "others",
    )  # fmt: skip
    table = study.table.droplevel("n")
    rows = [
        [design.name, *(number(table.loc[(design.name, name), column]) for name in names)]
        for column in ("mse_ratio", "mse_over_bound")
        for design in study.designs
    ]
    half = len(study.designs)
    heads = ["design", *names]
    return f"{markdown(rows[:half], heads)}\n\n{OTHERS[1]}\n\n{markdown(rows[half:], heads)}"


def coverage(args, grid):
    """Coverage of the bootstrap's intervals, JRE beside IPWRA."""
    sizes = SIZES[:2]
    joint = ("JRE", {"n_replicates": min(grid.n_replicates, 200)})
    study = run_study(
        ["lalonde_like", "rare_treatment", *MISSPECIFIED, *RIGHT, "interaction"], n=sizes,
        n_sims=grid.covered, estimators={"IPWRA": "IPWRA", "JRE": joint}, n_boot=grid.n_boot, n_jobs=args.jobs,
        progress=True, path=args.store and args.store / "coverage",
    )  # fmt: skip
    rows = []
    for n in sizes:
        table = study.table.xs(n, level="n")
        for design in study.designs:
            row = [design.name, str(n)]
            for name in ("IPWRA", "JRE"):
                found = table.loc[(design.name, name)]
                row += [number(found["coverage"], found["coverage_mc"], 3), number(found["mean_se"] / found["sd"])]
            rows.append(row)
    return markdown(rows, ["design", "n", "IPWRA covers", "SE / SD", "JRE covers", "SE / SD"])


def mean_problem(args, grid):
    """Kang and Schafer's mean of an outcome that is missing, beside what they published."""
    names = ["OutcomeRegression", "Hajek", "IPWRA", "AIPW", "JRE"]
    study = run_study(
        "kang_schafer_mean", n=200, n_sims=grid.mean, estimators=names, n_jobs=args.jobs, progress=True,
        path=args.store and args.store / "mean",
    )  # fmt: skip
    published = {"OutcomeRegression": "-0.51 / 3.38"}
    table = study.table.droplevel(["design", "n"])
    rows = [
        [name, number(table.loc[name, "bias"], table.loc[name, "bias_mc"]), number(table.loc[name, "rmse"]),
         published.get(name, "")]
        for name in names
    ]  # fmt: skip
    return markdown(rows, ["estimator", "bias", "RMSE", "published bias / RMSE"])


def settings(args, grid):
    """Settings of the joint objective, by the prototype of `study_defaults`."""
    ratios, covered = compare_settings(n=200, sims=grid.settings, jobs=args.jobs)
    parts = []
    for frame in (ratios, covered):
        rows = [[label, *map(str, row)] for label, row in zip(frame.index, frame.to_numpy(), strict=True)]
        parts.append(markdown(rows, ["n = 200", *frame.columns]))
    return f"{parts[0]}\n\n{TRIED[1]}\n\n{parts[1]}\n\n{TRIED[2]}"


def draw_figure(studies, file):
    """Plot JRE's ratios, designs as rows."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "causalrisk"  # the same file from the same numbers
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(studies), figsize=(12, 6), layout="constrained")
    for ax, study, title in zip(axes, studies, ("outcome model wrong", "both right, trial", "others"), strict=True):
        study.plot(ax, estimators=["JRE"])
        ax.set_title(title)
        ax.axvline(0.85, color="C3", linewidth=1, linestyle=":")
    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)


def arguments():
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="a small grid, in minutes (the default)")
    size.add_argument("--full", action="store_true", help="the full grid, in hours, with objective erm beside")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--store", type=Path, help="folder for finished parts")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of evidence.md and its figure")
    return parser.parse_args()


def main():
    """Run the studies and write the page."""
    args = arguments()
    grid, begun = FULL if args.full else QUICK, time.perf_counter()
    joint = {"n_replicates": grid.n_replicates}
    estimators = {"JRE": ("JRE", joint)}
    if args.full:
        estimators["JRE erm"] = ("JRE", joint | {"objective": "erm"})
    studies, table = gains(args, grid, estimators)
    args.out.mkdir(parents=True, exist_ok=True)
    draw_figure(studies, args.out / "evidence.svg")
    sections = (
        HEAD, GAIN, table, MEAN, mean_problem(args, grid), OTHERS[0], others(args, grid), COVERAGE,
        coverage(args, grid), TRIED[0], settings(args, grid),
    )  # fmt: skip
    command = f"python -m tests.studies.evidence --{'full' if args.full else 'quick'} --jobs {args.jobs}"
    made = (
        f"Made by `{command}` with causalrisk {cr.__version__}: "
        f"{grid.misspecified} samples of each design that is wrong on purpose, {grid.right} of each that is right, "
        f"{grid.more} of the rest; {grid.n_replicates} propensity replicates."
    )
    (args.out / "evidence.md").write_text("\n\n".join((*sections, made)) + "\n", "utf-8")
    print(f"{args.out / 'evidence.md'}: {time.perf_counter() - begun:.0f} s, {len(DESIGNS)} designs known")


if __name__ == "__main__":
    main()

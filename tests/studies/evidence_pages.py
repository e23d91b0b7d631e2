"""The pages of evidence and their figure, from the tables that `tests.studies.evidence` stores."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

import numpy as np
import pandas as pd

from tests.studies.averages import geometric_mean
from tests.studies.designs import MISSPECIFIED
from tests.studies.evidence_text import NOTEBOOK, PAGE, WRONG
from tests.studies.study_outside import wide as outside_cells

TABLES = Path(__file__).parent / "tables"
SIZES = (200, 500, 1000)
NOTHING_TO_GAIN = ["linear", "linear_strong", "heavy_tails", "wiggly"]
CURVED = [*(name for name in MISSPECIFIED if name != "wiggly"), "quadratic", "interaction", "rare_treatment",
          "forty_covariates"]  # fmt: skip
PUBLISHED = {"OutcomeRegression": "-0.51 / 3.38"}
MARKERS = (("o", "#0072B2"), ("s", "#D55E00"), ("^", "#009E73"))


def number(value, error=None, digits=3):
    """Write a number with its Monte Carlo error in parentheses."""
    return f"{value:.{digits}f}" + ("" if error is None else f" ({error:.{digits}f})")


def series(cells):
    """Write texts one after the other, with "and" before the last."""
    return f"{', '.join(cells[:-1])} and {cells[-1]}"


def markdown(rows, head):
    """Write rows of text as a markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"|{'|'.join(cells)}|" for cells in lines)


def filled(text):
    """Break the lines of paragraphs and lists anew, after numbers have been put in."""
    blocks = []
    for block in text.strip().split("\n\n"):
        if block[0] not in "|#!":
            items = block.split("\n- ") if block.startswith("- ") else [block]
            block = "\n".join(
                textwrap.fill(
                    ("- " if k else "") + " ".join(item.split()), 120, subsequent_indent="  " if len(items) > 1 else "",
                    break_on_hyphens=False, break_long_words=False,
                )
                for k, item in enumerate(items)
            )  # fmt: skip
        blocks.append(block)
    return "\n\n".join(blocks) + "\n"


def read(folder):
    """Read the stored tables: a data frame by name, and how they were made."""
    tables = {file.stem: pd.read_csv(file) for file in sorted(folder.glob("*.csv"))}
    return tables, json.loads((folder / "made.json").read_text("utf-8"))


def ranked(gains):
    """Ratios of JRE by design and size, the design with the largest ratio first."""
    cells = gains[gains["estimator"] == "JRE"].set_index(["design", "n"])
    worst = cells["mse_ratio"].groupby("design").max().sort_values(ascending=False, kind="stable")
    return cells, list(worst.index)


def gain_table(tables):
    """The table of the page: ratios by size, and coverage where it was measured."""
    cells, designs = ranked(tables["gains"])
    covered = tables["coverage"].query("n == 500").set_index(["design", "estimator"])
    rows = []
    for name in designs:
        ratios = [number(*cells.loc[(name, n), ["mse_ratio", "mse_ratio_mc"]]) for n in SIZES]
        row = [name, WRONG[name], str(cells.loc[(name, SIZES[0]), "samples"]), *ratios]
        for estimator in ("IPWRA", "JRE"):
            found = covered.loc[(name, estimator)] if (name, estimator) in covered.index else None
            row.append("" if found is None else number(found["coverage"], found["coverage_mc"]))
        rows.append(row)
    heads = ["population", "wrong", "samples", *(f"n = {n}" for n in SIZES), "IPWRA covers", "JRE covers"]
    return markdown(rows, heads)


def real_table(real):
    """Effects and standard errors on real data."""
    rows = [
        [row["data"], *(f"{row[name]:.4g}" for name in ("IPWRA", "JRE", "SE")), number(row["SE ratio"])]
        for _, row in real.iterrows()
    ]
    return markdown(rows, ["data", "IPWRA", "JRE", "std. error of JRE", "over IPWRA's"])


def scores_table(scores):
    """Mean squared errors of JRE over those of IPWRA where the score is wrong and the outcome right, by size."""
    found = scores[scores["estimator"] == "JRE"]
    rows = [
        [name, *(number(*row) for row in part[["mse_ratio", "mse_ratio_mc"]].to_numpy())]
        for name, part in found.groupby("design", sort=False)
    ]
    return markdown(rows, ["the score misses", *(f"n = {n}" for n in found["n"].unique())])


def biases_table(table, keys):
    """Bias with its Monte Carlo error and root mean squared error, a column an estimator."""
    names, rows = list(table["estimator"].unique()), []
    for cell, part in table.groupby(keys, sort=False):
        found = part.set_index("estimator")[["bias", "bias_mc", "rmse"]]
        text = [f"{bias:+.3f} ({mc:.3f}); {rmse:.3f}" for bias, mc, rmse in found.loc[names].to_numpy()]
        rows.append([*map(str, cell), *text])
    return markdown(rows, [*keys, *names])


def outside_table(outside):
    """Errors over those of IPWRA on benchmarks that others made, the losses of JRE on top."""
    cells = outside_cells(outside[outside["estimator"] != "IPWRA"], "rmse_ratio")
    rows = [[name, *map(str, row)] for name, row in zip(cells.index, cells.to_numpy(), strict=True)]
    return markdown(rows, ["benchmark", *cells.columns])


def counted(table):
    """Number of samples of a cell, or the least and the largest."""
    counts = sorted(set(table["samples"]))
    return str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"


def bounds(cells):
    """The least and the largest ratio, as text."""
    return number(cells["mse_ratio"].min()), number(cells["mse_ratio"].max())


def page_words(tables, made):
    """Every number in the prose of the page."""
    cells, _ = ranked(tables["gains"])
    six = [cells.xs(n, level="n").loc[list(MISSPECIFIED), ["mse_ratio", "mse_ratio_mc"]] for n in SIZES]
    words = {"gains": gain_table(tables), "real": real_table(tables["real"])}
    words["right_low"], words["right_high"] = bounds(cells.loc[NOTHING_TO_GAIN])
    words["wrong_low"], words["wrong_high"] = bounds(cells.loc[CURVED])
    words["means"] = series([number(*geometric_mean(*frame.to_numpy().T)) for frame in six])
    words["six"] = series([f"`{name}`" for name in MISSPECIFIED])
    scores = tables["wrong_scores"]
    words |= {"scores": scores_table(scores), "scores_samples": counted(scores[scores["estimator"] == "JRE"])}
    return words | {"replicates": made["replicates"], "n_boot": made["n_boot"], "made": made_by(made)}


def made_by(made):
    """The sentence about the command."""
    return f"Made by `{made['command']}` with causalrisk {made['version']}."


def mean_table(mean):
    """Kang and Schafer's mean, beside what they published."""
    rows = [
        [row["estimator"], number(row["bias"], row["bias_mc"], 2), number(row["rmse"], digits=2),
         PUBLISHED.get(row["estimator"], "")]
        for _, row in mean.iterrows()
    ]  # fmt: skip
    return markdown(rows, ["estimator", "bias", "RMSE", "published bias / RMSE"])


def notebook_words(tables, made):
    """Every table and number of the notebook."""
    return {
        "mean": mean_table(tables["mean"]), "mean_samples": tables["mean"]["samples"].min(),
        "scores_biases": biases_table(tables["wrong_scores"], ["design", "n"]), "replicates": made["replicates"],
        "scores_samples": counted(tables["wrong_scores"]), "cells": biases_table(tables["cells"], ["design"]),
        "cells_samples": counted(tables["cells"]), "outside": outside_table(tables["outside"]),
        "made": made_by(made),
    }  # fmt: skip


def draw_figure(gains, file):
    """Draw the ratios of JRE with two Monte Carlo errors to either side, the losses on top."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "causalrisk"  # the same file from the same numbers
    import matplotlib.pyplot as plt

    cells, designs = ranked(gains)
    with plt.rc_context({"font.size": 11, "axes.spines.top": False, "axes.spines.right": False}):
        figure, ax = plt.subplots(figsize=(4.8, 7), layout="constrained")
        rows = np.arange(len(designs))[::-1]
        for k, (n, (marker, colour)) in enumerate(zip(SIZES, MARKERS, strict=True)):
            part = cells.xs(n, level="n").loc[designs]
            ax.errorbar(
                part["mse_ratio"], rows + 0.22 * (1 - k), xerr=2 * part["mse_ratio_mc"], fmt=marker, color=colour,
                markersize=5, linewidth=1, label=f"n = {n}",
            )  # fmt: skip
        ax.axvline(1, color="black", linewidth=0.8, zorder=0, label="as IPWRA")
        ax.axvline(0.85, color="0.5", linewidth=1, linestyle=":", zorder=0, label="the paper's 0.85")
        ax.set_xscale("log")
        ticks = [0.15, 0.25, 0.5, 1]
        ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        ax.minorticks_off()
        ax.set_yticks(rows, designs)
        ax.set_xlabel("mean squared error, JRE over IPWRA (log scale)")
        ax.legend(frameon=False, fontsize=9, loc="lower left", bbox_to_anchor=(-0.5, 1), ncols=3)
        figure.savefig(file, metadata={"Date": None}, bbox_inches="tight")
        plt.close(figure)


def write_pages(tables_folder, page_folder, notebook_folder):
    """Write evidence.md, its figure and the notebook from stored tables."""
    tables, made = read(tables_folder)
    for folder in (page_folder, notebook_folder):
        folder.mkdir(parents=True, exist_ok=True)
    draw_figure(tables["gains"], page_folder / "evidence.svg")
    (page_folder / "evidence.md").write_text(filled(PAGE.format(**page_words(tables, made))), "utf-8")
    (notebook_folder / "evidence_notebook.md").write_text(
        filled(NOTEBOOK.format(**notebook_words(tables, made))), "utf-8"
    )

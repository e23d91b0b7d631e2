"""The picture of README.md: `python -m tests.studies.readme_figure` writes docs/_static/overview.png."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import causalrisk as cr
from tests.conftest import CATTANEO_PROPENSITY, CATTANEO_RHS
from tests.studies.evidence_pages import MARKERS, TABLES, ranked, read

FILE = Path(__file__).resolve().parents[2] / "docs" / "_static" / "overview.png"
STYLE = {"font.size": 10.5, "axes.titlesize": 11, "axes.spines.top": False, "axes.spines.right": False}
SIZE = 500  # of the samples of the evidence


def draw_evidence(ax):
    """Draw the error of JRE over that of IPWRA by population, with two Monte Carlo errors to either side."""
    cells, _ = ranked(read(TABLES)[0]["gains"])
    part = cells.xs(SIZE, level="n").sort_values("mse_ratio", ascending=False)
    rows = np.arange(len(part))[::-1]
    marker, colour = MARKERS[0]
    ax.errorbar(part["mse_ratio"], rows, xerr=2 * part["mse_ratio_mc"], fmt=marker, color=colour, ms=4, lw=1)
    ax.axvline(1, color="black", linewidth=0.8, zorder=0)
    ax.set_xscale("log")
    ax.set_xlim(0.18, 1.35)
    ticks = [0.25, 0.5, 1]
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.minorticks_off()
    ax.set_yticks(rows, [name.replace("_", " ") for name in part.index], fontsize=9)
    ax.set_title(f"Mean squared error,\nJRE over IPWRA, n = {SIZE}", loc="left")
    ax.set_xlabel("left of the line: JRE is better")


def draw(figure):
    """Draw balance, effects and evidence."""
    births = cr.datasets.load_cattaneo2()
    options = {"treat": "mbsmoke", "propensity": CATTANEO_PROPENSITY}
    left, evidence = figure.subfigures(1, 2, width_ratios=(1.1, 1))
    balance, effects = left.subplots(2, 1, height_ratios=(1, 1.1))
    cr.IPWRA.from_formula(f"bweight ~ {CATTANEO_RHS}", births, **options).fit().plot_balance(balance)
    balance.legend(frameon=False, fontsize=9, loc="lower right")
    balance.set_title("Are smokers like the others?", loc="left")
    balance.set_xlabel("absolute difference of means")
    cr.compare(f"bweight ~ {CATTANEO_RHS}", births, **options).plot(effects)
    effects.set_title("Effect on birth weight, grams", loc="left")
    effects.set_xlabel("95% interval, same resamples")
    draw_evidence(evidence.subplots())


def main():
    """Write the picture."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    with plt.rc_context(STYLE):
        figure = plt.figure(figsize=(7.6, 5.4), layout="constrained")
        draw(figure)
        figure.savefig(FILE, dpi=150, metadata={"Software": None})


if __name__ == "__main__":
    main()

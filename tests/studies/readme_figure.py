"""The picture of README.md: `python -m tests.studies.readme_figure` writes docs/_static/arms_and_target.png."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import causalrisk as cr
from tests.conftest import CATTANEO_PROPENSITY, CATTANEO_RHS

FILE = Path(__file__).resolve().parents[2] / "docs" / "_static" / "arms_and_target.png"
ARMS = ((0, "nonsmokers", "#D55E00"), (1, "smokers", "#0072B2"))


def draw(figure):
    """Draw the mothers' age in both arms and in everybody, before and after weighting."""
    births = cr.datasets.load_cattaneo2()
    model = cr.JRE.from_formula(f"bweight ~ {CATTANEO_RHS}", births, treat="mbsmoke", propensity=CATTANEO_PROPENSITY)
    weight = model.fit(cov_type="robust").importance_weights
    edges = np.arange(12.5, 47, 2)
    axes = figure.subplots(2, 1, sharex=True, sharey=True)
    for ax, weights, title in zip(axes, (np.ones(len(births)), weight), ("as they are", "weighted"), strict=True):
        ax.hist(births["mage"], edges, density=True, color="0.85", label="everybody")
        for arm, label, colour in ARMS:
            rows = (births["mbsmoke"] == arm).to_numpy()
            ax.hist(
                births["mage"][rows], edges, density=True, weights=np.asarray(weights)[rows], histtype="step",
                linewidth=1.8, color=colour, label=label,
            )  # fmt: skip
        ax.set_title(f"mothers {title}", loc="left", fontsize=12)
        ax.set_yticks([])
        ax.spines[["top", "right", "left"]].set_visible(False)
    axes[0].legend(frameon=False, fontsize=11)
    axes[1].set_xlabel("mother's age")


def main():
    """Write the picture."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure = plt.figure(figsize=(6, 4.4), layout="constrained")
    draw(figure)
    figure.savefig(FILE, dpi=120, metadata={"Software": None})


if __name__ == "__main__":
    main()

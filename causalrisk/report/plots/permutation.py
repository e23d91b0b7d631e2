"""The plot of a permutation test."""

from __future__ import annotations

from typing import Any

import numpy as np

from causalrisk.inference.permutation import Permutations
from causalrisk.report.plots.axes import BLUE, axes_or_new, finish, ink, verbatim
from causalrisk.report.tables.text import format_p

BARS = 60


def draw_permutations(found: Permutations, ax: Any = None) -> Any:
    """Draw a histogram of a statistic over permutations, what is as extreme as the fit darker, and that of the fit.

    Parameters
    ----------
    found : Permutations
        The statistic and its distribution; infinite values are left out.
    ax : matplotlib Axes, optional
        Where to draw; by default a new figure.

    Returns
    -------
    matplotlib Axes
        The axes.
    """
    ax, observed, record = axes_or_new(ax), found.observed, found.record
    null = found.null[np.isfinite(found.null)]
    edges = np.histogram_bin_edges(np.r_[null, observed], bins=min(BARS, max(len(null) // 5, 10)))
    extreme = found.are_extreme(null)
    look: dict[str, Any] = {"color": BLUE, "edgecolor": ax.get_facecolor(), "linewidth": 0.5}
    counts, _, _ = ax.hist(null, bins=edges, alpha=0.35, label="permutations", **look)
    ax.hist(null[extreme], bins=edges, label=f"as extreme (p {format_p(found.pvalue)})", **look)
    ax.plot([observed] * 2, [0, 1.05 * counts.max()], color=ink(ax), label="the fit")
    effect = f"{record.estimand} on {record.design.endog_name}"
    if record.design.n_arms > 2 and found.position is not None:
        effect = f"{effect}, {record.contrasts[found.position - 1]}"
    if found.position is None:
        ax.set_xlabel(verbatim(f"Wald's statistic of the effects on {record.design.endog_name}"))
    elif found.kind == "studentized":
        ax.set_xlabel(verbatim(f"z of the {effect}"))
    else:
        logarithm = "" if record.options.effect == "difference" else "log of the "
        ax.set_xlabel(verbatim(f"{logarithm}{effect}"))
    ax.set_ylabel("permutations")
    return finish(ax, 3)

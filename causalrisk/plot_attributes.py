"""Plots of a fit. Each takes the matplotlib Axes to draw on, by default that of a new figure, and returns it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd
from scipy.stats import norm

from causalrisk.diagnostic_attributes import DiagnosticAttributes
from causalrisk.inference.intervals import check_alpha
from causalrisk.linalg import Array
from causalrisk.options import whole_number
from causalrisk.replicated import estimator_biases, joint_of
from causalrisk.report.plots import axes_or_new, draw_bootstrap, draw_penalty_path, draw_risk, page_or_new
from causalrisk.report.plots_design import (
    draw_balance,
    draw_calibration,
    draw_cancellation,
    draw_influence,
    draw_overlap,
)
from causalrisk.unit_attributes import UnitAttributes

TITLE_PAD = 34  # points, above the legends


class PlotAttributes(DiagnosticAttributes, UnitAttributes):
    """Plots of the diagnostics; they need matplotlib."""

    conf_int: Callable[..., pd.DataFrame]

    @property
    def _effect_label(self) -> str:
        design = self._record.design
        contrast = f"{design.labels[1]} vs {design.labels[0]}"
        return f"{self._record.estimand} on {design.endog_name}, {contrast}"

    def _arm(self, arm: Any) -> int:
        """Position of an arm, by default the first that is compared with the reference."""
        return 1 if arm is None else self._record.design.labels.index(self._arm_label(arm))

    def plot_balance(self, ax: Any = None, binary: str = "raw") -> Any:
        """Love plot: differences between the arms before and after weighting.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; by default a new figure.
        binary : {"raw", "std"}
            As in `balance`.

        Returns
        -------
        matplotlib Axes
            The plot; the dashed line is at 0.1.
        """
        return draw_balance(self.balance(binary), axes_or_new(ax))

    def plot_overlap(self, ax: Any = None, arm: Any = None) -> Any:
        """Mirrored histograms of the propensity score in an arm and in the reference arm.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; by default a new figure.
        arm : level or label, optional
            The arm, by default the first that is not the reference.

        Returns
        -------
        matplotlib Axes
            The plot: bars the rows as they are, black lines as they are weighted.
        """
        design, position = self._record.design, self._arm(arm)
        rows, once = self._counted(), 1.0 if self._record.frequency else design.weights
        score = self._scores()[position, rows]
        weight = (once * self._record.sample.restore(self._weight_fit.undivided))[rows]
        members = [(design.arm == a)[rows] for a in (position, 0)]
        labels = [f"{design.treat_name} = {design.labels[a]}" for a in (position, 0)]
        name = f"propensity score of {labels[0]}"
        return draw_overlap([score[m] for m in members], [weight[m] for m in members], labels, name, axes_or_new(ax))

    def plot_cancellation(self, ax: Any = None, arm: Any = None) -> Any:
        """Bias of an arm against that of the reference over the propensity replicates, for JRE and IPWRA.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; by default a new figure.
        arm : level or label, optional
            The arm, by default the first that is not the reference.

        Returns
        -------
        matplotlib Axes
            The plot. On the diagonal the biases cancel in the effect; how far along it a replicate lies does not
            matter. Results of an estimator other than JRE are drawn in place of IPWRA.
        """
        biases, slopes = self._biases()
        position, design = self._arm(arm), self._record.design
        labels = f"{design.treat_name} = {design.labels[0]}", f"{design.treat_name} = {design.labels[position]}"
        own = self._record.spec.name
        shown = {name: (slopes[:, None] * biases[name])[[0, position]] for name in _compared(own, biases)}
        return draw_cancellation(shown, labels, design.endog_name, axes_or_new(ax))

    def _biases(self) -> tuple[dict[str, Array], Array]:
        record, fit = self._record, self._weight_fit
        joint = joint_of(record, fit)
        return estimator_biases(record, fit, joint), joint.fit.slopes

    def plot_risk(self, ax: Any = None) -> Any:
        """Net bias of every estimator over the propensity replicates: root mean square, mean and spread.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; by default a new figure.

        Returns
        -------
        matplotlib Axes
            The plot of `risk_table`, on a logarithmic scale; an arrow at the edge stands for less.
        """
        return draw_risk(self.risk_table(), self._record.design.endog_name, axes_or_new(ax))

    def plot_penalty_path(self, ax: Any = None, grid: Any = None, alpha: float = 0.05) -> Any:
        """Effect and net bias over the penalty (JRE).

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; by default a new figure.
        grid : sequence of float, optional
            As in `penalty_path`.
        alpha : float, default 0.05
            Significance level of the intervals.

        Returns
        -------
        matplotlib Axes
            The plot of the effect with robust intervals; the net bias has the axis on the right.
        """
        return self._draw_penalty_path(self.penalty_path(grid), ax, alpha)

    def _draw_penalty_path(self, path: pd.DataFrame, ax: Any, alpha: float) -> Any:
        check_alpha(alpha)
        joint, unit = self._joint, self._record.design.endog_name
        labels = self._effect_label, f"robust {100 * (1 - alpha):.4g}% interval", f"RMS net bias ({unit})"
        effects = float(joint.fit.estimate.params[0]), float(joint.fit.start.params[0])
        return draw_penalty_path(path, joint.own_penalty, effects, norm.ppf(1 - alpha / 2), labels, axes_or_new(ax))

    def plot_bootstrap(
        self, ax: Any = None, alpha: float = 0.05, intervals: Sequence[str] = ("normal", "percentile")
    ) -> Any:
        """Bootstrap distribution of the effect with its intervals.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; by default a new figure.
        alpha : float, default 0.05
            Significance level of the intervals.
        intervals : sequence of str
            Which to draw; methods of `conf_int`.

        Returns
        -------
        matplotlib Axes
            The plot; "normal" is the interval of the summary.

        Raises
        ------
        UnavailableError
            If the fit has no bootstrap.
        """
        boot = self._boot
        limits = {method: self.conf_int(alpha, method).iloc[0] for method in intervals}
        shown = {f"{100 * (1 - alpha):.4g}% {name}": (float(low), float(high)) for name, (low, high) in limits.items()}
        estimate = float(self._record.estimate.params[0])
        return draw_bootstrap(boot.used[:, 0], estimate, shown, self._effect_label, axes_or_new(ax))

    def plot_influence(self, ax: Any = None, top: int = 5, method: str | None = None) -> Any:
        """How much each row moves the effect, against its share of the weight.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; by default a new figure.
        top : int, default 5
            How many rows are named.
        method : {"exact", "shifted", "influence"}, optional
            As in `influence`.

        Returns
        -------
        matplotlib Axes
            The plot.
        """
        whole_number("top", top, 1)
        return self._draw_influence(self.influence(method=method), ax, top)

    def _draw_influence(self, table: pd.DataFrame, ax: Any, top: int) -> Any:
        design = self._record.design
        table = table.assign(arm=[f"{design.treat_name} = {label}" for label in table["arm"]])
        labels = [f"{design.treat_name} = {label}" for label in design.labels]
        name = f"{self._record.effect_names[0]} without the row, less the {self._record.estimand}"
        return draw_influence(table, labels, top, name, axes_or_new(ax))

    def plot_calibration(self, ax: Any = None, bins: int = 10, arm: Any = None) -> Any:
        """Share treated against the propensity score, bin by bin.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; by default a new figure.
        bins : int, default 10
            Number of bins.
        arm : level or label, optional
            The arm, by default the first that is not the reference.

        Returns
        -------
        matplotlib Axes
            The plot, with 95% intervals of the shares.
        """
        design = self._record.design
        label, table = design.labels[self._arm(arm)], self.calibration(bins)
        if design.n_arms > 2:
            table = table.loc[label]
        return draw_calibration(table, 1.96, "95% interval", f"{design.treat_name} = {label}", axes_or_new(ax))

    def plot_diagnostics(self, figure: Any = None) -> Any:
        """Draw six diagnostics on one page.

        Parameters
        ----------
        figure : matplotlib Figure, optional
            Where to draw; by default a new page, A4 across.

        Returns
        -------
        matplotlib Figure
            Overlap, balance, calibration, cancellation, influence; and the bootstrap distribution, or without one the
            penalty path of JRE, or the risks.
        """
        self.balance()  # an estimator without scores is refused before anything is drawn
        last: tuple[str, Callable[..., Any]]
        last = ("Bootstrap", self.plot_bootstrap) if self._record.boot is not None else ("Risk", self.plot_risk)
        if self._record.boot is None and self._record.joint is not None:
            last = ("Penalty", self.plot_penalty_path)
        figure, axes = page_or_new(figure)
        plots: tuple[tuple[str, Callable[..., Any]], ...] = (
            ("Overlap", self.plot_overlap),
            ("Balance", self.plot_balance),
            ("Calibration", self.plot_calibration),
            ("Cancellation", self.plot_cancellation),
            ("Influence", lambda ax: self.plot_influence(ax, method=self._quick_influence)),
            last,
        )
        for (title, plot), ax in zip(plots, axes.flat, strict=True):
            plot(ax).set_title(title, loc="left", fontweight="bold", pad=TITLE_PAD)
        figure.suptitle(repr(self))
        return figure


def _compared(own: str, biases: dict[str, Array]) -> list[str]:
    """Names of the two estimators whose cancellation is drawn."""
    return [own if own in biases and own != "JRE" else "IPWRA", "JRE"]

"""The multiplier bootstrap: influence functions times random multipliers, where nothing is estimated again.

Flows in: a fitted record. Flows out: draws theta + sum_g w_g IF_g / N, where w_g is a multiplier of mean 0 and variance
1 for unit g, a row or a cluster, and the standard error of each draw.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from causalrisk.estimators.record import BootstrapDistribution, FitRecord
from causalrisk.estimators.resampling import unit_count
from causalrisk.estimators.robust import counts_equal_rows, in_frame, over_influence
from causalrisk.estimators.sandwich import BlockInfluence, influence_of_clusters
from causalrisk.numerics.blocks import add_up
from causalrisk.numerics.failures import Failure
from causalrisk.numerics.linalg import Array
from causalrisk.numerics.multiplicities import WIDTH, multipliers


def multiplier_bootstrap(record: FitRecord, n_boot: int) -> BootstrapDistribution:
    """Draw estimates by multipliers.

    Parameters
    ----------
    record : FitRecord
        The fit; its `bootstrap` names the distribution of the multipliers. Of a scan one that still has its passes.
    n_boot : int
        How many draws.

    Returns
    -------
    BootstrapDistribution
        The draws, of a joint fit with those of the fit where it starts under the same multipliers. Effects move on the
        scale where they are differences.

    References
    ----------
    .. [1] Kline, P. and Santos, A. (2012). A score based approach to wild bootstrap inference. Journal of Econometric
       Methods 1, 23-41.
    """
    values, errors = _drawn(record, n_boot)
    start = None
    if record.joint is not None:
        passes = None if record.passes is None else record.passes.start
        of_start = dataclasses.replace(record, estimate=record.joint.start, passes=passes)
        start = _drawn(of_start, n_boot)[0][:, : len(record.names)]
    failures = np.full(n_boot, Failure.OK, dtype=np.int8)
    return BootstrapDistribution(values, failures, start, errors)


@dataclass(frozen=True)
class _Multiplied:
    """Sums over units of n_boot multipliers times contributions (n, d), and of their squares for the first `count`."""

    law: str
    seed: np.random.SeedSequence
    n_boot: int
    count: int
    counts_rows: bool

    def of_units(self, units: BlockInfluence) -> tuple[Array, Array]:
        """Return the sums over some units, shapes (n_boot, d) and (n_boot, count)."""
        own = units.influence if self.counts_rows else units.influence * units.weights[:, None]
        sizes, number = units.weights if self.counts_rows else None, np.asarray(units.number)
        squared, moved, squares = own[:, : self.count] ** 2, [], []
        for first in range(0, self.n_boot, WIDTH):
            width = min(WIDTH, self.n_boot - first)
            w, w_squared = multipliers(self.law, self.seed, first // WIDTH, width, number, sizes)
            moved.append(w.T @ own)
            squares.append(w_squared.T @ squared)
        return np.concatenate(moved), np.concatenate(squares)


def _drawn(record: FitRecord, n_boot: int) -> tuple[Array, Array]:
    """Draws of all estimates, shape (n_boot, d), and standard errors of effects and arm means, (n_boot, 2 K - 1)."""
    design, total, count = record.design, record.sample.total, len(record.names)
    counts_rows, over = counts_equal_rows(record), over_influence(record)
    units = (design.nobs if counts_rows else unit_count(design)) + in_frame(record)
    drawn = _Multiplied(record.bootstrap, record.seed, n_boot, count, counts_rows)
    if design.n_clusters:
        groups = influence_of_clusters(over, units)
        found = drawn.of_units(BlockInfluence(groups, np.ones(units), None, number=np.arange(units)))
    else:
        found = add_up(over(drawn.of_units))
    moved, squares = found[0] / total, found[1] / total**2
    # Contributions under multipliers have a mean of their own, as those of a sample have at its estimate.
    errors = np.sqrt(np.maximum(squares - moved[:, :count] ** 2 / units, 0.0))
    values = record.estimate.values + moved
    scale, effects = record.options.effect_scale, slice(0, len(record.effect_names))
    center = scale.contrast(record.estimate.params[effects])
    on_scale = center + moved[:, effects] / scale.report_slope(center)
    values[:, effects] = scale.report(on_scale)
    errors[:, effects] *= scale.report_slope(on_scale) / scale.report_slope(center)
    return values, errors

"""What the defaults rest on, settings of the objective compared: `python -m tests.studies.study_defaults --n 200`.

A prototype in plain numpy for linear outcome models and a logit propensity score, apart from the package's own code, so
that settings which the package does not offer can be tried, and those that it offers are checked by another hand. With
u_b the net bias under propensity replicate b and u the one at the fitted score, L the importance-weighted fit at the
fitted score and psi_b the influence function of the effect under replicate b, every setting minimises

    anchor L + (n / 2) mean_b u_b^2 + mean_ib (psi'_ib - mean psi')^2 / 2 + (n^2 / 2) u^2

with psi' = psi less a share of the effect of the unit at IPWRA's fit, for anchors from a ladder, and chooses one: psi
at the fitted score of each row, at the solution without it, less its projection on the score of the propensity model,
which is what estimating that by maximum likelihood does to the variance. The anchor with the least variance of that
wins over the first rung, if it is better by more than `caution` standard errors of the paired difference; the variances
are drawn many times from the normal distribution of their errors, and the anchor of the fit is the geometric mean of
the winners. The package raises it where the robust variance is above IPWRA's, which the prototype does not have.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # one thread a process; must be set before numpy loads

import argparse
import functools
import multiprocessing
import time
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import expit

from causalrisk.simulation.designs import find_design
from causalrisk.simulation.results import mse_ratio
from tests.studies.averages import geometric_mean
from tests.studies.designs import MISSPECIFIED, RIGHT

LADDER = (30.0, 10.0, 3.0, 1.0, 0.3, 0.1, 0.03)
DESIGNS = (*MISSPECIFIED, *RIGHT, "heavy_tails", "lalonde_like", "binary_outcome", "rare_treatment", "forty_covariates")
SEED = 20251218
FAR = 15  # log odds beyond which a fit counts as separated


@dataclass(frozen=True)
class Setting:
    """A setting of the objective.

    Parameters
    ----------
    ladder : tuple of float
        Anchors to choose from, the most cautious first.
    caution : float
        Standard errors by which another than the first has to be better.
    spread : float
        Spread of the replicates, relative to sampling.
    share : float, optional
        Share of the effect heterogeneity at IPWRA's fit that is left out; by default the one that is real.
    """

    ladder: tuple[float, ...] = LADDER
    caution: float = 0.5
    spread: float = 0.5
    share: float | None = None


SETTINGS = {
    "the default": Setting(),
    "caution 1": Setting(caution=1.0),
    "caution 1.5": Setting(caution=1.5),
    "first rung 10": Setting(LADDER[1:]),
    "first rung 100": Setting((100.0, *LADDER)),
    "anchor 3": Setting((3.0,)),
    "anchor 0.3": Setting((0.3,)),
    "spread 0.35": Setting(spread=0.35),
    "spread 0.7": Setting(spread=0.7),
    "spread 1": Setting(spread=1.0),
    "share 0": Setting(share=0.0),
    "share 1": Setting(share=1.0),
}
DRAWS = 4000  # of the errors of the variances


def fractional_weights(n, n_replicates, spread, rng):
    """Weights of the replicates, shape (n, B): gamma variables over their mean."""
    drawn = rng.standard_gamma(1 / spread**2, size=(n, n_replicates))
    return drawn / drawn.mean(axis=0)


class Rows:
    """The rows of the objective of one sample, as deviations z from IPWRA's fit in units of its residuals.

    Parameters
    ----------
    data : DataFrame
        Outcome y, treatment d, covariates.
    outcome, propensity : list of str
        Covariates of the models.
    weights : ndarray, shape (n, B)
        Weights of the propensity replicates.
    share : float, optional
        As in `Setting`.

    Attributes
    ----------
    start : float
        IPWRA's effect.
    """

    def __init__(self, data, outcome, propensity, weights, share=None):
        x, z = orthonormal(data[outcome]), orthonormal(data[propensity])
        y, d = data["y"].to_numpy(float), data["d"].to_numpy(int)
        gamma = logit_fits(z, d, np.ones((len(data), 1)))
        self._set(x, z, y, d, gamma, logit_fits(z, d, weights, gamma) - gamma)
        self.share = self.real_share() if share is None else share

    def _set(self, x, z, y, d, gamma, shifts):
        n = self.n = len(y)
        self.x, self.z, self.y, self.d, self.shifts = x, z, y, d, shifts
        p, self.sign = x.shape[1], np.where(d == 1, 1.0, -1.0)
        index = (self.z @ gamma)[:, 0]
        self.weight = 1 + np.exp(-self.sign * index)
        self.own = 1 + np.exp(-self.sign[:, None] * (self.z @ (gamma + shifts)))
        self.scores = (d - expit(index))[:, None] * self.z
        self.block = np.zeros((n, 2 * p))
        self.block[d == 0, :p], self.block[d == 1, p:] = x[d == 0], x[d == 1]
        theta = np.stack([weighted_fit(x[d == arm], y[d == arm], self.weight[d == arm]) for arm in (0, 1)])
        fitted = x @ theta.T
        residual, effect = y - fitted[np.arange(n), d], fitted[:, 1] - fitted[:, 0]
        self.start, self.scale = effect.mean(), np.sqrt((residual**2).mean())
        self.residual, self.tau = residual / self.scale, (effect - self.start) / self.scale
        self.difference = np.hstack([-x, x])
        self.contrast = self.difference.mean(axis=0)

    def moved_start(self):
        """How IPWRA's fit, in z, moves without each row at known scores: shape (n, 2 p)."""
        without = np.zeros_like(self.block)
        for arm in (0, 1):
            own, part = self.d == arm, np.array_split(np.arange(self.block.shape[1]), 2)[arm]
            x, weight = self.x[own], self.weight[own]
            step = x @ np.linalg.inv((weight[:, None] * x).T @ x)
            leverage = np.minimum(weight * (step * x).sum(axis=1), 0.9)
            without[np.ix_(own, part)] = -(weight * self.residual[own] / (1 - leverage))[:, None] * step
        return without

    def real_share(self):
        """1 - 2 N / S: N the mean sampling variance of the centred effects of units, S their mean square."""
        moves = (self.difference - self.contrast) @ self.moved_start().T
        return max(0.0, 1 - 2 * (moves**2).sum(axis=1).mean() / (self.tau**2).mean())

    def psi(self, weight):
        """Slopes of psi by z, shape (n, 2 p), and minus psi at z = 0, under one weight a row."""
        signed = self.sign * weight
        return self.difference - signed[:, None] * self.block, -(self.tau + signed * self.residual)

    def project(self, rows):
        """Centre rows and take their projection on the propensity scores from them."""
        centred = rows - rows.mean(axis=0)
        return centred - self.scores @ np.linalg.lstsq(self.scores, centred, rcond=None)[0]

    def effect(self, z):
        """Effect at z."""
        return self.start + self.scale * (self.contrast @ z)


@dataclass(frozen=True)
class Equations:
    """The normal equations of the objective at an anchor, and the part of each row in them.

    Parameters
    ----------
    hessian, right : ndarray, shape (2 p, 2 p) and (2 p,)
        The system for z.
    lost, lost_right : ndarray, shape (n, 2 p, 2 p) and (n, 2 p)
        What the system loses without each row.
    """

    hessian: np.ndarray
    right: np.ndarray
    lost: np.ndarray
    lost_right: np.ndarray


def equations(rows, anchor):
    """Normal equations at an anchor; psi_ib is its mean over b plus what varies, which is a weighted fit too."""
    n, block, residual, n_replicates = rows.n, rows.block, rows.residual, rows.own.shape[1]
    fit = anchor * rows.weight + rows.own.var(axis=1)
    slope, psi = rows.psi(rows.own.mean(axis=1))
    slope, psi = slope - slope.mean(axis=0), psi + rows.share * rows.tau - psi.mean()
    weights = rows.sign[:, None] * np.column_stack([rows.weight, rows.own])
    penalties = np.r_[n**2, np.full(n_replicates, n / n_replicates)]
    net, net_right = weights.T @ block / n, weights.T @ residual / n
    hessian = (fit[:, None] * block).T @ block / n + slope.T @ slope / n + net.T @ (penalties[:, None] * net)
    right = (fit * residual) @ block / n + psi @ slope / n + net.T @ (penalties * net_right)
    pull, pull_right = weights @ (penalties[:, None] * net), weights @ (penalties * net_right)
    squares = weights**2 @ penalties / n
    cross = np.einsum("ni,nj->nij", block, pull)
    lost = np.einsum("n,ni,nj->nij", fit - squares, block, block) + np.einsum("ni,nj->nij", slope, slope)
    lost = (lost + cross + cross.transpose(0, 2, 1)) / n
    lost_right = ((fit - squares) * residual)[:, None] * block + psi[:, None] * slope
    lost_right = (lost_right + residual[:, None] * pull + pull_right[:, None] * block) / n
    if rows.share:  # the effects of the other units at IPWRA's fit move too
        moved = rows.moved_start() @ (rows.difference - rows.contrast).T  # of each unit's effect, without each row
        lost_right -= rows.share * (moved @ slope - np.diag(moved)[:, None] * slope) / n
    return Equations(hessian, right, lost, lost_right)


def solve(rows, anchor):
    """Minimise the objective at an anchor."""
    found = equations(rows, anchor)
    return np.linalg.solve(found.hessian, found.right)


def held_out(rows, anchor):
    """Psi of each row at the solution without it, projected."""
    found = equations(rows, anchor)
    without = np.linalg.solve(found.hessian - found.lost, (found.right - found.lost_right)[..., None])[..., 0]
    slope, right = rows.psi(rows.weight)
    return rows.project((slope * without).sum(axis=1) - right)


def winners(squares, caution):
    """Share of the draws in which each anchor wins, shape (r,)."""
    n = squares.shape[1]
    gain = squares - squares[0]
    covariance = np.cov(gain, bias=True) / n
    cautious = gain.mean(axis=1) + caution * np.sqrt(np.diag(covariance))
    drawn = np.random.default_rng(SEED).multivariate_normal(cautious, covariance, DRAWS, check_valid="ignore")
    return np.bincount(drawn.argmin(axis=1), minlength=len(squares)) / DRAWS


@functools.lru_cache(maxsize=8)  # the settings of one sample share them
def path(rows, ladder):
    """Psi held out under each anchor of a ladder, shape (r, n)."""
    return np.array([held_out(rows, anchor) for anchor in ladder])


def anchor_of(rows, setting):
    """Geometric mean of the anchors that win."""
    return np.exp(winners(path(rows, setting.ladder) ** 2, setting.caution) @ np.log(setting.ladder))


def choose(rows, setting):
    """Effect by the choice from a ladder, and its standard error from psi held out."""
    anchor = anchor_of(rows, setting) if len(setting.ladder) > 1 else setting.ladder[0]
    error = rows.scale * np.sqrt((held_out(rows, anchor) ** 2).mean() / rows.n)
    return rows.effect(solve(rows, anchor)), error


def orthonormal(frame):
    """Intercept and covariates, made orthonormal in the sample."""
    columns = np.column_stack([np.ones(len(frame)), frame.to_numpy(float)])
    return np.linalg.qr(columns)[0] * np.sqrt(len(frame))


def weighted_fit(x, y, weight):
    """Weighted least squares."""
    root = np.sqrt(weight)
    return np.linalg.lstsq(x * root[:, None], y * root, rcond=None)[0]


def logit_fits(z, d, weights, start=None):
    """Logit coefficients under each column of weights, shape (q, m), by Newton's method with bounded steps."""
    gamma = np.zeros((z.shape[1], weights.shape[1])) if start is None else np.repeat(start, weights.shape[1], axis=1)
    for _ in range(25):
        score = expit(z @ gamma)
        gradient = z.T @ (weights * (d[:, None] - score))
        information = np.einsum("np,nm,nq->mpq", z, weights * score * (1 - score), z, optimize=True)
        step = np.linalg.solve(information, gradient.T[:, :, None])[:, :, 0].T
        gamma = gamma + np.clip(step, -5, 5)
        if np.abs(step).max() < 1e-8:
            break
    if start is None and np.abs(z @ gamma).max() > FAR:
        raise np.linalg.LinAlgError("separated")
    return gamma


def run(name, n, sims, n_replicates, seed, settings):
    """Errors and standard errors of all settings on the samples of a design.

    Returns
    -------
    errors : ndarray, shape (m, 1 + k)
        Of IPWRA and of each setting; samples on which a fit was refused are left out.
    ses : ndarray, shape (m, k)
        Standard errors, from psi held out.
    """
    design = find_design(name)
    columns = [design.formula.partition("~")[2].split(" + "), design.propensity.split(" + ")]
    outcome, propensity = ([term.strip() for term in part] for part in columns)
    errors, ses = [], []
    for sample in range(sims):
        rng = np.random.default_rng([seed, sample, n])
        data = design.draw(n, rng).data
        try:
            weights = {
                spread: fractional_weights(n, n_replicates, spread, rng)
                for spread in dict.fromkeys(setting.spread for setting in settings.values())
            }
            drawn = {
                key: Rows(data, outcome, propensity, weights[key[0]], key[1])
                for key in dict.fromkeys((s.spread, s.share) for s in settings.values())
            }
            found = [choose(drawn[s.spread, s.share], s) for s in settings.values()]
            rows = drawn[0.5, None]
        except np.linalg.LinAlgError:  # separation, an arm too small: such a sample counts for no setting
            continue
        errors.append([rows.start - design.effect, *(effect - design.effect for effect, _ in found)])
        ses.append([se for _, se in found])
    return np.array(errors), np.array(ses)


def compare_settings(n, sims, designs=DESIGNS, n_replicates=100, seed=SEED, jobs=1, settings=SETTINGS):
    """Compare settings.

    Returns
    -------
    ratios : DataFrame
        Mean squared error over that of IPWRA with its Monte Carlo error, as text; a row a design, a column a setting.
    coverage : DataFrame
        Coverage of the effect plus or minus 1.96 standard errors, from psi held out.
    """
    work = functools.partial(run, n=n, sims=sims, n_replicates=n_replicates, seed=seed, settings=settings)
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        found = dict(zip(designs, pool.map(work, designs, chunksize=1), strict=True))
    ratios = {
        name: [mse_ratio(column, errors[:, 0]) for column in errors[:, 1:].T] for name, (errors, _) in found.items()
    }
    covered = {name: (np.abs(e[:, 1:]) <= 1.959964 * se).mean(axis=0).round(3) for name, (e, se) in found.items()}
    six = np.array([ratios[name] for name in MISSPECIFIED if name in ratios])
    if len(six):
        means = [geometric_mean(*six[:, k].T) for k in range(len(settings))]
        ratios = {"geometric mean of the wrong ones": means} | ratios
    text = {name: [f"{r:.3f} ({mc:.3f})" for r, mc in column] for name, column in ratios.items()}
    return pd.DataFrame(text, index=list(settings)).T, pd.DataFrame(covered, index=list(settings)).T


def arguments():
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--sims", type=int, default=200, help="samples of each design")
    parser.add_argument("--n-replicates", type=int, default=100)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--designs", nargs="+", default=DESIGNS)
    return parser.parse_args()


def main():
    """Run the study and print its tables."""
    args, begun = arguments(), time.perf_counter()
    ratios, covered = compare_settings(**vars(args))
    print(f"{args}; {time.perf_counter() - begun:.0f} s\nMean squared error over that of IPWRA:")
    print(ratios.to_string())
    print("Coverage of effect +- 1.96 standard errors, from psi held out:")
    print(covered.to_string())


if __name__ == "__main__":
    main()

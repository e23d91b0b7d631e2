"""What the defaults rest on, settings of the objective compared: `python -m tests.studies.study_defaults --n 200`.

A prototype in plain numpy for linear outcome models and a logit propensity score, apart from the package's own code, so
that settings which the package does not offer can be tried, and those that it offers are checked by another hand. With
u_b the net bias under propensity replicate b and u the one at the fitted score, L the importance-weighted fit at the
fitted score and psi_b the influence function of the effect under replicate b, every setting minimises

    anchor L + (n / 2) mean_b u_b^2 + mean_ib (psi'_ib - mean psi')^2 / 2    under u = 0

with psi' = psi less a share of the effect of the unit at IPWRA's fit, for anchors from a ladder, and chooses one by
ten-fold cross-validation: psi of each row at the fit without its fold, less its projection on the score of the
propensity model, which is what estimating that by maximum likelihood does to the variance. The anchor with the least
variance of that wins over the first rung, if it is better by more than `caution` standard errors of the paired
difference; the variances are drawn many times from the normal distribution of their errors, and the anchor of the fit
is the geometric mean of the winners. The package raises it where the robust variance is above IPWRA's, and may add the
predictor of the score to the outcome columns; the prototype does neither.
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
from tests.studies.own_designs import LalondeLike

LADDER = (30.0, 10.0, 3.0, 1.0, 0.3, 0.1, 0.03)
MORE = ("heavy_tails", LalondeLike(), "binary_outcome", "rare_treatment", "forty_covariates")
DESIGNS = {design.name: design for design in map(find_design, (*MISSPECIFIED, *RIGHT, *MORE))}
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
FOLDS = 10
DRAWS = 4000  # of the errors of the variances


def fractional_weights(n, n_replicates, spread, rng):
    """Weights of the replicates, shape (n, B): gamma variables over their mean."""
    drawn = rng.standard_gamma(1 / spread**2, size=(n, n_replicates))
    return drawn / drawn.mean(axis=0)


class Rows:
    """The rows of the objective of one sample, as deviations z from IPWRA's fit in units of its residuals.

    Parameters
    ----------
    x, z : ndarray, shape (n, p) and (n, q)
        Columns of the outcome models and of the propensity model.
    y, d : ndarray, shape (n,)
        Outcome and treatment.
    weights : ndarray, shape (n, B), optional
        Weights of the propensity replicates.
    shifts : ndarray, shape (q, B), optional
        In the place of weights, coefficients of the replicates less those of the fitted score.
    share : float, optional
        As in `Setting`.

    Attributes
    ----------
    start : float
        IPWRA's effect.
    """

    def __init__(self, x, z, y, d, weights=None, shifts=None, share=None):
        n = self.n = len(y)
        gamma = logit_fits(z, d, np.ones((n, 1)))
        self.shifts = logit_fits(z, d, weights, gamma) - gamma if shifts is None else shifts
        self.x, self.z, self.y, self.d = x, z, y, d
        p, self.sign = x.shape[1], np.where(d == 1, 1.0, -1.0)
        index = (z @ gamma)[:, 0]
        self.weight = 1 + np.exp(-self.sign * index)
        self.own = 1 + np.exp(-self.sign[:, None] * (z @ (gamma + self.shifts)))
        self.scores = (d - expit(index))[:, None] * z
        self.block = np.zeros((n, 2 * p))
        self.block[d == 0, :p], self.block[d == 1, p:] = x[d == 0], x[d == 1]
        self.theta = np.stack([weighted_fit(x[d == arm], y[d == arm], self.weight[d == arm]) for arm in (0, 1)])
        fitted = x @ self.theta.T
        residual, effect = y - fitted[np.arange(n), d], fitted[:, 1] - fitted[:, 0]
        self.start, self.scale = effect.mean(), np.sqrt((residual**2).mean())
        self.residual, self.tau = residual / self.scale, (effect - self.start) / self.scale
        self.difference = np.hstack([-x, x])
        self.contrast = self.difference.mean(axis=0)
        self.share = self.real_share() if share is None else share
        self.fold = np.empty(n, dtype=int)
        for arm in (0, 1):
            self.fold[d == arm] = np.arange((d == arm).sum()) % FOLDS

    @functools.cached_property
    def parts(self):
        """The rows outside of each fold, with a score of their own."""
        kept = [self.fold != fold for fold in range(FOLDS)]
        return [Rows(self.x[k], self.z[k], self.y[k], self.d[k], None, self.shifts, self.share) for k in kept]

    def real_share(self):
        """1 - 2 N / S: N the mean sampling variance of the centred effects of units, S their mean square."""
        without = np.zeros_like(self.block)  # how IPWRA's fit moves without each row at known scores
        for arm, part in enumerate(np.array_split(np.arange(self.block.shape[1]), 2)):
            own = self.d == arm
            x, weight = self.x[own], self.weight[own]
            step = x @ np.linalg.inv((weight[:, None] * x).T @ x)
            leverage = np.minimum(weight * (step * x).sum(axis=1), 0.9)
            without[np.ix_(own, part)] = -(weight * self.residual[own] / (1 - leverage))[:, None] * step
        moves = (self.difference - self.contrast) @ without.T
        return max(0.0, 1 - 2 * (moves**2).sum(axis=1).mean() / (self.tau**2).mean())

    def effect(self, z):
        """Effect at z."""
        return self.start + self.scale * (self.contrast @ z)


def solve(rows, anchor):
    """Minimise the objective at an anchor; psi_ib is its mean over b plus what varies, which is a weighted fit too."""
    n, block, residual, n_replicates = rows.n, rows.block, rows.residual, rows.own.shape[1]
    fit = anchor * rows.weight + rows.own.var(axis=1)
    signed = rows.sign * rows.own.mean(axis=1)
    slope, psi = rows.difference - signed[:, None] * block, -(rows.tau + signed * residual)
    slope, psi = slope - slope.mean(axis=0), psi + rows.share * rows.tau - psi.mean()
    weights = rows.sign[:, None] * np.column_stack([rows.weight, rows.own])
    net, net_right = weights.T @ block / n, weights.T @ residual / n
    (u, u_right), (net, net_right) = (net[0], net_right[0]), (net[1:], net_right[1:])
    hessian = (fit[:, None] * block).T @ block / n + slope.T @ slope / n + net.T @ net * n / n_replicates
    right = (fit * residual) @ block / n + psi @ slope / n + net.T @ net_right * n / n_replicates
    system = np.block([[hessian, u[:, None]], [u[None], np.zeros((1, 1))]])
    return np.linalg.solve(system, np.append(right, u_right))[:-1]


def held_out(rows, anchor):
    """Psi of each row at the solution without its fold, projected."""
    psi = np.empty(rows.n)
    for fold, part in enumerate(rows.parts):
        out = rows.fold == fold
        means = rows.x[out] @ (part.theta + part.scale * solve(part, anchor).reshape(2, -1)).T
        own = means[np.arange(out.sum()), rows.d[out]]
        psi[out] = means[:, 1] - means[:, 0] + (rows.sign * rows.weight)[out] * (rows.y[out] - own)
    psi -= psi.mean()
    return psi - rows.scores @ np.linalg.lstsq(rows.scores, psi, rcond=None)[0]


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
    error = np.sqrt((held_out(rows, anchor) ** 2).mean() / rows.n)
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
    design = DESIGNS[name]
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
            x, z = orthonormal(data[outcome]), orthonormal(data[propensity])
            arrays = [x, z, data["y"].to_numpy(float), data["d"].to_numpy(int)]
            drawn = {
                key: Rows(*arrays, weights[key[0]], share=key[1])
                for key in dict.fromkeys((s.spread, s.share) for s in settings.values())
            }
            found = [choose(drawn[s.spread, s.share], s) for s in settings.values()]
            rows = drawn[0.5, None]
        except np.linalg.LinAlgError:  # separation, an arm too small: such a sample counts for no setting
            continue
        errors.append([rows.start - design.effect, *(effect - design.effect for effect, _ in found)])
        ses.append([se for _, se in found])
    return np.array(errors), np.array(ses)


def compare_settings(n, sims, designs=tuple(DESIGNS), n_replicates=100, seed=SEED, jobs=1, settings=SETTINGS):
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
    parser.add_argument("--designs", nargs="+", choices=DESIGNS, default=list(DESIGNS))
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

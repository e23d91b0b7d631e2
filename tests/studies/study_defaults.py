"""What the defaults rest on, settings of the objective compared: `python -m tests.studies.study_defaults --n 200`.

A prototype in plain numpy for linear outcome models and a logit propensity score, apart from the package's own code, so
that settings which the package does not offer can be tried, and those that it offers are checked by another hand. With
u_b the net bias under propensity replicate b, u the one at the fitted score, L the importance-weighted fit, V the
variance of the influence function psi of the effect, every setting minimises

    anchor L + [V / 2] + (penalty / 2) risk,    risk one of  mean u_b^2,  (mean u_b)^2,  u^2.

"Projected" takes from psi its projection on the score of the propensity model, which is what estimating that by maximum
likelihood does to the variance. "Held out" chooses the anchor from a ladder: psi of each row at the solution without it
(by one Newton step, with leverage), projected; the anchor with the least variance of that wins over IPWRA's fit, which
is the first rung, if it is better by more than `caution` standard errors of the paired difference.
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
from causalrisk.simulation.measures import mse_ratio
from tests.studies.averages import geometric_mean
from tests.studies.designs import MISSPECIFIED, RIGHT

LADDER = (3.0, 1.0, 0.3, 0.1, 0.03)
DESIGNS = (*MISSPECIFIED, *RIGHT, "heavy_tails", "lalonde_like", "binary_outcome")
SEED = 20251218
FAR = 15  # log odds beyond which a fit counts as separated


@dataclass(frozen=True)
class Setting:
    """A setting of the objective.

    Parameters
    ----------
    anchor : float
        Weight of L.
    variance : bool
        Whether V is a term.
    risk : {"replicates", "mean", "fitted"}
        Mean of u_b^2, square of the mean u_b, or u^2 at the fitted score.
    penalty : tuple of float
        Factor and power of n.
    projected : bool
        Whether psi is projected in V.
    averaged : bool
        Whether L has the weights averaged over the replicates, or those at the fitted score.
    """

    anchor: float = 0.3
    variance: bool = True
    risk: str = "replicates"
    penalty: tuple[float, float] = (10, 1)
    projected: bool = False
    averaged: bool = True


def ladder(risk="fitted", penalty=(1, 2), projected=False, averaged=False):
    """Return the settings to choose from; with weights at the fitted score the first is IPWRA itself."""
    first = Setting(1.0, False, risk, penalty, averaged=averaged)
    return (first, *(Setting(anchor, True, risk, penalty, projected, averaged) for anchor in LADDER))


SETTINGS = {
    "erm, n2": Setting(1.0, False, penalty=(1, 2)),
    "mse 0.3, 10n": Setting(),
    "mse 0.3, n": Setting(penalty=(1, 1)),
    "mse 0.3, u^2": Setting(risk="fitted", penalty=(1, 2)),
    "mse 0.3, (mean u_b)^2": Setting(risk="mean", penalty=(1, 2)),
    "mse 0.3, u^2, projected": Setting(risk="fitted", penalty=(1, 2), projected=True),
    "held out, replicates n": ladder("replicates", (1, 1), averaged=True),
    "held out, u^2, averaged": ladder(averaged=True),
    "held out, u^2": ladder(),
    "held out, u^2, projected": ladder(projected=True),
}


class Rows:
    """The rows of the objective of one sample, as deviations z from IPWRA's fit in units of its residuals.

    Parameters
    ----------
    data : DataFrame
        Outcome y, treatment d, covariates.
    outcome, propensity : list of str
        Covariates of the models.
    n_replicates : int
        Propensity replicates.
    rng : Generator
        Source of randomness.

    Attributes
    ----------
    start : float
        IPWRA's effect.
    """

    def __init__(self, data, outcome, propensity, n_replicates, rng):
        n = self.n = len(data)
        x, self.z = orthonormal(data[outcome]), orthonormal(data[propensity])
        y, d = data["y"].to_numpy(float), data["d"].to_numpy(int)
        p, self.sign = x.shape[1], np.where(d == 1, 1.0, -1.0)
        gamma = logit_fits(self.z, d, np.ones((n, 1)))
        drawn = rng.multinomial(n, np.full(n, 1 / n), size=n_replicates).T.astype(float)
        replicates = self.z @ logit_fits(self.z, d, drawn, gamma)
        replicates = replicates[:, np.abs(replicates).max(axis=0) < FAR]
        index = (self.z @ gamma)[:, 0]
        self.weight = 1 + np.exp(-self.sign * index)
        self.own = 1 + np.exp(-self.sign[:, None] * replicates)  # weights under each replicate
        self.scores = (d - expit(index))[:, None] * self.z
        self.block = np.zeros((n, 2 * p))
        self.block[d == 0, :p], self.block[d == 1, p:] = x[d == 0], x[d == 1]
        theta = np.stack([weighted_fit(x[d == arm], y[d == arm], self.weight[d == arm]) for arm in (0, 1)])
        fitted = x @ theta.T
        residual, effect = y - fitted[np.arange(n), d], fitted[:, 1] - fitted[:, 0]
        self.start, self.scale = effect.mean(), np.sqrt((residual**2).mean())
        self.residual, tau = residual / self.scale, (effect - self.start) / self.scale
        self.psi_slope = -(self.sign * self.weight)[:, None] * self.block + np.hstack([-x, x])
        self.psi_right = -(tau + self.sign * self.weight * self.residual)
        self.contrast = np.concatenate([-x.mean(axis=0), x.mean(axis=0)])
        self.average = self.own.mean(axis=1)

    def project(self, rows):
        """Centre rows and take their projection on the propensity scores from them."""
        centred = rows - rows.mean(axis=0)
        return centred - self.scores @ np.linalg.lstsq(self.scores, centred, rcond=None)[0]

    def risk_weights(self, setting):
        """Weights of each row in the net biases of the risk, shape (n, 1 or B), and the penalty of each."""
        weights = {"replicates": self.own, "mean": self.average[:, None], "fitted": self.weight[:, None]}
        used = self.sign[:, None] * weights[setting.risk]
        factor, power = setting.penalty
        return used, factor * self.n**power / used.shape[1]

    def effect(self, z):
        """Effect at z."""
        return self.start + self.scale * (self.contrast @ z)


@dataclass(frozen=True)
class JointSolution:
    """A minimum of the objective: z, the inverse of its Hessian, and the gradient contribution of each row."""

    z: np.ndarray
    inverse: np.ndarray
    gradient: np.ndarray
    leverage: np.ndarray


def solve(rows, setting):
    """Minimise the objective of a setting."""
    n, block, anchor = rows.n, rows.block, setting.anchor
    fit_weight = rows.average if setting.averaged else rows.weight
    fit = block * (anchor * fit_weight / n)[:, None]
    hessian, right = fit.T @ block, fit.T @ rows.residual
    slope = np.zeros_like(block)
    if setting.variance:
        both = np.column_stack([rows.psi_slope, rows.psi_right])
        both = rows.project(both) if setting.projected else both - both.mean(axis=0)
        slope, psi_right = both[:, :-1], both[:, -1]
        hessian, right = hessian + slope.T @ slope / n, right + slope.T @ psi_right / n
    weights, penalty = rows.risk_weights(setting)
    net, net_right = weights.T @ block / n, weights.T @ rows.residual / n
    inverse = np.linalg.inv(hessian + penalty * net.T @ net)
    z = inverse @ (right + penalty * net.T @ net_right)
    error, bias = block @ z - rows.residual, net @ z - net_right
    gradient = (anchor * fit_weight * error + penalty * (weights @ bias))[:, None] * block
    gradient = gradient + penalty * error[:, None] * (weights @ net)
    if setting.variance:
        gradient = gradient + (slope @ z - psi_right)[:, None] * slope
    leverage = ((slope @ inverse) * slope).sum(axis=1) / n + (fit * (block @ inverse)).sum(axis=1)
    return JointSolution(z, inverse, gradient - gradient.mean(axis=0), leverage)


def held_out(rows, solution):
    """Psi of each row at the solution without it, projected."""
    step = solution.gradient @ solution.inverse / rows.n / (1 - np.minimum(solution.leverage, 0.9))[:, None]
    psi = rows.psi_slope @ solution.z - rows.psi_right
    return rows.project(psi + (rows.psi_slope * step).sum(axis=1))


def estimate(rows, setting, caution=1.0):
    """Estimate the effect by a setting, or by the best of a ladder; with a standard error from psi held out."""
    if isinstance(setting, Setting):
        found = solve(rows, setting)
        return rows.effect(found.z), rows.scale * np.sqrt((held_out(rows, found) ** 2).mean() / rows.n)
    found = [solve(rows, rung) for rung in setting]
    squares = np.array([held_out(rows, solution) ** 2 for solution in found])
    gain = squares - squares[0]
    best = int(np.argmin(gain.mean(axis=1) + caution * gain.std(axis=1) / np.sqrt(rows.n)))
    return rows.effect(found[best].z), rows.scale * np.sqrt(squares[best].mean() / rows.n)


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


def run(name, n, sims, n_replicates, seed):
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
            rows = Rows(data, outcome, propensity, n_replicates, rng)
            found = [estimate(rows, setting) for setting in SETTINGS.values()]
        except np.linalg.LinAlgError:  # separation, an arm too small: such a sample counts for no setting
            continue
        errors.append([rows.start - design.effect, *(effect - design.effect for effect, _ in found)])
        ses.append([se for _, se in found])
    return np.array(errors), np.array(ses)


def compare_settings(n, sims, designs=DESIGNS, n_replicates=100, seed=SEED, jobs=1):
    """Compare all settings.

    Returns
    -------
    ratios : DataFrame
        Mean squared error over that of IPWRA with its Monte Carlo error, as text; a row a design, a column a setting.
    coverage : DataFrame
        Coverage of the effect plus or minus 1.96 standard errors, from psi held out.
    """
    work = functools.partial(run, n=n, sims=sims, n_replicates=n_replicates, seed=seed)
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        found = dict(zip(designs, pool.map(work, designs, chunksize=1), strict=True))
    ratios = {
        name: [mse_ratio(column, errors[:, 0]) for column in errors[:, 1:].T] for name, (errors, _) in found.items()
    }
    covered = {name: (np.abs(e[:, 1:]) <= 1.959964 * se).mean(axis=0).round(3) for name, (e, se) in found.items()}
    six = np.array([ratios[name] for name in MISSPECIFIED if name in ratios])
    if len(six):
        means = [geometric_mean(*six[:, k].T) for k in range(len(SETTINGS))]
        ratios = {"geometric mean of the wrong ones": means} | ratios
    text = {name: [f"{r:.3f} ({mc:.3f})" for r, mc in column] for name, column in ratios.items()}
    return pd.DataFrame(text, index=list(SETTINGS)).T, pd.DataFrame(covered, index=list(SETTINGS)).T


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

"""The whole of JRE in plain NumPy, for readers: two arms, linear outcome models, a logit for the propensity score.

The order and the letters are those of the method's page. The package computes the same numbers for any number of arms,
families, links and targets, from moments of the weights in place of arrays of all replicates; its tests compare the
two. Arrays have a column for each propensity score: column 0 is the fitted one, then come the B replicates. Sums are
weighted by s_i / sum(s); t and w are divided by the mean of s t. Every term of the objective is the square of something
linear in theta = (theta_0, theta_1), so that a slope (2 p numbers) and a rest describe it: slope @ theta + rest.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]  # of floats; complex where a derivative is taken by a complex step

LADDER = (30.0, 10.0, 3.0, 1.0, 0.3, 0.1, 0.03)  # the anchors to choose from, most cautious first
BEYOND = (300.0, 3000.0)  # anchors to raise it to where even the first is not cautious enough
EXCESS = 2.0  # over the root of n: excess of the robust variance over IPWRA's, relative to it, that is let be
CAUTION = 0.5  # standard errors by which an anchor has to be better than the first
STEP = 1e-30  # of a complex step, which loses no digits however small it is


@dataclass(frozen=True)
class Sample:
    """The rows of a sample, each with its weight, and the propensity scores.

    Parameters
    ----------
    y, A, s : ndarray, shape (n,)
        Outcome, arm (0 or 1), observation weight.
    X, Z : ndarray, shape (n, p) and (n, q)
        Columns of the outcome models and of the propensity model, of orthogonal columns if digits matter.
    gammas : ndarray, shape (q, 1 + B)
        Propensity coefficients: fitted, and of the replicates.
    target : {"all", "treated", "control", "overlap"}
        Target population.
    c : float
        Share of the effect heterogeneity at the start that V leaves out.
    """

    y: Array
    A: Array
    s: Array
    X: Array
    Z: Array
    gammas: Array
    target: str
    c: float


@dataclass(frozen=True)
class Forms:
    """What is linear in theta, each as a slope, last axis 2 p, and a rest.

    Parameters
    ----------
    m, m_rest : ndarray, shape (n, 2 p) and (n,)
        m - y of a row's own arm.
    u, u_rest : ndarray, shape (n, 1 + B, 2 p) and (n, 1 + B)
        Summands of the net biases.
    phi, phi_rest : ndarray, shape (n, 1 + B, 2 p) and (n, 1 + B)
        Summands of the bias-corrected effect.
    tau : ndarray, shape (n, 1 + B, 2 p)
        t (m_1 - m_0) less its mean: effect heterogeneity.
    psi, psi_rest : ndarray, shape (n, 1 + B, 2 p) and (n, 1 + B)
        Influence of each row on that effect: phi - t mu; under the replicates psi', less c times tau at the start.
    """

    m: Array
    m_rest: Array
    u: Array
    u_rest: Array
    phi: Array
    phi_rest: Array
    tau: Array
    psi: Array
    psi_rest: Array


def fit_propensity(Z: Array, A: Array, weights: Array) -> Array:
    """Logit coefficients, shape (q,), under weights of the rows, by Newton's method."""
    gamma = np.zeros(Z.shape[1])
    for _ in range(50):
        e = 1 / (1 + np.exp(-Z @ gamma))
        step = np.linalg.solve((Z.T * (weights * e * (1 - e))) @ Z, Z.T @ (weights * (A - e)))
        gamma = gamma + step
        if np.abs(step).max() < 1e-12:
            break
    return gamma


def importance_weights(of: Sample) -> tuple[Array, Array]:
    """Part t of each row in the target and weight w = h / e of its own arm, shape (n, 1 + B)."""
    e, A = 1 / (1 + np.exp(-of.Z @ of.gammas)), of.A[:, None]
    h = {"all": np.ones_like(e), "treated": e, "control": 1 - e, "overlap": e * (1 - e)}[of.target]
    t = {"treated": A + 0 * e, "control": 1 - A + 0 * e}.get(of.target, h)  # an arm's own rows need no score
    mean = (of.s / of.s.sum()) @ t
    return t / mean, h / np.where(A == 1, e, 1 - e) / mean


def linear_forms(of: Sample) -> Forms:
    """Residuals, net biases and influence functions as functions of theta."""
    (t, w), share, sign = importance_weights(of), of.s / of.s.sum(), np.where(of.A == 1, 1.0, -1.0)[:, None]
    m = np.hstack([(of.A == 0)[:, None] * of.X, (of.A == 1)[:, None] * of.X])
    u = (sign * w)[..., None] * m[:, None]  # B_1 - B_0, with B_a the sum of w (m - y) over the rows of arm a
    u_rest = -sign * w * of.y[:, None]
    tau = t[..., None] * np.hstack([-of.X, of.X])[:, None]
    phi, phi_rest = tau - u, -u_rest  # t (m_1 - m_0) + w_1 (y - m_1) - w_0 (y - m_0)
    phi_rest[:, 1:] -= of.c * tau[:, 1:] @ start(of)
    mu, mu_rest, tau_mean = np.einsum("i,ibk->bk", share, phi), share @ phi_rest, np.einsum("i,ibk->bk", share, tau)
    for mean in (mu, mu_rest, tau_mean):
        mean[1:] = mean[1:].mean(axis=0)  # one mu centres all rows and replicates
    psi, psi_rest, tau = phi - t[..., None] * mu, phi_rest - t * mu_rest, tau - t[..., None] * tau_mean
    return Forms(m=m, m_rest=-of.y, u=u, u_rest=u_rest, phi=phi, phi_rest=phi_rest, tau=tau, psi=psi, psi_rest=psi_rest)


def arm_fits(of: Sample) -> tuple[Array, Array, Array]:
    """Columns of the arms (n, 2 p), weights s w at the fitted score (n,), and the inverse Gram matrix (2 p, 2 p)."""
    columns = np.hstack([(of.A == 0)[:, None] * of.X, (of.A == 1)[:, None] * of.X])
    weights = of.s * importance_weights(of)[1][:, 0]
    return columns, weights, np.linalg.inv((columns.T * weights) @ columns)


def start(of: Sample) -> Array:
    """Theta of IPWRA, shape (2 p,), which minimises the losses alone."""
    columns, weights, inverse = arm_fits(of)
    return inverse @ columns.T @ (weights * of.y)


def leverages(columns: Array, weights: Array, inverse: Array) -> Array:
    """Leverage of each row in the fit of its arm, shape (n,), at most 0.9."""
    return np.minimum(weights * np.einsum("ik,kl,il->i", columns, inverse, columns), 0.9)


def real_share(of: Sample) -> float:
    """Share c of the effect heterogeneity at the start that is not sampling error: max(0, 1 - 2 N / S)."""
    columns, weights, inverse = arm_fits(of)
    theta, t = start(of), importance_weights(of)[0][:, 0] * of.s / of.s.sum()
    left = 1 - leverages(columns, weights, inverse)
    scores = (weights * (of.y - columns @ theta) / left)[:, None] * columns
    centred = np.hstack([-of.X, of.X]) - t @ np.hstack([-of.X, of.X])
    G = (centred.T * t) @ centred  # of m_1 - m_0 over the target, and across arms, which are independent, not needed
    N = np.sum(G * (inverse @ scores.T @ scores @ inverse))
    return max(0.0, 1 - 2 * N / float(theta @ G @ theta))


def penalties(n: int, n_replicates: int) -> Array:
    """Weight of the square of each net bias: n^2 at the fitted score, n / B at a replicate, shape (1 + B,)."""
    return np.r_[float(n) ** 2, np.full(n_replicates, n / n_replicates)]


def objective(of: Sample, alpha: float) -> tuple[Array, Array]:
    """H and g of J(theta) = theta' H theta / 2 + g' theta + constant, shapes (2 p, 2 p) and (2 p,).

    J = alpha sum_a L_a + (n / 2) R + (n^2 / 2) u^2 with R = mean_b u_b^2 + V / n, for sigma_0 = 1.
    """
    at, share, w = linear_forms(of), of.s / of.s.sum(), importance_weights(of)[1]
    (n, columns), psi, psi_rest = w.shape, at.psi[:, 1:], at.psi_rest[:, 1:]
    H = alpha * (at.m.T * (share * w[:, 0])) @ at.m  # the losses L_a
    g = alpha * at.m.T @ (share * w[:, 0] * at.m_rest)
    H = H + np.einsum("i,ibk,ibl->kl", share, psi, psi, optimize=True) / (columns - 1)  # V
    g = g + np.einsum("i,ibk,ib->k", share, psi, psi_rest, optimize=True) / (columns - 1)
    lam, u, u_rest = penalties(n, columns - 1), np.einsum("i,ibk->bk", share, at.u), share @ at.u_rest
    return H + (u.T * lam) @ u, g + u.T @ (lam * u_rest)  # the net biases


def minimum(of: Sample, alpha: float) -> Array:
    """Theta that minimises J, shape (2 p,)."""
    H, g = objective(of, alpha)
    return -np.linalg.solve(H, g)


def gradient_by_row(of: Sample, alpha: float, theta: Array) -> Array:
    """xi, shape (n, 2 p): how the gradient of J moves with the weight of each row, times sum(s), the scores fixed."""
    at, share, (t, w) = linear_forms(of), of.s / of.s.sum(), importance_weights(of)
    loss = (w[:, 0] * (at.m @ theta + at.m_rest))[:, None] * at.m
    xi = alpha * (loss - t[:, [0]] * (share @ loss))
    lam, u, slope = penalties(len(t), t.shape[1] - 1), at.u @ theta + at.u_rest, np.einsum("i,ibk->bk", share, at.u)
    xi = xi + (lam * (u - t * (share @ u))) @ slope  # of the product u_b u_b', first its first factor
    xi = xi + np.einsum("b,ibk->ik", lam * (share @ u), at.u - t[..., None] * slope)
    t, slope, phi = t[:, 1:], at.psi[:, 1:], at.phi[:, 1:]
    psi = slope @ theta + at.psi_rest[:, 1:]
    nu = psi[..., None] * slope
    nu_b = np.einsum("i,ibk->bk", share, nu)
    xi = xi + nu.mean(axis=1) + nu_b.mean(axis=0) - 2 * t @ nu_b / len(nu_b)
    phi_rest = phi @ theta + at.phi_rest[:, 1:]  # mu, which centres psi', moves too
    mu = (phi_rest - t * (share @ phi_rest)).mean(axis=1)
    mu_slope = (phi - t[..., None] * np.einsum("i,ibk->bk", share, phi)).mean(axis=1)
    centre = np.einsum("i,ib,ibk->k", share, t, slope) / len(nu_b)
    return xi - mu[:, None] * centre - mu_slope * (share @ (t * psi)).mean()


def without_each_row(of: Sample, alpha: float) -> Array:
    """Theta without row i, by one Newton step, shape (n, 2 p); the scores stay."""
    (H, g), at, share = objective(of, alpha), linear_forms(of), (of.s / of.s.sum())[:, None]
    theta, w = -np.linalg.solve(H, g), importance_weights(of)[1]
    lam, psi = penalties(*w[:, 1:].shape), at.psi[:, 1:]
    u = np.einsum("ik,ibk->bk", share, at.u)
    others = u - share[..., None] * at.u  # slopes of the net biases of the other rows
    left = H - (u.T * lam) @ u + np.einsum("b,ibk,ibl->ikl", lam, others, others, optimize=True)
    lost = np.einsum("i,ik,il->ikl", alpha * w[:, 0], at.m, at.m) + np.einsum("ibk,ibl->ikl", psi, psi) / psi.shape[1]
    start_moved = start_influence(of, held_out=True)
    own = np.einsum("ibl,il,ibk->ik", at.tau[:, 1:], start_moved, psi, optimize=True) / psi.shape[1]
    moved = gradient_by_row(of, alpha, theta) - of.c * (start_moved @ tau_products(of) - share * own)
    moved = moved - share * np.einsum("b,ib,ibk->ik", lam, at.u @ theta + at.u_rest, at.u, optimize=True)
    return theta + np.linalg.solve(left - share[..., None] * lost, (share * moved)[..., None])[..., 0]


def held_out(of: Sample, alpha: float) -> Array:
    """Influence of each row on the effect at the theta without it, less what estimating gamma takes away, times s_i."""
    at, e = linear_forms(of), 1 / (1 + np.exp(-of.Z @ of.gammas[:, 0]))
    psi = np.einsum("ik,ik->i", at.psi[:, 0], without_each_row(of, alpha)) + at.psi_rest[:, 0]
    known, root = np.column_stack([np.ones(len(psi)), (of.A - e)[:, None] * of.Z]), np.sqrt(of.s)
    return of.s * (psi - known @ np.linalg.lstsq(known * root[:, None], psi * root, rcond=None)[0])


def choose_anchor(of: Sample) -> tuple[float, Array]:
    """Choose the anchor by rows held out; shares: how often each has the least variance, drawn anew."""
    squares = np.stack([held_out(of, alpha) ** 2 for alpha in LADDER])
    gain = squares - squares[0]
    covariance = np.cov(gain, bias=True) * gain.shape[1]
    values, vectors = np.linalg.eigh(covariance)
    drawn = np.random.default_rng(0).standard_normal((len(LADDER), 1000))
    errors = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T @ np.hstack([drawn, -drawn])
    cautious = gain.sum(axis=1) + CAUTION * np.sqrt(np.diag(covariance))
    shares = np.bincount((cautious[:, None] + errors).argmin(axis=0), minlength=len(LADDER)) / errors.shape[1]
    return rounded(np.exp(shares @ np.log(LADDER))), shares


def rounded(anchor: float) -> float:
    """To three digits, so that it can be typed."""
    return float(f"{anchor:.3g}")


def raised(of: Sample, alpha: float) -> float:
    """Raise an anchor to where the robust variance of the effect is about that of IPWRA, if it is above."""
    limit = (1 + EXCESS / np.sqrt(len(of.y))) * robust_variance(of, start_effect_influence(of))

    def excess_at(alpha: float) -> float:
        return robust_variance(of, influence_function(of, alpha, minimum(of, alpha))) - limit

    excess = excess_at(alpha)
    for rung in sorted(one for one in LADDER + BEYOND if one > alpha):
        if excess <= 0:
            break
        above = excess_at(rung)
        if above < 0:  # between the two the excess is linear in log alpha
            return rounded(alpha * (rung / alpha) ** (excess / (excess - above)))
        alpha, excess = rung, above
    return alpha


def choice_variance(of: Sample, alpha: float) -> float:
    """Factor of the variance of the effect that allows for the choice of the anchor."""
    if alpha > LADDER[0]:  # raised beyond the first it is not by luck
        return 1.0
    squares, first = held_out(of, alpha) ** 2, held_out(of, LADDER[0]) ** 2
    error = min(np.std(squares - first), np.std(squares)) * np.sqrt(len(squares))
    return float(1 + error / squares.sum())


def effect(of: Sample, theta: Array) -> Any:
    """Average m_1 - m_0 over the target."""
    t = importance_weights(of)[0][:, 0]
    return (of.s * t / of.s.sum()) @ np.hstack([-of.X, of.X]) @ theta


def start_influence(of: Sample, held_out: bool = False) -> Array:
    """Influence of each row on theta of IPWRA, shape (n, 2 p), the scores fixed; or on theta without the row."""
    columns, weights, inverse = arm_fits(of)
    kept = 1 - leverages(columns, weights, inverse) if held_out else 1.0
    return (weights / of.s * (of.y - columns @ start(of)) / kept)[:, None] * columns @ inverse * of.s.sum()


def tau_products(of: Sample) -> Array:
    """Mean of tau psi', shape (2 p, 2 p): how the gradient of V / 2 moves with theta of IPWRA, but for -c."""
    at, share = linear_forms(of), of.s / of.s.sum()
    return np.einsum("i,ibk,ibl->kl", share, at.tau[:, 1:], at.psi[:, 1:], optimize=True) / (at.tau.shape[1] - 1)


def moved_scores(of: Sample) -> Iterator[tuple[Array, Sample]]:
    """For each j the influence of the rows on gamma_j, (n,), and the sample with it moved by a complex step."""
    e = 1 / (1 + np.exp(-of.Z @ of.gammas[:, 0]))
    information = (of.Z.T * (of.s * e * (1 - e) / of.s.sum())) @ of.Z
    of_gamma = ((of.A - e)[:, None] * of.Z) @ np.linalg.inv(information)
    for j, influence in enumerate(of_gamma.T):
        yield influence, replace(of, gammas=of.gammas + 1j * STEP * (np.arange(of.Z.shape[1]) == j)[:, None])


def mean_influence(of: Sample, theta: Array) -> tuple[Array, Array]:
    """Influence of each row on the effect at known theta, shape (n,), and the slope of the effect by theta, (2 p,)."""
    t, slope = importance_weights(of)[0][:, 0], np.array([effect(of, unit) for unit in np.eye(len(theta))])
    return t * (np.hstack([-of.X, of.X]) @ theta - effect(of, theta)), slope


def influence_function(of: Sample, alpha: float, theta: Array) -> Array:
    """Influence of each row on the effect, shape (n,); the replicates move with the fitted score."""
    (H, _), xi, (of_effect, slope) = objective(of, alpha), gradient_by_row(of, alpha, theta), mean_influence(of, theta)
    xi = xi - of.c * start_influence(of) @ tau_products(of)
    for of_gamma, moved in moved_scores(of):
        moved_H, moved_g = objective(moved, alpha)
        xi = xi + np.outer(of_gamma, (moved_H @ theta + moved_g).imag / STEP)
        of_effect = of_effect + of_gamma * effect(moved, theta).imag / STEP
    return of_effect - xi @ np.linalg.solve(H, slope)


def start_effect_influence(of: Sample) -> Array:
    """Influence of each row on the effect by IPWRA, shape (n,)."""
    influence, slope = mean_influence(of, start(of))
    influence = influence + start_influence(of) @ slope
    for of_gamma, moved in moved_scores(of):
        influence = influence + of_gamma * effect(moved, start(moved)).imag / STEP
    return influence


def robust_variance(of: Sample, influence: Array) -> float:
    """Variance of an estimate from the influence of each row on it."""
    return float(np.sum((of.s * influence) ** 2) / of.s.sum() ** 2)


@dataclass(frozen=True)
class Reference:
    """A fit.

    Parameters
    ----------
    effect, start : float
        Effect by JRE and by IPWRA.
    model_means, means : ndarray, shape (2,)
        Target averages of m_0 and m_1, and the same net of the bias that the arms share.
    anchor, c : float
        alpha and c.
    risk, start_risk : float
        Expected ATE risk R of JRE and of IPWRA.
    influence : ndarray, shape (n,)
        Influence of each row on the effect.
    std_error : float
        Robust standard error of the effect.
    """

    effect: float
    start: float
    model_means: Array
    means: Array
    anchor: float
    c: float
    risk: float
    start_risk: float
    influence: Array
    std_error: float


def fit_jre(
    y: Array,
    A: Array,
    X: Array,
    Z: Array,
    fractions: Array,
    *,
    s: Array | None = None,
    target: str = "all",
    anchor: float | None = None,
    c: float | None = None,
) -> Reference:
    """Fit JRE with given weights of the propensity replicates.

    Parameters
    ----------
    y, A : ndarray, shape (n,)
        Outcome and arm, 0 or 1.
    X, Z : ndarray, shape (n, p) and (n, q)
        Columns of the outcome models and of the propensity model, with a constant among each.
    fractions : ndarray, shape (n, B)
        Fractional weights of mean 1, a column a replicate.
    s : ndarray, shape (n,), optional
        Probability weights of the rows; equal by default.
    target : {"all", "treated", "control", "overlap"}, default "all"
        Target population.
    anchor : float, optional
        alpha; by default chosen by rows held out, and raised where the robust variance is above IPWRA's.
    c : float, optional
        Share of the effect heterogeneity at the start that V leaves out; what is real of it by default.

    Returns
    -------
    Reference
        The fit.

    """
    X, Z = (np.linalg.qr(columns)[0] * np.sqrt(len(y)) for columns in (X, Z))  # the same models, and no lost digits
    s = np.ones(len(y)) if s is None else s
    gammas = [fit_propensity(Z, A, s), *(fit_propensity(Z, A, s * weights) for weights in fractions.T)]
    of = Sample(y=y, A=A, s=s, X=X, Z=Z, gammas=np.column_stack(gammas), target=target, c=0.0)
    of = replace(of, c=real_share(of) if c is None else c)
    alpha = raised(of, choose_anchor(of)[0]) if anchor is None else anchor
    theta, at, share, (t, w) = minimum(of, alpha), linear_forms(of), s / s.sum(), importance_weights(of)
    model_means = np.array([(share * t[:, 0]) @ X @ of_arm for of_arm in np.split(theta, 2)])
    shared_bias = (share @ (w[:, 1:] * (at.m @ theta + at.m_rest)[:, None])).mean() / 2
    influence = influence_function(of, alpha, theta)
    factor = 1.0 if anchor is not None else choice_variance(of, alpha)
    start_risk = expected_risk(replace(of, c=0.0), start(of))
    return Reference(
        effect=effect(of, theta),
        start=effect(of, start(of)),
        model_means=model_means,
        means=model_means - shared_bias,
        anchor=alpha,
        c=of.c,
        risk=expected_risk(of, theta) + start_risk - expected_risk(of, start(of)),  # IPWRA's is the same for all c
        start_risk=start_risk,
        influence=influence,
        std_error=float(np.sqrt(factor * robust_variance(of, influence))),
    )


def expected_risk(of: Sample, theta: Array) -> float:
    """R = mean_b u_b^2 + V / n, in squared units of the outcome."""
    at, share = linear_forms(of), of.s / of.s.sum()
    psi = at.psi[:, 1:] @ theta + at.psi_rest[:, 1:]
    u = share @ (at.u[:, 1:] @ theta + at.u_rest[:, 1:])
    return float((u**2).mean() + share @ (psi**2).mean(axis=1) / len(of.y))

"""An estimator that is not ours: an `ArmMean`, a `Specification` and what it can do are all it takes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pytest

from causalrisk import AIPW
from causalrisk.estimators.abilities import ABILITIES
from causalrisk.estimators.specification import ArmMean, Specification
from causalrisk.models.model import CausalModel
from causalrisk.numerics.linalg import solve
from causalrisk.report.page.methods import methods
from tests.conftest import in_blocks
from tests.estimators.scans.test_refit import F, agree, both, cut
from tests.estimators.test_refits import influence_error
from tests.problems import problem


@dataclass(frozen=True)
class ShiftedMean(ArmMean):
    """The average of linear predictions, shifted by the weighted mean of the arm's residuals: two passes.

    Parameters
    ----------
    gram, coefficients
        As in `ArmMean`, of the shifted predictions.
    epsilon : float
        The shift.
    lift : ndarray, shape (k,)
        Derivative of the equations by the shift, over the sum of the weights.
    """

    epsilon: float
    lift: np.ndarray

    corrected = True

    @staticmethod
    def residuals(rows):
        weight = rows.share * rows.weights.w * rows.inside
        return weight @ rows.residual, weight.sum()

    @staticmethod
    def shifted(rows, epsilon):
        return replace(rows, predicted=rows.predicted + epsilon)

    @classmethod
    def shifted_equations(cls, epsilon, rows):
        at = cls.shifted(rows, epsilon[rows.arm])
        return *ArmMean.equations(at), at.weighted.sum(axis=0)

    @classmethod
    def solve(cls, over):
        totals, weights = np.array(list(over(cls.residuals))).T
        found = over(partial(cls.shifted_equations, totals / weights))
        return tuple(
            cls(gram, solve(gram, predicted), epsilon, by_epsilon / weight)
            for (gram, predicted, by_epsilon), epsilon, weight in zip(found, totals / weights, weights, strict=True)
        )

    def derivatives(self, rows):
        at = self.shifted(rows, self.epsilon)
        by_theta, by_gamma = super().derivatives(at)
        by_theta = by_theta - np.outer(self.lift, (at.share * at.weights.w * at.inside) @ at.q)
        return by_theta, by_gamma + np.outer(self.lift, (at.share * at.residual) @ at.weights.w_by_gamma)

    def errors(self, rows):
        at = self.shifted(rows, self.epsilon)
        return super().errors(at) + np.outer(at.weights.w * at.residual, self.lift)

    @classmethod
    def refit(cls, over):
        residuals, weights = over(cls.refitted_residuals)
        return over(partial(cls.shifted_refits, residuals / weights))

    @staticmethod
    def refitted_residuals(rows):
        sample, weight = rows.sample, rows.share * rows.w
        parts = weight * (sample.y[:, None] - sample.own(rows.predicted)), weight
        return np.array([[part[members].sum(axis=0) for members in sample.slices] for part in parts])

    @staticmethod
    def shifted_refits(epsilon, rows):
        return (rows.share * rows.tilt * (rows.predicted + epsilon[:, None, rows.resamples])).sum(axis=1)


SHIFTED = Specification(
    name="Shifted",
    title="Shifted Regression Results",
    how="outcome regression, each arm shifted by the weighted mean of its residuals",
    averaged="shifted by the mean residual",
    mean=ShiftedMean,
)


class Shifted(CausalModel):
    spec = SHIFTED


@pytest.fixture(autouse=True)
def declared(monkeypatch):
    able = {"data": ("scan",), "cov_type": ("bootstrap",), "bootstrap": ("pairs", "bayesian")}
    monkeypatch.setitem(ABILITIES, SHIFTED.name, able)


@pytest.mark.parametrize(("n_arms", "target"), [(2, "all"), (2, "treated"), (2, "overlap"), (2, "frame"), (3, "all")])
def test_influence_function_is_the_derivative_by_the_weights(n_arms, target):
    parts = problem(n_arms, model="logit" if n_arms == 2 else "multinomial", target=target)
    assert influence_error(*parts.separate(SHIFTED), parts.sample) < 1e-6


def test_the_mean_by_hand(cattaneo):
    """AIPW with weights that sum to one in each arm."""
    res = Shifted.from_formula(F, cattaneo, treat="mbsmoke").fit()
    arm, score = cattaneo.mbsmoke.to_numpy(), res.propensity_scores.to_numpy()
    fitted, y = res.potential_outcomes.to_numpy(), cattaneo.bweight.to_numpy(float)
    for a, chance in enumerate((1 - score, score)):
        own = arm == a
        shift = np.average(y[own] - fitted[own, a], weights=1 / chance[own])
        assert res.params.iloc[1 + a] == pytest.approx(fitted[:, a].mean() + shift, rel=1e-12)
    groups = res.effects_by((cattaneo.mage > 26).to_numpy())
    assert np.average(groups.estimate, weights=groups.n) == pytest.approx(res.effect, rel=1e-10)
    assert res.effect == pytest.approx(AIPW.from_formula(F, cattaneo, treat="mbsmoke").fit().effect, rel=1e-3)


def test_a_scan_has_the_same_numbers(cattaneo):
    frame = cattaneo[::3].reset_index(drop=True)
    whole, parts = (Shifted.from_formula(F, data, treat="mbsmoke").fit() for data in (frame, in_blocks(cut(frame))))
    np.testing.assert_allclose(parts.params, whole.params, rtol=1e-10)
    np.testing.assert_allclose(parts.bse, whole.bse, rtol=1e-10)
    agree(*both(Shifted, frame))


def test_it_is_told_by_its_own_words(cattaneo):
    res = Shifted.from_formula(F, cattaneo, treat="mbsmoke").fit(n_boot=20)
    assert "Shifted Regression Results" in res.summary().as_text()
    words = " ".join(str(res.explain()).split())
    assert "(POM), shifted by the mean residual: POM[0] =" in words
    assert f"by {SHIFTED.how}." in methods(res._record)

"""Functions of a formula that learn from all rows, which a scan refuses."""

from __future__ import annotations

import patsy
import pytest

from causalrisk import IPWRA, UnavailableError, scan

TERMS = [
    "bs(mage, df=4)",
    "cr(mage, df=3)",
    "cc(mage, df=3)",
    "te(cr(mage, df=3), cr(medu, df=3), constraints='center')",
    "I(center(medu) ** 2) + C(prenatal)",
    "standardize(mage)",
    "mage + scale(medu)",
    "own(mage)",
]


class Smallest:
    """A stateful transform of the user: it subtracts the smallest number."""

    def __init__(self):
        self.low = float("inf")

    def memorize_chunk(self, x):
        self.low = min(self.low, x.min())

    def memorize_finish(self):
        pass

    def transform(self, x):
        return x - self.low


own = patsy.stateful_transform(Smallest)


def refused(formula, data, **options):
    told = r"formula .* uses \w+\(\), which needs all rows at once.\nUse .*collect\(\)`, or add the computed column"
    with pytest.raises(UnavailableError, match=told):
        IPWRA.from_formula(formula, scan([data]), treat="mbsmoke", **options)


@pytest.mark.parametrize("term", TERMS)
def test_functions_that_learn_from_all_rows_are_refused(cattaneo, term):
    refused(f"bweight ~ {term}", cattaneo)
    refused("bweight ~ medu", cattaneo, propensity=term)


def test_an_outcome_that_learns_is_refused(cattaneo):
    refused("center(bweight) ~ medu", cattaneo)


def test_a_function_or_a_column_of_the_same_name_is_welcome(cattaneo):
    def scale(x):
        return x / 10

    frame = cattaneo.assign(center=cattaneo.medu)
    formula = "bweight ~ scale(mage) + center"
    blocks = IPWRA.from_formula(formula, scan(frame), treat="mbsmoke").fit()  # one frame needs no list
    whole = IPWRA.from_formula(formula, frame, treat="mbsmoke").fit()
    assert blocks.effect == pytest.approx(whole.effect, rel=1e-10)
    assert scale(10) == 1


def test_a_column_of_the_propensity_model_named_like_a_module_is_no_matter(cattaneo):
    options = {"treat": "mbsmoke", "propensity": 'medu + Q("np")'}
    frame = cattaneo.assign(np=cattaneo.mage / 10)
    one, other = (IPWRA.from_formula("bweight ~ np.log(mage)", source, **options) for source in (frame, scan([frame])))
    assert other.fit().effect == pytest.approx(one.fit().effect, rel=1e-10)

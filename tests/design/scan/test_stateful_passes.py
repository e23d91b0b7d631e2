"""Functions of a formula that learn from all rows: learnt in blocks as in memory, whatever the blocks."""

from __future__ import annotations

import itertools

import numpy as np
import patsy
import pytest

from causalrisk import IPWRA, DesignError, scan
from tests.conftest import stored

pytestmark = pytest.mark.filterwarnings("ignore::causalrisk.DesignWarning")  # bases that have the constant
DF = 5
TERMS = [
    "bs(mage, knots=(20, 30), lower_bound=10, upper_bound=60)",
    "bs(z, df=4) + medu",
    "bs(mage, DF, degree=2, include_intercept=True)",
    "bs(np.log(mage), df=7):medu + bs(z, df=3)",
    "bs(x=mage, knots=[20, 25.5, 30], degree=1) + bs(z, df=4, upper_bound=9)",
    "bs(far, 6, None, 1)",
    "cr(mage, df=3) + cr(rounded, df=6, lower_bound=-2)",
    "cr(mage, df=3, constraints='center') * medu",
    "cr(mage, knots=(20, 30), constraints='center') + cc(medu, df=3, constraints=[[1, 2, 3, 4]])",
    "cc(rounded, df=4)",
    "te(cr(mage, df=3), cr(medu, df=3), constraints='center')",
    "te(bs(z, df=3), medu)",
    "center(mage) + I(center(medu) ** 2) + C(prenatal)",
    "standardize(z + 9) + scale(mage, rescale=False) + standardize(z, center=False, ddof=1):medu",
    "bs(center(mage), df=4) + standardize(bs(z, df=4))",
    "center(np.column_stack([mage, z]))",
    "standardize(mage, False, False)",
]


@pytest.fixture(scope="module")
def births(cattaneo):
    rng = np.random.default_rng(12)
    z = rng.normal(size=len(cattaneo))
    return cattaneo.assign(z=z, far=1e7 + z**3, rounded=z.round(2))


def parts(frame, *cuts):
    return [frame[a:b] for a, b in itertools.pairwise([0, *cuts, len(frame)])]


def designs(births, term, source, propensity="medu"):
    given = {"treat": "mbsmoke", "propensity": propensity}
    return [IPWRA.from_formula(f"bweight ~ {term}", data, **given).design for data in (births, scan(source))]


def agree(whole, design, rtol=1e-9):
    assert (design.exog_names, design.propensity_names) == (whole.exog_names, whole.propensity_names)
    for name in ("X", "Z", "y"):
        ours, theirs = stored(design, name), getattr(whole, name)
        np.testing.assert_allclose(ours, theirs, rtol=rtol, atol=1e-12 * np.abs(theirs).max())


def knots_of(design, side="outcome_encoder"):
    """The knots that patsy has, of every spline of a design that is no argument of another function."""
    infos = getattr(design, side).info.factor_infos.values()
    return [t._all_knots for info in infos for t in info.state["transforms"].values() if hasattr(t, "_all_knots")]


@pytest.mark.parametrize("term", TERMS)
def test_columns_and_knots_are_those_in_memory(births, term):
    whole, design = designs(births, term, parts(births, 1, 1, 700))
    agree(whole, design)
    for ours, theirs in zip(knots_of(design), knots_of(whole), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_missing_rows_teach_nothing(births):
    gaps = births.astype({"mage": float, "medu": float})
    gaps.loc[100:300, "mage"] = np.nan  # all rows of a block
    gaps.loc[gaps.z > 2, "medu"] = np.nan  # and so the upper bound of z
    whole, design = designs(gaps, "bs(z, df=5) + cr(mage, df=3) + standardize(z)", parts(gaps, 100, 301))
    assert design.nobs == whole.nobs < len(births) - 200
    agree(whole, design)
    for ours, theirs in zip(knots_of(design), knots_of(whole), strict=True):
        np.testing.assert_array_equal(ours, theirs)


# --- what is refused ----------------------------------------------------------------------------------------------


def refused(source, term, message):
    with pytest.raises(DesignError, match=message) as caught:
        IPWRA.from_formula(f"bweight ~ {term}", scan(source), treat="mbsmoke", propensity="medu")
    return str(caught.value)


def test_what_is_infinite_is_refused(births):
    frame = births.sort_values("mage", ascending=False).assign(one=5.0)
    for term in (
        "bs(np.log(mage - 13), df=4)",
        "center(np.log(mage - 13))",
        "cr(np.log(mage - 13), df=4)",
        "standardize(one)",
    ):
        refused(parts(frame, 900), term, "outcome formula")


class Own:
    """A stateful transform of the user: it subtracts the smallest number."""

    def __init__(self):
        self.low = np.inf

    def memorize_chunk(self, x):
        self.low = min(self.low, x.min())

    def memorize_finish(self):
        pass

    def transform(self, x):
        return x - self.low


def test_functions_of_the_user_learn_from_all_rows(births):
    own = center = patsy.stateful_transform(Own)
    for formula in ("bweight ~ own(mage)", "bweight ~ center(mage) + own(medu)"):
        blocks = scan(parts(births.sort_values("mage", ascending=False), 900))
        whole = IPWRA.from_formula(formula, births, treat="mbsmoke").design
        design = IPWRA.from_formula(formula, blocks, treat="mbsmoke").design
        assert design.exog_names == whole.exog_names
        np.testing.assert_allclose(np.sort(stored(design, "X"), axis=0), np.sort(whole.X, axis=0), rtol=1e-12)
    assert own is center


def test_options_that_are_computed_from_columns(births):
    option = r"computes an option of bs\(\) from columns, "
    refused([births], "bs(mage, knots=np.quantile(mage, [0.3]))", option + r"np.quantile\(mage, \[0.3\]\)")
    refused([births], "bs(mage, 4, lower_bound=Q('z').min())", option + r"Q\('z'\).min\(\)")
    refused(parts(births, 900), "bs(mage - mage.mean(), df=4)", "codes a row differently beside other rows")


def test_a_column_of_the_propensity_model_named_like_a_module_is_no_matter(births):
    options = {"treat": "mbsmoke", "propensity": 'medu + Q("np")'}
    frame = births.assign(np=births.mage / 10)
    one, other = (
        IPWRA.from_formula("bweight ~ center(np.log(mage))", source, **options) for source in (frame, scan([frame]))
    )
    assert other.fit().effect == pytest.approx(one.fit().effect, rel=1e-10)

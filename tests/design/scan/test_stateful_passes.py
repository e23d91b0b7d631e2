"""Functions of a formula that learn from all rows: learnt in blocks as in memory, whatever the blocks."""

from __future__ import annotations

import itertools
import pickle

import joblib
import numpy as np
import pandas as pd
import patsy
import pytest

from causalrisk import IPWRA, DesignError, scan
from causalrisk.numerics import blocks
from tests.conftest import formula_design
from tests.dask_stub import cluster

pytestmark = pytest.mark.filterwarnings("ignore::causalrisk.DesignWarning")  # bases that have the constant
DF = 5
TERMS = [
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
    blocks = sorted(design.blocks(), key=lambda block: block.position[0])
    for name in ("X", "Z", "y"):
        ours, theirs = np.concatenate([getattr(block, name) for block in blocks]), getattr(whole, name)
        np.testing.assert_allclose(ours, theirs, rtol=rtol, atol=1e-12 * np.abs(theirs).max())


def knots_of(design, side="outcome_encoder"):
    """The knots that patsy has, of every spline of a design that is no argument of another function."""
    infos = getattr(design, side)._compile()[2].factor_infos.values()
    return [t._all_knots for info in infos for t in info.state["transforms"].values() if hasattr(t, "_all_knots")]


@pytest.mark.parametrize("term", TERMS)
def test_columns_and_knots_are_those_in_memory(births, term):
    for cuts in ((), (1, 1, 700, 2400)):
        whole, design = designs(births, term, parts(births, *cuts))
        agree(whole, design)
        for ours, theirs in zip(knots_of(design), knots_of(whole), strict=True):
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("kept", [1, 50, 1000])
def test_knots_are_the_same_where_few_values_are_kept(births, kept, monkeypatch):
    """A block has more values than are kept, all blocks have more, and parts of the search have fewer."""
    monkeypatch.setattr(blocks, "DISTINCT", kept)
    term = "bs(z, df=9) + bs(far, df=4) + bs(mage, df=6)"
    whole, design = designs(births, term, parts(births, 30, 2000), propensity="bs(z, df=5) + medu")
    agree(whole, design)
    for side, count in (("outcome_encoder", 3), ("propensity_encoder", 1)):
        assert len(knots_of(design, side)) == count
        for ours, theirs in zip(knots_of(design, side), knots_of(whole, side), strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_variables_called_as_functions_take_no_place_of_theirs(births):
    cr, center = np, 3  # a module, as after  import causalrisk as cr
    formula, given = "bweight ~ cr(mage, df=4) + center(medu)", {"treat": "mbsmoke", "propensity": "medu"}
    whole = IPWRA.from_formula(formula, births, **given).design
    agree(whole, IPWRA.from_formula(formula, scan(parts(births, 900)), **given).design)
    assert (cr, center) == (np, 3)


def test_the_order_of_blocks_does_not_matter(births):
    blocks = parts(births, 1000, 1001, 3000)
    term = "bs(z, df=6) + standardize(mage)"
    coefs = [
        IPWRA.from_formula(f"bweight ~ {term}", scan(source), treat="mbsmoke").design.outcome_encoder.encode(
            births[:50]
        )
        for source in (blocks, blocks[::-1])
    ]
    np.testing.assert_allclose(*coefs, rtol=1e-13)


def test_an_outcome_can_be_centred(births):
    given = {"treat": "mbsmoke", "propensity": "mage"}
    whole = formula_design("standardize(bweight) ~ mage", births, **given)
    design = IPWRA.from_formula("standardize(bweight) ~ mage", scan(parts(births, 99)), **given).design
    assert design.endog_name == whole.endog_name
    agree(whole, design)


def test_missing_rows_teach_nothing(births):
    gaps = births.astype({"mage": float, "medu": float})
    gaps.loc[100:300, "mage"] = np.nan  # all rows of a block
    gaps.loc[gaps.z > 2, "medu"] = np.nan  # and so the upper bound of z
    whole, design = designs(gaps, "bs(z, df=5) + cr(mage, df=3) + standardize(z)", parts(gaps, 100, 301))
    assert design.nobs == whole.nobs < len(births) - 200
    agree(whole, design)
    for ours, theirs in zip(knots_of(design), knots_of(whole), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def passes(births, term, propensity="medu"):
    calls = itertools.count(-1)  # names of columns
    return [
        IPWRA.from_formula(
            f"bweight ~ {term}", scan(lambda: (next(calls), iter(parts(births, 900)))[1]),
            treat="mbsmoke", propensity=propensity,
        ),
        next(calls),
    ][1]  # fmt: skip


def test_passes_are_made_only_where_there_is_something_to_learn(births, monkeypatch):
    told = "bs(mage, knots=(20, 30), lower_bound=10, upper_bound=60)"
    assert passes(births, "mage") == passes(births, told) == passes(births, f"te({told}, medu)") == 2
    assert passes(births, "bs(mage, df=4) + cr(medu, df=3) + center(z)", "standardize(far) + bs(z, df=4)") == 3
    assert passes(births, "cr(mage, df=4, constraints='center') + bs(center(z), df=4)") == 4
    monkeypatch.setattr(blocks, "DISTINCT", 1)
    assert passes(births, "bs(mage, df=4)") == 4  # by the second digit of the keys these are told apart
    assert passes(births.assign(z=1 + births.index * 1e-15), "bs(z, df=4) + bs(far, df=9)") == 6


def test_new_rows_are_coded_as_in_memory(births):
    whole, design = designs(births, "bs(mage, df=4) + cr(z, df=3) + standardize(medu)", parts(births, 700))
    again = pickle.loads(pickle.dumps(design))
    new = births[5:9].assign(z=[-50.0, 0.0, 1.0, 50.0])
    for encoder in (design.outcome_encoder, again.outcome_encoder):
        np.testing.assert_allclose(encoder.encode(new), whole.outcome_encoder.encode(new), rtol=1e-12)
    messages = []
    for known in (whole, design, again):
        with pytest.raises(DesignError, match="outside the outermost knots") as caught:
            known.outcome_encoder.encode(new.assign(mage=99))
        messages.append(str(caught.value))
    assert messages[0] == messages[1] == messages[2]


@pytest.mark.parametrize("how", ["cluster", "loky"])
def test_workers_code_what_was_learnt(births, how):
    def fitted():
        source = scan(parts(births, 900, 2000))
        return IPWRA.from_formula("bweight ~ bs(z, df=4) + center(mage)", source, treat="mbsmoke").fit(n_jobs=2)

    alone = fitted()
    with cluster("works") if how == "cluster" else joblib.parallel_config(how):
        np.testing.assert_array_equal(fitted().params, alone.params)


# --- what is refused ----------------------------------------------------------------------------------------------


def refused(source, term, message):
    with pytest.raises(DesignError, match=message) as caught:
        IPWRA.from_formula(f"bweight ~ {term}", scan(source), treat="mbsmoke", propensity="medu")
    return str(caught.value)


WRONG = [
    "bs(mage, df=2)",
    "bs(mage, df=4.5)",
    "bs(mage, 4, degree=-1)",
    "bs(mage, df=9, knots=[20])",
    "bs(mage, knots=[5])",
    "bs(mage, df=4, lower_bound=50.)",
    "bs(mage, df=4, lower_bound=20)",
    "cr(mage, df=1)",
    "cr(mage, df=3, constraints='centre')",
    "cr(mage, df=6, lower_bound=20, upper_bound=20.5)",
    "cr(one, df=4)",
]


@pytest.mark.parametrize("term", WRONG)
def test_options_are_refused_in_the_words_of_memory(births, term):
    births = births.assign(one=5.0, mage=births.mage.astype(float))
    with pytest.raises(DesignError) as caught:
        formula_design(f"bweight ~ {term}", births, treat="mbsmoke", propensity="medu")
    in_memory = str(caught.value)
    assert refused(parts(births, 900), term, "outcome formula").removeprefix("block 1, rows 0 to 899: ") == in_memory


@pytest.mark.parametrize("term", ["bs(text, df=4)", "cr(text, df=3)", "bs(flag, df=4)", "standardize(text)"])
def test_text_and_flags_are_refused_in_the_words_of_memory(births, term):
    births = births.assign(text=np.where(births.z > 0, "a", "b"), flag=births.z > 0)
    with pytest.raises(DesignError) as caught:
        formula_design(f"bweight ~ {term}", births, treat="mbsmoke", propensity="medu")
    reason, found = (
        str(caught.value).splitlines()[0].split("Error: ")[1],
        refused(parts(births, 900), term, "cannot be"),
    )
    assert reason in found or "did not contain a loop" in reason  # NumPy's words before 2.0, of text that pandas made


def test_what_is_infinite_names_the_block(births):
    where = "block 2, rows 0 to 3741: term 'bs\\(np.log\\(mage - 13\\), df=4\\)' of the outcome .* infinite in 1 rows"
    frame = births.sort_values("mage", ascending=False)
    refused(parts(frame, 900), "bs(np.log(mage - 13), df=4)", where)
    refused(parts(frame, 900), "center(np.log(mage - 13))", where.replace("bs", "center").replace(", df=4", ""))
    refused(parts(births.assign(one=5.0), 900), "standardize(one)", "is NaN or infinite in 900 rows")


def test_more_distinct_values_than_are_kept(births, monkeypatch):
    monkeypatch.setattr(blocks, "DISTINCT", 300)
    message = refused(parts(births, 900), "cr(z, df=4, constraints='center')", "a scan keeps 300 at the most")
    low, high = births.z.min(), births.z.max()
    assert f"cr(z, knots=[...], lower_bound={low}, upper_bound={high}, constraints='center')" in message
    designs(births, "cr(z, knots=[0], constraints='center')", parts(births, 900))


class Own:
    """A stateful transform of the user."""

    def memorize_chunk(self, x):
        pass

    def memorize_finish(self):
        pass

    def transform(self, x):
        return x


def test_functions_and_options_that_a_scan_cannot_let_learn(births):
    own = patsy.stateful_transform(Own)
    assert own(3) == 3
    center = own
    with pytest.raises(DesignError, match=r"uses own\(\), which learns from all rows before it codes one"):
        IPWRA.from_formula("bweight ~ own(mage)", scan([births]), treat="mbsmoke")
    with pytest.raises(DesignError, match=r"uses center\(\), which learns from all rows before it codes one"):
        IPWRA.from_formula("bweight ~ center(mage)", scan([births]), treat="mbsmoke")
    del center
    option = r"works out an option of bs\(\) from columns, "
    refused([births], "bs(mage, knots=np.quantile(mage, [0.3]))", option + r"np.quantile\(mage, \[0.3\]\)")
    refused([births], "bs(mage, 4, lower_bound=Q('z').min())", option + r"Q\('z'\).min\(\)")
    refused([births], "bs(*[mage], df=4)", "arguments that are unpacked; expected them one by one")
    refused(parts(births, 900), "bs(mage - mage.mean(), df=4)", "codes a row differently beside other rows")


def test_a_function_of_the_user_with_the_name_of_one_that_learns(births):
    def scale(x):
        return x / 10

    design = IPWRA.from_formula("bweight ~ scale(mage)", scan(parts(births, 900)), treat="mbsmoke").design
    np.testing.assert_array_equal(np.concatenate([b.X[:, 1] for b in design.blocks()]), scale(births.mage))


def test_rounding_where_a_column_is_zero_is_no_dependence_on_other_rows(births):
    """A product with the matrix of a constraint rounds otherwise for one row than for many."""
    zeros = np.resize([0.36970737989879154, -0.08964866187542084, 2.396108717477901], 400)
    frame = births.assign(z=np.r_[zeros, births.z[400:]])
    term = "cr(z, knots=[-0.5, 0.7], lower_bound=-5, upper_bound=5, constraints=[[0.1, 0.2, 0.3, 0.15]])"
    agree(*designs(frame, term, parts(frame, 400)))


def test_options_are_refused_before_a_pass_is_made_for_them(births):
    for term in ("bs(mage, df=2)", "cr(mage, df=1)", "bs(text, df=4, degree=-1)"):
        calls = itertools.count(1)
        refused(lambda calls=calls: (next(calls), iter([births.assign(text="a")]))[1], term, "must be|greater than")
        assert next(calls) == 3  # names of columns, and levels


def test_data_that_change_between_passes(births, monkeypatch):
    monkeypatch.setattr(blocks, "DISTINCT", 5)
    calls = itertools.count()
    with pytest.raises(DesignError, match=r"a later pass read other rows than the first ones: .* every pass has to"):
        IPWRA.from_formula(
            "bweight ~ bs(z, df=5)",
            scan(lambda: iter([births.assign(z=births.z + 10 * (next(calls) > 2))])),
            treat="mbsmoke",
        )
    calls = itertools.count()
    with pytest.raises(DesignError, match="the first pass read 4642 rows and used 4642, a later one read 4600"):
        IPWRA.from_formula(
            "bweight ~ center(z)", scan(lambda: iter([births[: 4600 if next(calls) == 2 else None]])), treat="mbsmoke"
        )


def test_trimming_keeps_what_all_rows_taught(births):
    fits = [
        IPWRA.from_formula("bweight ~ bs(mage, df=4) + standardize(z)", data, treat="mbsmoke", trim=(0.12, 0.9)).fit()
        for data in (births, scan(parts(births, 700)))
    ]
    assert fits[0].nobs == fits[1].nobs < len(births)
    np.testing.assert_allclose(fits[1].params, fits[0].params, rtol=1e-9)
    np.testing.assert_allclose(fits[1].bse, fits[0].bse, rtol=1e-9)
    np.testing.assert_allclose(fits[1].outcome_params, fits[0].outcome_params, rtol=1e-6)


def test_a_frame_of_pandas_of_another_dtype(births):
    """Integers, nullable numbers and numbers of single precision are those of memory."""
    other = births.assign(
        mage=births.mage.astype("Int64"), z=births.z.astype("float32"), medu=births.medu.astype("int8")
    )
    whole, design = designs(other, "bs(mage, df=4) + cr(medu, df=3) + bs(z, df=5)", parts(other, 900))
    agree(whole, design)
    for ours, theirs in zip(knots_of(design), knots_of(whole), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert isinstance(other.mage.dtype, pd.Int64Dtype)

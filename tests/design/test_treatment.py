"""Treatment coding: which values need no help, which must be refused, and which option a message names."""

import numpy as np
import pandas as pd
import pytest

from causalrisk.design.treatment import code_levels
from causalrisk.errors import DesignError, OptionError


def code(values, **options):
    return code_levels(pd.Series(values), "d", **{"treated": None, "reference": None, "levels": None} | options)


def advice(values, **options):
    """The last line of the message that refuses a treatment."""
    with pytest.raises((DesignError, OptionError)) as caught:
        code(values, **options)
    return str(caught.value).splitlines()[-1]


BINARY = {
    "int": np.array([0, 1, 1, 0]),
    "int8": np.array([0, 1, 1, 0], dtype=np.int8),
    "float": np.array([0.0, 1.0, 1.0, 0.0]),
    "bool": np.array([False, True, True, False]),
    "nullable bool": pd.array([False, True, True, False], dtype="boolean"),
    "nullable int": pd.array([0, 1, 1, 0], dtype="Int64"),
    "object bool": np.array([False, np.True_, True, False], dtype=object),
    "category": pd.Categorical([0, 1, 1, 0]),
    "sparse": pd.arrays.SparseArray([0, 1, 1, 0]),
    "big-endian": np.array([0, 1, 1, 0], dtype=">f8"),
}


@pytest.mark.parametrize("values", BINARY.values(), ids=BINARY)
def test_zero_one_needs_nothing(values):
    coding = code(values)
    assert coding.arm.tolist() == [0, 1, 1, 0]
    assert coding.arm.dtype == np.int8
    assert coding.labels == ("0", "1")
    assert coding.levels == (0, 1)


@pytest.mark.parametrize(("count", "dtype"), [(128, np.int8), (129, np.int16)])
def test_arms_are_of_the_smallest_type_that_has_them(count, dtype):
    coding = code([f"{level:03}" for level in range(count)], reference="000")
    assert coding.arm.tolist() == list(range(count))
    assert coding.arm.dtype == dtype


@pytest.mark.parametrize("options", [{"treated": 0}, {"reference": 1}, {"treated": 0, "reference": 1}])
def test_zero_one_can_be_flipped(options):
    coding = code([0, 1, 1, 0], **options)
    assert coding.arm.tolist() == [1, 0, 0, 1]
    assert coding.labels == ("1", "0")


def test_bool_levels_match_numbers():
    assert code([False, True, True], treated=False).arm.tolist() == [1, 0, 0]
    assert code([0, 1, 1], treated=np.bool_(True)).arm.tolist() == [0, 1, 1]


def test_other_numbers_need_a_level():
    for values in ([1, 2, 2, 1], [-1.0, 1.0, 1.0]):
        with pytest.raises(DesignError, match="treated="):
            code(values)
    assert code([1, 2, 2, 1], treated=2).arm.tolist() == [0, 1, 1, 0]
    assert code([1, 2, 2, 1], reference=np.int64(2)).levels == (2, 1)


TEXT = {
    "object": np.array(["yes", "no", "no"], dtype=object),
    "string": pd.array(["yes", "no", "no"], dtype="string"),
    "category": pd.Categorical(["yes", "no", "no"], categories=["no", "maybe", "yes"]),
}


@pytest.mark.parametrize("values", TEXT.values(), ids=TEXT)
def test_text_needs_a_level(values):
    with pytest.raises(DesignError, match=r'(?s)which level is treated.*treated="yes"'):
        code(values)
    coding = code(values, treated="yes")
    assert coding.arm.tolist() == [1, 0, 0]
    assert coding.levels == coding.labels == ("no", "yes")
    assert code(values, reference="yes").arm.tolist() == [0, 1, 1]


def test_digits_as_text_are_text():
    assert code(["0", "1", "1"], treated="1").arm.tolist() == [0, 1, 1]
    for options in ({}, {"treated": 1}):
        with pytest.raises(DesignError):
            code(["0", "1", "1"], **options)


def test_unknown_level_lists_the_levels():
    with pytest.raises(
        DesignError, match=r"(?s)treated=.x. is not a level of treatment 'd'.*'no'    1 complete rows.*'yes'"
    ):
        code(["yes", "no"], treated="x")
    with pytest.raises(DesignError, match='treated="1" is not a level'):
        code([0, 1], treated="1")
    with pytest.raises(DesignError, match="treated=5 is"):  # shown as a plain value
        code([0, 1], treated=np.int64(5))
    for values, option in (([1, 2], "treated"), ([1, 2], "reference"), ([0, 1, 2], "reference")):
        with pytest.raises(DesignError, match=f"{option}=True is not a level"):  # 1 may mean no
            code(values, **{option: True})


def test_contradicting_levels():
    with pytest.raises(OptionError, match="name the same level"):
        code([0, 1], treated=1, reference=1)


THREE = {
    "int": ([2, 0, 1, 2], 1, (1, 0, 2)),
    "whole floats": ([2.0, 0.0, 1.0, 2.0], 0, (0, 1, 2)),
    "negative": ([-1, 0, 1, 1], 0, (0, -1, 1)),
    "text": (["b", "c", "a", "b"], "b", ("b", "a", "c")),
    "category": (
        pd.Categorical(["low", "mid", "high", "mid"], ["low", "mid", "unused", "high"]),
        "mid",
        ("mid", "low", "high"),
    ),
    "integer categories": (pd.Categorical([3, 1, 2], [3, 2, 1]), 1, (1, 3, 2)),
    "intervals": (pd.cut([1.0, 12.0, 25.0], [0, 10, 20, 30]), "(0, 10]", ("(0, 10]", "(10, 20]", "(20, 30]")),
}


@pytest.mark.parametrize(("values", "reference", "levels"), THREE.values(), ids=THREE)
def test_several_levels_with_a_reference(values, reference, levels):
    coding = code(values, reference=reference)
    assert coding.levels == levels
    assert coding.labels == tuple(str(v) for v in levels)
    assert [coding.labels[k] for k in coding.arm] == [str(int(v) if isinstance(v, float) else v) for v in values]


def test_several_levels_need_a_reference():
    with pytest.raises(DesignError, match="3 levels, but reference= is missing"):
        code(["b", "a", "c", "c"])
    with pytest.raises(DesignError, match=r'(?s)reference="x" is not a level.*reference="a"'):
        code(["b", "a", "c"], reference="x")


@pytest.mark.parametrize("treated", ["Programme", "other", "usual care"])
def test_several_levels_have_no_single_treated_one(treated):
    """Nor is it proposed as the reference: obeyed, that advice turned the sign of the effect."""
    levels = ["Programme", "other", "usual care"] * 2
    with pytest.raises(OptionError, match="treated="):
        code(levels, treated=treated)
    assert f'"{treated}"' not in advice(levels, treated=treated)
    assert 'reference="other"' in advice(levels, treated=treated, reference="other")


def test_many_numbers_are_a_count_or_a_dose_unless_made_categories():
    counts = np.arange(30) % 21
    with pytest.raises(DesignError, match=r"'d' looks like a count, a dose or a probability; .* found 21 levels"):
        code(counts, reference=0)
    assert len(code(counts[:20], reference=0).labels) == 20
    assert code(pd.Categorical(counts), reference=0).levels == tuple(range(21))
    assert len(code(pd.cut(counts, 3), reference="(-0.02, 6.667]").labels) == 3


def test_two_levels_beside_unused_ones():
    assert code(pd.Categorical(["b", "a"], ["a", "b", "c"]), treated="b").levels == ("a", "b")


@pytest.mark.parametrize("values", [[0.3, 0.7, 0.1], [0.3, 0.7], [0.5, 3.0, 9.25]])
def test_continuous_values(values):
    for options in ({}, {"reference": values[0]} if len(values) > 2 else {}):
        with pytest.raises(DesignError, match="treatment 'd' looks like a count, a dose"):
            code(values, **options)
    assert code([0.5, 1.5, 0.5], treated=1.5).arm.tolist() == [0, 1, 0]
    assert code(pd.Categorical([0.5, 1.5, 2.5]), reference=0.5).levels == (0.5, 1.5, 2.5)  # as the message advises


@pytest.mark.parametrize(("values", "options"), [([1, 1, 1], {}), ([False, False], {}), (["a", "a"], {"treated": "a"})])
def test_constant(values, options):
    with pytest.raises(DesignError, match="'d' is constant"):
        code(values, **options)


@pytest.mark.parametrize("values", [pd.to_datetime(["2020-01-01", "2020-01-02"]), np.array([1j, 2j]), [{}, {}]])
def test_unusable_dtypes(values):
    with pytest.raises(DesignError, match="column 'd' has dtype"):
        code(values)


def test_labels():
    coding = code([0, 1, 1], levels={1: "smoker", 0: "nonsmoker"})
    assert coding.labels == ("nonsmoker", "smoker")
    assert coding.levels == (0, 1)
    assert code([False, True], levels={True: "b", False: "a"}).labels == ("a", "b")
    assert code([0, 1], treated=0, levels={0: "a", 1: "b"}).labels == ("b", "a")
    three = {"a": "none", "b": "some", "c": "much"}
    assert code(["a", "b", "c"], reference="c", levels=three).labels == ("much", "none", "some")


@pytest.mark.parametrize("levels", [{0: "a"}, {0: "a", 2: "b"}, ["a", "b"], {0: "a", 1: "a"}])
def test_labels_must_fit_the_levels(levels):
    with pytest.raises(DesignError, match="levels"):
        code([0, 1], levels=levels)
    assert advice([0, 1], levels=levels) == 'Use `levels={0: "control", 1: "treated"}`.'

"""Treatment coding: which values need no help, which must be refused, and what the messages say."""

import numpy as np
import pandas as pd
import pytest

from causalrisk.design.treatment import code_treatment
from causalrisk.errors import DesignError, OptionError


def code(values, **options):
    return code_treatment(pd.Series(values), "d", **options)


BINARY = {
    "int": np.array([0, 1, 1, 0]),
    "int8": np.array([0, 1, 1, 0], dtype=np.int8),
    "float": np.array([0.0, 1.0, 1.0, 0.0]),
    "bool": np.array([False, True, True, False]),
    "nullable bool": pd.array([False, True, True, False], dtype="boolean"),
    "nullable int": pd.array([0, 1, 1, 0], dtype="Int64"),
    "nullable float": pd.array([0, 1, 1, 0], dtype="Float64"),
    "object int": np.array([0, 1, 1, 0], dtype=object),
    "object bool": np.array([False, np.True_, True, False], dtype=object),
    "category": pd.Categorical([0, 1, 1, 0]),
    "sparse": pd.arrays.SparseArray([0, 1, 1, 0]),
    "big-endian": np.array([0, 1, 1, 0], dtype=">f8"),
}


@pytest.mark.parametrize("values", BINARY.values(), ids=BINARY)
def test_zero_one_needs_nothing(values):
    coding = code(values)
    assert coding.arm.tolist() == [0, 1, 1, 0]
    assert coding.arm.dtype == np.intp
    assert coding.labels == ("0", "1")
    assert coding.levels == (0, 1)


@pytest.mark.parametrize("options", [{"treated": 0}, {"reference": 1}, {"treated": 0, "reference": 1}])
def test_zero_one_can_be_flipped(options):
    coding = code([0, 1, 1, 0], **options)
    assert coding.arm.tolist() == [1, 0, 0, 1]
    assert coding.labels == ("1", "0")


def test_bool_levels_match_numbers():
    assert code([False, True, True], treated=False).arm.tolist() == [1, 0, 0]
    assert code([0, 1, 1], treated=np.bool_(True)).arm.tolist() == [0, 1, 1]


def test_other_numbers_need_a_level():
    with pytest.raises(DesignError) as caught:
        code_treatment(pd.Series([1, 2, 2, 1]), "smoker", call='from_formula(..., treat="smoker", ')
    assert str(caught.value) == (
        "treatment 'smoker' has values [1, 2] in 4 rows; expected 0/1 or bool. Say which level is treated:\n"
        'from_formula(..., treat="smoker", treated=2).'
    )
    with pytest.raises(DesignError, match=r"values \[-1, 1\]"):
        code([-1.0, 1.0, 1.0])
    assert code([1, 2, 2, 1], treated=2).arm.tolist() == [0, 1, 1, 0]
    assert code([1, 2, 2, 1], reference=np.int64(2)).levels == (2, 1)


TEXT = {
    "object": np.array(["yes", "no", "no"], dtype=object),
    "string": pd.array(["yes", "no", "no"], dtype="string"),
    "category": pd.Categorical(["yes", "no", "no"], categories=["no", "maybe", "yes"]),
}


@pytest.mark.parametrize("values", TEXT.values(), ids=TEXT)
def test_text_needs_a_level(values):
    with pytest.raises(DesignError) as caught:
        code(values)
    assert str(caught.value) == (
        "treatment 'd' has text levels, and nothing says which one is treated (the sign of the effect depends on it):\n"
        "    'no'    2 rows\n    'yes'   1 rows\n"
        'Add  treated="yes"  (or  reference="no").'
    )
    coding = code(values, treated="yes")
    assert coding.arm.tolist() == [1, 0, 0]
    assert coding.levels == coding.labels == ("no", "yes")
    assert code(values, reference="yes").arm.tolist() == [0, 1, 1]


def test_digits_as_text_are_text():
    with pytest.raises(DesignError, match="text levels"):
        code(["0", "1", "1"])
    assert code(["0", "1", "1"], treated="1").arm.tolist() == [0, 1, 1]
    with pytest.raises(DesignError, match="treated=1 is not a level"):
        code(["0", "1", "1"], treated=1)


def test_unknown_level_lists_the_levels():
    with pytest.raises(DesignError, match=r"(?s)treated=\"x\" is not a level of treatment 'd'.*'no'    1 rows.*'yes'"):
        code(["yes", "no"], treated="x")
    with pytest.raises(DesignError, match="reference=True is not a level"):
        code([1, 2], reference=True)
    with pytest.raises(DesignError, match='treated="1" is not a level'):
        code([0, 1], treated="1")


def test_contradicting_levels():
    with pytest.raises(OptionError, match="name the same level"):
        code([0, 1], treated=1, reference=1)
    with pytest.raises(OptionError, match=r"treated=\[1\] is of type list; expected one level"):
        code([0, 1], treated=[1])


def test_more_than_two_levels():
    with pytest.raises(
        DesignError, match=r"(?s)has 3 levels; expected two:\n    0   1 rows\n    1   2 rows.*isin\(\[0, 1\]"
    ):
        code([0, 1, 1, 2])
    with pytest.raises(OptionError, match="several levels are not available yet in this version"):
        code([0, 1, 1, 2], reference=0)
    with pytest.raises(DesignError, match="and 18 more levels"):
        code(np.arange(30))


@pytest.mark.parametrize(
    ("values", "kind"),
    [([0.3, 0.7, 0.1], "a probability"), ([0.3, 0.7], "a probability"), ([0.5, 3.0, 9.25], "a dose")],
)
def test_continuous_values(values, kind):
    with pytest.raises(DesignError, match=f"treatment 'd' looks like {kind}"):
        code(values)


def test_two_fractional_doses_with_a_level():
    assert code([0.5, 1.5, 0.5], treated=1.5).arm.tolist() == [0, 1, 0]


def test_constant():
    with pytest.raises(DesignError, match=r"'d' is constant: 3 rows have 1 \(arm 0: 0 rows, arm 1: 3 rows\)"):
        code([1, 1, 1])
    with pytest.raises(DesignError, match=r"'d' is constant: 2 rows have 0 \(arm 0: 2 rows, arm 1: 0 rows\)"):
        code([False, False])
    with pytest.raises(DesignError, match="constant: 2 rows have 'a'; expected two arms"):
        code(["a", "a"], treated="a")


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


def test_labels_must_fit_the_levels():
    with pytest.raises(
        DesignError, match=r"levels= has no label for 1; .*\nType  levels=\{0: \"control\", 1: \"treated\"\}"
    ):
        code([0, 1], levels={0: "a"})
    with pytest.raises(DesignError, match=r"has no label for 1 and labels 2, not among the levels"):
        code([0, 1], levels={0: "a", 2: "b"})
    with pytest.raises(DesignError, match="expected distinct labels"):
        code([0, 1], levels={0: "a", 1: "a"})
    with pytest.raises(OptionError, match="levels is of type list"):
        code([0, 1], levels=["a", "b"])


def test_every_message_ends_with_what_to_type():
    for values, options in [([1, 2], {}), (["a", "b"], {}), ([0, 1, 2], {}), ([1, 1], {}), ([0, 1], {"treated": 5})]:
        with pytest.raises(DesignError) as caught:
            code(values, **options)
        assert len(str(caught.value).splitlines()) > 1

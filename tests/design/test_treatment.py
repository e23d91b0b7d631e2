"""Treatment coding: which values need no help, which must be refused, and what the messages say."""

import numpy as np
import pandas as pd
import pytest

from causalrisk.design.treatment import code_levels
from causalrisk.errors import DesignError, OptionError


def code(values, **options):
    return code_levels(pd.Series(values), "d", **options)


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
    with pytest.raises(DesignError) as caught:
        code_levels(pd.Series([1, 2, 2, 1]), "smoker", call='from_formula(..., treat="smoker", ')
    assert str(caught.value) == (
        "treatment 'smoker' has values [1, 2] in 4 rows; expected 0/1 or bool. Say which level is treated; "
        "if it is 2:\n"
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


@pytest.mark.parametrize(
    ("levels", "treated"),
    [
        (("control", "treated"), "treated"),
        (("placebo", "active"), "active"),
        (("nonsmoker", "Smoker"), "Smoker"),
        (("untreated", "treated"), "treated"),
        (("No", "Yes"), "Yes"),
        (("never", "daily"), "daily"),
        (("Unemployed", "employed"), "employed"),
    ],
)
def test_advice_takes_the_absence_for_the_reference(levels, treated):
    """Whatever the alphabet says."""
    with pytest.raises(DesignError) as caught:
        code(levels)
    control = next(level for level in levels if level != treated)
    assert str(caught.value).endswith(f'\nAdd  treated="{treated}"  (or  reference="{control}").')


@pytest.mark.parametrize("levels", [("drug", "surgery"), ("no", "never"), ("north", "south"), ("old", "union")])
def test_advice_leaves_the_choice_where_names_do_not_tell(levels):
    with pytest.raises(DesignError) as caught:
        code(levels)
    first, last = sorted(levels)
    assert str(caught.value).endswith(f'\nAdd  treated="{last}"  or  treated="{first}", whichever is the treatment.')


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


THREE = {
    "int": ([2, 0, 1, 2], 1, (1, 0, 2)),
    "whole floats": ([2.0, 0.0, 1.0, 2.0], 0, (0, 1, 2)),
    "negative": ([-1, 0, 1, 1], 0, (0, -1, 1)),
    "text": (["b", "c", "a", "b"], "b", ("b", "a", "c")),
    "string": (pd.array(["b", "c", "a"], dtype="string"), "a", ("a", "b", "c")),
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
    with pytest.raises(DesignError) as caught:
        code(["b", "a", "c", "c"])
    assert str(caught.value) == (
        "treatment 'd' has 3 levels, and nothing says which one the others are compared with:\n"
        "    'a'   1 rows\n    'b'   1 rows\n    'c'   2 rows\n"
        'Add  reference="a", if that is the level to compare with  (or keep two levels, e.g.  '
        'data[data["d"].isin(["a", "b"])]).'
    )
    with pytest.raises(DesignError, match=r'(?s)reference="x" is not a level.*Type  reference="a"  or  reference="b"'):
        code(["b", "a", "c"], reference="x")


@pytest.mark.parametrize("options", [{"treated": "b"}, {"treated": "b", "reference": "a"}])
def test_several_levels_have_no_single_treated_one(options):
    with pytest.raises(OptionError, match=r"(?s)treated=\"b\" .* 3 levels.*'c'   2 rows\nType  reference=\"a\"  alone"):
        code(["b", "a", "c", "c"], **options)


def test_many_numbers_are_a_count_or_a_dose_unless_made_categories():
    counts = np.arange(30) % 21
    with pytest.raises(
        DesignError, match=r"(?s)'d' looks like a count or a dose: 21 levels.*and 9 more levels\nCut it"
    ):
        code(counts, reference=0)
    assert len(code(counts[:20], reference=0).labels) == 20
    assert code(pd.Categorical(counts), reference=0).levels == tuple(range(21))
    assert len(code(pd.cut(counts, 3), reference="(-0.02, 6.667]").labels) == 3


def test_two_levels_beside_unused_ones():
    assert code(pd.Categorical(["b", "a"], ["a", "b", "c"]), treated="b").levels == ("a", "b")


@pytest.mark.parametrize(
    ("values", "kind"),
    [([0.3, 0.7, 0.1], "a probability"), ([0.3, 0.7], "a probability"), ([0.5, 3.0, 9.25], "a dose")],
)
def test_continuous_values(values, kind):
    with pytest.raises(DesignError, match=f"treatment 'd' looks like {kind}"):
        code(values)
    if len(values) > 2:
        with pytest.raises(DesignError, match=f"treatment 'd' looks like {kind}"):
            code(values, reference=values[0])


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
    three = {"a": "none", "b": "some", "c": "much"}
    assert code(["a", "b", "c"], reference="c", levels=three).labels == ("much", "none", "some")


def test_labels_must_fit_the_levels():
    with pytest.raises(
        DesignError, match=r"levels= has no label for 1; .*\nType  levels=\{0: \"control\", 1: \"treated\"\}"
    ):
        code([0, 1], levels={0: "a"})
    with pytest.raises(DesignError, match=r"has no label for 1 and labels 2, not among the levels"):
        code([0, 1], levels={0: "a", 2: "b"})
    with pytest.raises(DesignError, match="levels 1, 2 of treatment 'd' would print as 'a', 'a'; expected distinct"):
        code([0, 1, 2], reference=0, levels={0: "b", 1: "a", 2: "a"})
    with pytest.raises(DesignError, match=r"no label for 2; .*\nType  levels=\{0: \"level 0\", 1: \"level 1\", 2: "):
        code([0, 1, 2], reference=0, levels={0: "b", 1: "a"})
    with pytest.raises(OptionError, match="levels is of type list"):
        code([0, 1], levels=["a", "b"])


@pytest.mark.parametrize(
    "options", [{"treated": np.int64(5)}, {"reference": np.str_("x")}, {"levels": {np.int64(7): "a"}}]
)
def test_levels_are_shown_as_plain_values(options):
    with pytest.raises(DesignError) as caught:
        code(np.array([0, 1, 1]), **options)
    assert "np." not in str(caught.value)


def test_every_message_ends_with_what_to_type():
    for values, options in [([1, 2], {}), (["a", "b"], {}), ([0, 1, 2], {}), ([1, 1], {}), ([0, 1], {"treated": 5})]:
        with pytest.raises(DesignError) as caught:
            code(values, **options)
        assert len(str(caught.value).splitlines()) > 1


def test_the_treated_level_is_never_proposed_as_the_reference():
    """Obeyed, that advice turned the sign of the effect."""
    for treated in ("Programme", "other", "usual care"):
        with pytest.raises(OptionError) as caught:
            code(["Programme", "other", "usual care"] * 2, treated=treated)
        typed = str(caught.value).splitlines()[-1]
        assert typed.startswith("Type  reference=") and f'"{treated}"' not in typed
    with pytest.raises(OptionError, match=r'\nType  reference="placebo"  alone\.$'):
        code(["a drug", "another", "placebo"], treated="a drug")


@pytest.mark.parametrize("options", [{}, {"treated": "Programme"}])
@pytest.mark.parametrize(
    ("levels", "typed"),
    [
        (["Programme", "Programme ", "usual care"], 'data["d"] = data["d"].str.strip()'),
        (["Programme", "PROGRAMME"], 'data["d"] = data["d"].str.strip().str.lower()'),
    ],
)
def test_levels_that_differ_in_blanks_or_case_are_named(levels, typed, options):
    with pytest.raises(DesignError) as caught:
        code(levels, **options)
    head, last = str(caught.value).rsplit("\n", 1)
    assert last == f"Type  {typed}" and all(repr(level) in head for level in levels[:2])


@pytest.mark.parametrize("word", ["n/a", "NA", " nan", "NULL", "."])
@pytest.mark.parametrize("options", [{}, {"treated": "Programme"}])
def test_a_word_for_a_missing_value_is_no_reference(word, options):
    with pytest.raises(DesignError) as caught:
        code(["Programme", "usual care", word] * 2, **options)
    last = str(caught.value).rsplit("\n", 1)[1]
    assert last.startswith(f'Type  data["d"] = data["d"].mask(data["d"].isin([{word!r}]))')
    assert code(["none", "low", "high"], reference="none").labels == ("none", "high", "low")  # a level, named as such

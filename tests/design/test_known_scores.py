"""Known propensity scores: one column or one per arm, matched by name, in the open unit interval."""

import numpy as np
import pandas as pd
import pytest

from causalrisk.errors import DesignError, DesignWarning
from tests.conftest import array_design, formula_design

N = 60


@pytest.fixture
def data():
    rng = np.random.default_rng(2)
    frame = pd.DataFrame({"y": rng.normal(size=N), "x": rng.normal(size=N), "d": np.arange(N) % 2})
    frame["t"] = np.array(["c", "a", "b"])[np.arange(N) % 3]
    frame["ps"] = rng.uniform(0.1, 0.9, N)
    return frame.set_axis([f"r{i}" for i in range(N)])


@pytest.fixture
def three():
    scores = np.random.default_rng(4).dirichlet([3, 4, 5], N)
    return pd.DataFrame(scores, columns=["a", "b", "c"], index=[f"r{i}" for i in range(N)])


def make(data, score, **options):
    options = {"treat": "d", **options}
    return formula_design("y ~ x", data, propensity_score=score, frame={}, **options)


def make_three(data, score, **options):
    return make(data, score, treat="t", reference="b", **options)


def test_a_column_is_the_probability_of_the_treated_arm(data):
    expected = np.column_stack([1 - data.ps, data.ps])
    design = make(data, "ps")
    assert np.array_equal(design.score, expected)
    assert design.score.flags.c_contiguous and not design.score.flags.writeable
    assert design.score_name == "ps"
    assert make(data, data.ps.to_numpy()).score_name == "propensity_score"
    for score in (data.ps, data.ps.to_numpy(), list(data.ps), data[["ps"]], data.ps.astype("Float64")):
        assert np.array_equal(make(data, score).score, expected)
    assert np.array_equal(make(data, "ps", treated=0).score, expected)  # of the arm that is treated, here 0


def test_a_number_is_the_score_of_all_rows(data):
    assert np.array_equal(make(data, 0.3).score, make(data, np.full(N, 0.3)).score)
    assert np.allclose(make(data, {0: 0.7, 1: 0.3}).score, [0.7, 0.3])
    assert np.allclose(make_three(data, {"c": 0.5, "a": 0.2, "b": 0.3}).score, [0.3, 0.2, 0.5])
    with pytest.raises(DesignError, match="the scores have the columns '0'"):
        make(data, {0: 0.7})
    with pytest.raises(DesignError, match="do not sum to 1"):
        make(data, {0: 0.7, 1: 0.7})


def test_a_labelled_score_is_aligned(data, three):
    with pytest.warns(DesignWarning, match="propensity score 'ps' has the row labels of the data in another order"):
        assert np.array_equal(make(data, data.ps[::-1]).score[:, 1], data.ps)
    with pytest.warns(DesignWarning, match="propensity score has the row labels of the data in another order"):
        assert np.array_equal(make_three(data, three[::-1]).score, three[["b", "a", "c"]])
    with pytest.raises(DesignError, match="'ps' has 59 values, but the data have 60 rows"):
        make(data, data.ps[1:])
    with pytest.raises(DesignError, match=r"propensity score 'p' is neither a column .*\nDid you mean 'ps'"):
        make(data, "p")


@pytest.mark.parametrize("columns", [["c", "a", "b"], ["b", "c", "a"]])
def test_a_column_per_arm_is_matched_by_level(data, three, columns):
    design = make_three(data, three[columns])
    assert design.labels == ("b", "a", "c")
    assert np.array_equal(design.score, three[["b", "a", "c"]])
    assert design.score_name is None


def test_a_column_per_arm_is_matched_by_label(data, three):
    labels = {"a": "half", "b": "none", "c": "full"}
    design = make_three(data, three.rename(columns=labels)[["full", "half", "none"]], levels=labels)
    assert np.array_equal(design.score, three[["b", "a", "c"]])
    coded = data.assign(t=data.t.map({"a": 0, "b": 1, "c": 2}))
    assert np.array_equal(
        make(coded, three.set_axis([0, 1, 2], axis=1), treat="t", reference=1).score, three[["b", "a", "c"]]
    )


def test_an_array_has_the_order_of_the_labels(data, three):
    assert np.array_equal(make_three(data, three.to_numpy()).score, three)
    design = array_design(
        data.y, np.column_stack([np.ones(N), data.x]), data.t, reference="b", propensity_score=three.to_numpy()
    )
    assert np.array_equal(design.score, three)
    swapped = make(data, np.column_stack([1 - data.ps, data.ps]), levels={0: "1", 1: "0"})
    assert np.array_equal(swapped.score, make(data, "ps").score)  # labels that are other levels do not count


def test_two_columns_for_two_arms(data):
    both = pd.DataFrame({1: data.ps, 0: 1 - data.ps})
    assert np.array_equal(make(data, both).score, make(data, "ps").score)


def test_missing_scores_drop_the_row(data, three):
    data.loc[["r3", "r7"], "ps"] = np.nan
    design = make(data, "ps")
    assert design.n == N - 2 and len(design.score) == N - 2
    assert design.sample_ledger.to_numpy().tolist() == [["propensity score", "ps", 2, 2]]
    three.loc["r5", "a"] = np.nan
    design = make_three(data, three)
    assert design.sample_ledger.to_numpy().tolist() == [["propensity score", "propensity_score[a]", 1, 1]]
    assert np.array_equal(design.score, three.drop(index="r5")[["b", "a", "c"]])
    with pytest.raises(DesignError, match=r"(?s)missing values in 2 of 60 rows.*'ps' \(propensity score\)  2 rows"):
        make(data, "ps", missing="raise")


@pytest.mark.parametrize("value", [0.0, 1.0, -0.1, 55.0])
def test_scores_outside_the_unit_interval(data, three, value):
    data.loc[["r3", "r7"], "ps"] = value
    with pytest.raises(DesignError, match=r"propensity score 'ps' is outside .* in 2 rows .*group '1'"):
        make(data, "ps")
    three.loc[["r3", "r7"], "a"] = value
    with pytest.raises(
        DesignError, match=r"propensity score 'propensity_score\[a\]' is outside .* in 2 rows .*group 'a'"
    ):
        make_three(data, three)


def test_scores_that_do_not_sum_to_one(data, three):
    three.loc[["r3", "r7"], "a"] *= 0.5
    with pytest.raises(DesignError, match=r"do not sum to 1 in 2 rows \(e.g. 0\.\d+\)"):
        make_three(data, three)
    assert make_three(data, three.div(three.sum(axis=1), axis=0).astype(np.float32)).score is not None


def test_scores_that_do_not_fit_the_arms(data, three):
    wrong = (three[["a", "b"]], three.assign(d=0.1), three.to_numpy()[:, :2], "ps")
    use = {"rename": [three.rename(columns={"a": "z"})], "Give 3 columns": wrong}
    for advice, every in use.items():
        for scores in every:
            with pytest.raises(DesignError, match=rf"expected one column per level: 'b', 'a', 'c'\.\n.*{advice}"):
                make_three(data, scores)


def test_scores_that_are_no_numbers(data):
    with pytest.raises(DesignError, match="propensity score 't' has dtype"):
        make(data, "t")
    with pytest.raises(TypeError, match=r"propensity score .* is of type builtins.dict"):
        make(data, {})

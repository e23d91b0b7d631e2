"""The same design on fewer rows, as trimming makes it."""

import pickle

import numpy as np
import pandas as pd
import pytest

from causalrisk.errors import DesignError, DesignWarning
from tests.conftest import array_design, formula_design

N = 90
REASON = "propensity score outside [0.1, 0.9]"


@pytest.fixture
def data():
    rng = np.random.default_rng(8)
    frame = pd.DataFrame({"y": rng.normal(size=N), "x": rng.normal(size=N), "z": rng.normal(size=N)})
    frame["t"] = np.array(["c", "a", "b"])[np.arange(N) % 3]
    frame["g"] = np.array(["p", "q", "r"])[rng.integers(0, 3, N)]
    frame["ps"], frame["w"], frame["h"] = rng.uniform(0.1, 0.9, N), rng.integers(1, 4, N), np.arange(N) // 9
    return frame.set_axis([f"r{i}" for i in range(N)])


def make(data, formula="y ~ x + g", **options):
    return formula_design(formula, data, **{"treat": "t", "reference": "b", "frame": {}, **options})


def same(a, b):
    arrays = ("y", "X", "Z", "arm", "weights", "cluster", "score")
    return all(np.array_equal(getattr(a, f), getattr(b, f)) for f in arrays) and (
        (a.exog_names, a.propensity_names, a.labels) == (b.exog_names, b.propensity_names, b.labels)
    )


def test_a_subset_is_the_design_of_the_rows_kept(data):
    two = {"treat": "d", "reference": None, "propensity_score": "ps"}
    for options in ({}, {"weights": "w", "weight_type": "frequency", "cluster": "h"}, two):
        frame = data.assign(d=(data.t == "a").astype(int))
        frame.loc["r4", "x"] = np.nan
        design = make(frame, "y ~ x + g + center(z)", propensity="x + z", **options)
        keep = (np.arange(N) % 5 > 0) & (frame.h != 3)
        small = design.subset(keep[frame.x.notna()], REASON)
        again = make(frame[keep], "y ~ x + g + z", propensity="x + z", **options)
        X = again.X.copy()
        whole = frame[frame.x.notna()]  # the encoders stay: centred as the whole sample was
        X[:, -1] -= np.average(whole.z, weights=whole.w if "weights" in options else None)
        np.testing.assert_allclose(small.X, X, rtol=1e-13, atol=1e-15)
        assert all(
            np.array_equal(getattr(small, f), getattr(again, f))
            for f in ("y", "Z", "arm", "weights", "cluster", "score")
        )
        assert small.index.equals(again.index)
        assert list(small.in_sample.index) == list(frame.index)
        assert list(small.in_sample[small.in_sample].index) == list(small.index)
        assert small.sample_ledger.to_numpy().tolist()[-1] == [
            "trim",
            REASON,
            design.n - small.n,
            design.n - small.n,
        ]
        assert small.sample_ledger.dropped.sum() == (~small.in_sample).sum()
        assert small.sample_ledger.dtypes.equals(design.sample_ledger.dtypes)
        assert np.array_equal(small.outcome_encoder.encode(frame.loc[small.index]), small.X)


def test_a_subset_is_frozen_and_leaves_the_design_alone(data):
    design = make(data)
    before = pickle.dumps(design)
    small = design.subset(np.arange(N) > 5, REASON)
    for array in (small.y, small.X, small.Z, small.arm, small.weights):
        assert not array.flags.writeable
    assert small.X.flags.c_contiguous and small.Z.flags.c_contiguous
    assert pickle.dumps(design) == before
    assert design.in_sample.all() and design.sample_ledger.empty


def test_two_subsets_in_a_row(data):
    small = (
        make(data)
        .subset(np.arange(N) % 4 > 0, "first")
        .subset(np.ones(67, dtype=bool), "none")
        .subset(np.arange(67) > 3, "second")
    )
    assert same(small, make(data[np.arange(N) % 4 > 0][4:]))
    assert small.sample_ledger.to_numpy().tolist() == [["trim", "first", 23, 23], ["trim", "second", 4, 4]]


def test_columns_that_become_dependent_are_dropped_with_a_note(data):
    data["twin"] = np.where(data.g == "p", data.z, data.x)
    design = make(data, "y ~ x + twin + z + g", propensity="g")
    with pytest.warns(DesignWarning) as caught:
        small = design.subset((data.g != "p").to_numpy(), REASON)
    assert small.exog_names == ("Intercept", "g[T.q]", "x", "z")
    assert small.propensity_names == ("Intercept", "g[T.q]")
    assert small.notes == tuple(str(w.message) for w in caught)
    assert small.notes[0].startswith("after trimming: outcome model: dropped 'g[T.r]', 'twin' (linearly")
    assert np.array_equal(small.outcome_encoder.encode(data.loc[small.index]), small.X)
    assert np.array_equal(pickle.loads(pickle.dumps(small)).propensity_encoder.encode(data.loc[small.index]), small.Z)


def test_an_array_design_drops_dependent_columns_twice(data):
    exog = data[["x", "z"]].assign(const=1.0, seven=7.0, twin=np.where(data.g == "p", data.z, data.x))
    with pytest.warns(DesignWarning, match="dropped 'seven'"):
        design = array_design(data.y, exog, data.t, reference="b")
    with pytest.warns(DesignWarning, match="dropped 'twin'"):
        small = design.subset((data.g != "p").to_numpy(), REASON)
    assert small.exog_names == ("x", "z", "const")
    assert np.array_equal(small.outcome_encoder.encode(exog.loc[small.index]), small.X)


@pytest.mark.parametrize(
    ("keep", "words"),
    [
        (lambda d: d.t != "a", "leaves 60 of 90 rows: group 'a' has 0 rows for 4 outcome coefficients"),
        (lambda d: (d.t != "c") | (d.h == 0), "leaves 63 of 90 rows: group 'c' has 3 rows for 4 outcome coefficients"),
        (lambda d: d.y > 100, "leaves 0 of 90 rows: no observations left"),
    ],
)
def test_arms_that_trimming_makes_too_small(data, keep, words):
    with pytest.raises(DesignError, match=r"(?s)trimming \(propensity score outside \[0.1, 0.9\]\) .*" + words):
        make(data).subset(keep(data).to_numpy(), REASON)


def test_constant_outcomes_are_checked_as_such(data):
    design = make(data, constant_outcome=True, propensity="x")
    keep = ((data.t != "c") | (data.h == 0)).to_numpy()
    assert design.subset(keep, REASON).counts.tolist() == [30, 30, 3]


def test_one_cluster_left(data):
    data["h"] = np.arange(N) // 45
    with pytest.raises(DesignError, match=r"trimming .* there is one cluster, h"):
        make(data, cluster="h").subset(np.arange(N) < 45, REASON)

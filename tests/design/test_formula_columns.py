"""Columns and names of random formulas, beside patsy's own and formulaic's, however levels are stored."""

from __future__ import annotations

import formulaic
import numpy as np
import pandas as pd
import patsy
import polars
import pyarrow
import pytest

import causalrisk as cr
from causalrisk.design.encoders import FormulaEncoder
from causalrisk.design.formulas import Scope, parse, resolve
from causalrisk.design.tables import as_table, plain

N = 80
NUMBERS = ("x", "z", "i", "I(x**2)", "np.log(z)", "center(x)", "bs(x, df=4)")
PLAIN = (
    "g",
    "C(g)",
    "C(i)",
    "C(f)",
    "k",
    "C(k)",
    "C(o)",
    "flag",
    "C(flag)",
)  # formulaic takes a bare flag for a number
CODED = (
    "C(g, Sum)", "C(i, Treatment(reference=3))", "C(g, levels=['c', 'a', 'd', 'b'])", "C(i // 2)", "C(k, Helmert)",
    "C(np.where(x > 0, 'up', 'down'))", "C(g.str.upper())", "C(i, Poly)", "C(z > 1)", "np.where(x > 0, 'up', 'down')",
    "C(C(g, Sum), levels=['d', 'c', 'b', 'a'])", "C(o, Diff)",
)  # fmt: skip


def frame_of(rng):
    """Columns of every kind, each level in several rows."""
    g, k = np.array(["b", "d", "a", "c"], dtype=object), pd.CategoricalDtype(["low", "mid", "high"], ordered=True)
    return pd.DataFrame(
        {
            "x": rng.normal(size=N),
            "z": rng.uniform(0.5, 2, size=N),
            "i": rng.permutation(np.arange(N) % 5),
            "f": rng.permutation(np.arange(N) % 3) / 2,
            "g": g[rng.permutation(np.arange(N) % 4)],
            "k": pd.Series(k.categories.to_numpy(dtype=object)[rng.permutation(np.arange(N) % 3)], dtype=k),
            "o": pd.Categorical(rng.permutation(np.arange(N) % 3), categories=[2, 0, 1]),
            "flag": rng.permutation(np.arange(N) % 2) == 1,
        }
    )


def in_polars(frame):
    data = polars.DataFrame({name: frame[name].to_list() for name in frame})
    return data.with_columns(polars.col("k").cast(polars.Enum(["low", "mid", "high"]))).drop("o")


STORED = (
    lambda frame: frame,
    lambda frame: frame.astype({"g": "string", "i": "int8", "flag": "boolean"}),
    lambda frame: frame.astype({"g": pd.ArrowDtype(pyarrow.string()), "i": "Int64"}),
    lambda frame: frame.assign(g=frame.g.map(np.str_)),
    lambda frame: pyarrow.Table.from_pandas(frame),
    in_polars,
)


def formula_of(rng, pool):
    terms = [
        rng.choice([":", "*"]).join(
            rng.choice(pool, size=rng.choice([1, 1, 2, 3], p=[0.4, 0.2, 0.3, 0.1]), replace=False)
        )
        for _ in range(rng.integers(1, 4))
    ]
    return " + ".join(terms) + rng.choice(["", "", " - 1"])


def encoder_of(text, data):
    formula = parse(text, "covariates", [])
    scope = resolve(formula, as_table(data, []), {"np": np}, "right")
    variables = {name: plain(v, name, name in formula.coded()) for name, v in scope.variables.items()}
    return FormulaEncoder(formula, Scope(variables, scope.constants))


def check(seed, pool=NUMBERS + PLAIN + CODED):
    """Compare a formula with patsy's matrix, and its coding of some of the rows with these rows; the formula."""
    rng = np.random.default_rng(seed)
    frame, store, text = frame_of(rng), STORED[seed % len(STORED)], formula_of(rng, pool)
    if store is in_polars:
        text = text.replace("C(o)", "C(i)").replace("C(o, Diff)", "C(i, Diff)")
    encoder, expected = encoder_of(text, store(frame)), patsy.dmatrix(text, frame)
    assert list(encoder.names) == expected.design_info.column_names, text
    np.testing.assert_array_equal(encoder.sample_matrix(N), np.asarray(expected), err_msg=text)
    rows = rng.choice(N, size=7, replace=False)
    np.testing.assert_array_equal(encoder.encode(store(frame.iloc[rows])), np.asarray(expected)[rows], err_msg=text)
    return text, frame, encoder


@pytest.mark.parametrize("seed", range(0, 40, 8))
def test_random_formulas_have_the_columns_and_names_of_patsy(seed):
    for each in range(seed, seed + 8):
        check(each)


@pytest.mark.slow
def test_many_random_formulas_have_the_columns_and_names_of_patsy():
    for seed in range(1000, 1500):
        check(seed)


@pytest.mark.parametrize("seed", range(100, 106))
def test_formulaic_has_the_same_columns(seed):
    """Of factors one by one, numbers last, where patsy puts them: of products it may leave out other columns."""
    rng = np.random.default_rng(seed)
    text = " + ".join([*rng.choice([term for term in PLAIN if term != "flag"], size=4, replace=False), "z"])
    frame = frame_of(rng)
    other = formulaic.model_matrix(text, frame)
    encoder = encoder_of(text, frame)
    assert list(encoder.names) == list(other.columns)
    np.testing.assert_array_equal(encoder.sample_matrix(N), other.to_numpy(dtype=float))


def test_a_level_that_the_sample_did_not_have_is_refused():
    frame = frame_of(np.random.default_rng(0))
    encoder = encoder_of("C(i // 2)", frame)
    with pytest.raises(cr.DesignError, match="level 4"):
        encoder.encode(frame.assign(i=9))

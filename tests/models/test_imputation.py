"""Imputation by trees: what is known stays, and effects of a simulated truth are found again."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from causalrisk import AIPW, DesignError, OptionError, impute, pool


def incomplete(n=400, seed=3):
    """A confounder that is missing where the outcome of the treated is large; the effect is 1."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    z = x + rng.normal(size=n)
    d = (rng.random(n) < 1 / (1 + np.exp(-x))).astype(int)
    y = d + 2 * x + z + rng.normal(size=n)
    data = pd.DataFrame({"y": y, "d": d, "x": x, "z": z})
    data.loc[rng.random(n) < d / (1 + np.exp(1 - y)), "x"] = np.nan
    return data


def test_known_values_types_and_labels_stay():
    rng = np.random.default_rng(0)
    n = 400
    text = rng.choice(["a", "b", "c"], n)
    data = pd.DataFrame(
        {
            "id": [f"unit {i}" for i in range(n)],
            "number": rng.normal(size=n),
            "text": text,
            "flag": pd.array(text == "a", dtype="boolean"),
            "count": pd.array(rng.integers(0, 9, n), dtype="Int64"),
            "level": pd.Categorical(text, ordered=True),
        },
        index=rng.permutation(n) // 2,
    )
    columns = list(data)[1:]
    for name in columns:
        data.loc[data.index[rng.random(n) < 0.2], name] = None
    first, second = impute(data, 2, exclude=["id"], rng=1)
    assert (first.dtypes == data.dtypes).all() and not first.isna().any(axis=None)
    pd.testing.assert_frame_equal(first[data.notna().all(axis=1)], data[data.notna().all(axis=1)])
    assert (first["id"] == data["id"]).all() and (first.index == data.index).all()
    assert all(set(first[name]) <= set(data[name].dropna()) for name in columns)
    assert not first["number"].equals(second["number"])
    pd.testing.assert_frame_equal(first, impute(data, 2, exclude="id", rng=1)[0])
    agree = (first["text"] == "a") == first["flag"]  # each was predicted by the other
    assert agree[data["flag"].isna() & data["text"].notna()].mean() > 0.9


def test_names_of_columns_may_be_numbers():
    (found,) = impute(pd.DataFrame({0: [1.0, 2.0, np.nan], 1: [1.0, 2.0, 3.0]}), 1)
    assert list(found) == [0, 1] and found[0].notna().all()


def test_the_effect_that_complete_rows_miss():
    data = incomplete(4000)
    fits = [AIPW.from_formula("y ~ x + z", one, treat="d").fit() for one in impute(data, 5)]
    pooled, complete = pool(fits), AIPW.from_formula("y ~ x + z", data, treat="d").fit()
    assert abs(complete.effect - 1) > 3 * complete.effect_se
    assert abs(pooled.effect - 1) < 2.5 * pooled.effect_se
    assert pooled.nobs == 4000 and pooled.fmi.iloc[0] > 0.05


def test_nan_of_arrow_is_missing():
    data = incomplete()
    values = pd.arrays.ArrowExtensionArray(pa.array(data.x.to_numpy(dtype=float), from_pandas=False))
    assert not pd.isna(values).any() and np.isnan(values.to_numpy(dtype=float)).any()
    (found,), (same,) = impute(data.assign(x=values), 1), impute(data.assign(x=data.x.astype("double[pyarrow]")), 1)
    assert found.x.notna().all() and found.x.tolist() == same.x.tolist()


@pytest.mark.parametrize(
    ("change", "options", "told"),
    [
        ({"name": [f"u{i}" for i in range(400)]}, {}, r"more than 50 levels of text.\nUse `exclude=\['name'\]`"),
        ({"empty": np.nan}, {}, "column 'empty' has no known value"),
        ({}, {"n_imputations": 0}, "a whole number of at least 1"),
        ({}, {"rng": -1}, "rng=-1"),
        ({}, {"exclude": ["Y"]}, r"exclude='Y' is not a column of the data.\nDid you mean 'y'\?"),
        ({}, {"exclude": ["y", "d", "z"]}, "no other column predicts"),
        ({}, {"exclude": 5}, r"exclude=5 is not a column of the data"),
        ({"z": np.inf}, {}, "column 'z' has infinite values in 400 of 400 rows"),
        ({}, {"k": 3}, "unknown option `k`"),
        ({"when": pd.date_range("2020-01-01", periods=400)}, {}, r"column 'when' has dates.\nUse `exclude="),
    ],
)
def test_what_cannot_be_imputed_is_refused(change, options, told):
    with pytest.raises((DesignError, OptionError), match=told):
        impute(incomplete().assign(**change), **options)


def test_columns_of_one_name_are_refused():
    with pytest.raises(DesignError, match="2 columns named 'z'"):
        impute(incomplete().rename(columns={"d": "z"}))


def test_the_number_has_the_name_of_mice_and_data_are_needed():
    assert len(impute(incomplete(), m=2)) == 2
    with pytest.raises(OptionError, match=r"Use `impute\(data, 10\)`"):
        impute(m=5)


def test_categories_of_polars_are_imputed():
    polars = pytest.importorskip("polars")
    given = polars.DataFrame({"y": [1.0, 2.0, 3.0] * 20, "s": ["a", None, "b"] * 20})
    made = impute(given.with_columns(polars.col("s").cast(polars.Categorical)), 2)
    assert set(made[0]["s"]) == {"a", "b"}

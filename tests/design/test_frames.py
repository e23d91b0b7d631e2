"""Data frames of other libraries: the digits and the labels of the same pandas frame."""

from __future__ import annotations

import sys
import warnings

import numpy as np
import pandas as pd
import pytest

from causalrisk import AIPW, IPW, IPWRA, JRE, OutcomeRegression, UnavailableError
from causalrisk.design.tables import as_pandas

pl = pytest.importorskip("polars")
pa = pytest.importorskip("pyarrow", exc_type=ImportError)

FORMULA = "y ~ x + C(k) + g + flag"
BANDS = ["low", "middle", "high"]  # not in alphabetical order


def rows(n=300):
    """Columns as Python lists, None where a value is missing."""
    rng = np.random.default_rng(4)
    x, k = rng.normal(size=n), rng.integers(0, 4, n)
    d = (rng.random(n) < 1 / (1 + np.exp(-0.5 * x))).astype(int)
    data = {
        "y": (x + d + rng.normal(size=n)).tolist(),
        "x": x.tolist(),
        "firm": np.repeat(np.arange(n // 10), 10).tolist(),
        "k": k.tolist(),
        "g": np.array(BANDS)[rng.integers(0, 3, n)].tolist(),
        "flag": (rng.random(n) < 0.4).tolist(),
        "d": d.tolist(),
        "w": rng.uniform(1, 2, n).tolist(),
        "arm": np.where(d == 1, np.where(k > 1, "b", "c"), "a").tolist(),
    }
    for name, at in (("x", 3), ("k", 5), ("g", 7), ("flag", 9)):
        data[name][at] = None
    return data


class Capsule:
    """A frame of which nothing is known but the Arrow PyCapsule interface."""

    def __init__(self, table):
        self.table = table

    def __arrow_c_stream__(self, requested_schema=None):
        return self.table.__arrow_c_stream__(requested_schema)


class Modin:
    """A frame that turns into a pandas one by itself."""

    def __init__(self, frame):
        self.frame = frame

    def to_pandas(self):
        return self.frame


def pandas_frame():
    data = rows()
    frame = pd.DataFrame({**data, "k": pd.array(data["k"], "Int64"), "flag": pd.array(data["flag"], "boolean")})
    return frame.assign(g=pd.Categorical(frame.g, categories=BANDS))


def polars_frame():
    return pl.DataFrame(rows(), schema_overrides={"g": pl.Enum(BANDS)})


FRAMES = {
    "polars": polars_frame,
    "polars with Arrow": lambda: pl.from_arrow(pa.Table.from_pandas(pandas_frame())).cast({"g": pl.Enum(BANDS)}),
    "pyarrow": lambda: pa.Table.from_pandas(pandas_frame()),
    "pyarrow from Python": lambda: pa.table(
        {
            **rows(),
            "g": pa.DictionaryArray.from_arrays([None if v is None else BANDS.index(v) for v in rows()["g"]], BANDS),
        }
    ),
    "record batch": lambda: pa.RecordBatch.from_pandas(pandas_frame()),
    "capsule": lambda: Capsule(pa.Table.from_pandas(pandas_frame())),
    "to_pandas": lambda: Modin(pandas_frame()),
}


@pytest.mark.parametrize(
    ("kind", "model"),
    [*((kind, IPWRA) for kind in FRAMES), *(("polars", model) for model in (OutcomeRegression, IPW, AIPW, JRE))],
)
def test_same_digits_and_labels(kind, model):
    options = {"cov_type": "robust"}
    ours, theirs = (
        model.from_formula(FORMULA, data, treat="d").fit(**options) for data in (FRAMES[kind](), pandas_frame())
    )
    pd.testing.assert_series_equal(ours.params, theirs.params, rtol=0, atol=0)
    pd.testing.assert_frame_equal(ours.cov_params(), theirs.cov_params(), rtol=0, atol=0)
    pd.testing.assert_series_equal(ours.importance_weights, theirs.importance_weights, rtol=0, atol=0)
    pd.testing.assert_series_equal(ours.in_sample, theirs.in_sample)
    pd.testing.assert_frame_equal(ours.sample_ledger, theirs.sample_ledger)
    assert str(ours.summary()) == str(theirs.summary())


def test_row_labels_that_a_table_carries_are_kept():
    labelled = pandas_frame().set_axis([f"row {i}" for i in range(300)])
    ours, theirs = (
        IPWRA.from_formula(FORMULA, data, treat="d").fit() for data in (pa.Table.from_pandas(labelled), labelled)
    )
    # the labels; whether they are of dtype object or string is the version of pandas'
    assert list(ours.importance_weights.index) == list(theirs.importance_weights.index)


def test_several_arms_new_rows_groups_and_a_target_frame():
    frames = polars_frame(), pandas_frame()
    results = [
        IPWRA.from_formula("y ~ x + g", f, treat="arm", reference="a", weights="w", weight_type="probability").fit()
        for f in frames
    ]
    new = [f.drop_nulls() if hasattr(f, "drop_nulls") else f.dropna().reset_index(drop=True) for f in frames]
    pd.testing.assert_series_equal(results[0].params, results[1].params, rtol=0, atol=0)
    pd.testing.assert_frame_equal(results[0].predict(new[0]), results[1].predict(new[1]), rtol=0, atol=0)
    tables = [
        r.effects_by("flag_", f.assign(flag_=0))
        if isinstance(f, pd.DataFrame)
        else r.effects_by("flag_", f.with_columns(flag_=pl.lit(0)))
        for r, f in zip(results, frames, strict=True)
    ]
    assert str(tables[0]) == str(tables[1])
    targets = [
        IPWRA.from_formula("y ~ x", f, treat="d", target=t).fit().effect for f, t in zip(frames, new, strict=True)
    ]
    assert targets[0] == targets[1]


def test_columns_of_other_libraries_in_every_place():
    polars, frame = polars_frame().drop_nulls(), pandas_frame().dropna().reset_index(drop=True)
    theirs = IPWRA(frame.y, frame[["x", "w"]].assign(const=1.0), frame.d, cluster=frame.firm)
    ours = IPWRA(polars["y"], polars.select("x", "w", const=1.0), polars["d"], cluster=polars["firm"])
    pd.testing.assert_series_equal(ours.fit().params, theirs.fit().params, rtol=0, atol=0)
    assert (ours.endog_names, ours.exog_names) == ("y", ["x", "w", "const"])
    y, x, d = polars["y"], polars["x"], pa.chunked_array([polars["d"].to_list()])
    from_scope = IPWRA.from_formula("y ~ x", treat="d").fit()
    mixed = IPWRA.from_formula("y ~ x", frame.set_axis(frame.index + 5), treat=d).fit()
    assert from_scope.effect == mixed.effect == IPWRA.from_formula("y ~ x", frame, treat="d").fit().effect
    assert len(x) == len(y)
    scores = pl.DataFrame({"0": [0.4] * len(frame), "1": [0.6] * len(frame)})
    known = [
        IPW.from_formula("y ~ 1", frame.set_axis(frame.index + 5), treat="d", propensity_score=s)
        for s in (scores, scores["1"], np.full(len(frame), 0.6))
    ]
    assert len({m.fit().effect for m in known}) == 1


def test_whole_numbers_with_gaps_stay_whole():
    big = 2**53 + 1
    frame = as_pandas(pl.DataFrame({"i": [big, None], "u": pl.Series([None, 3], dtype=pl.UInt8), "s": ["a", None]}))
    assert int(frame.i[0]) == big
    assert frame.isna().to_numpy().tolist() == [[False, True, False], [True, False, True]]


def test_nan_of_polars_is_a_missing_treatment():
    treat = [np.nan, *map(float, rows()["d"][1:])]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        design = IPW.from_formula("y ~ x", pl.DataFrame(rows() | {"d": treat}), treat="d").design
    assert design.nobs == 298 and design.notes == ()


def arrow_levels(values):
    """A dictionary of Arrow, in two parts with levels in different orders."""
    parts = [pa.array(part).dictionary_encode() for part in (values[:100], values[100:])]
    return pa.table({"g": pa.chunked_array(parts)})


TEXTS = {  # a column of text, or of levels in an order, and whether pandas has it as levels
    "polars String": (lambda values: pl.DataFrame({"g": values}), None),
    "polars Categorical": (lambda values: pl.DataFrame({"g": pl.Series(values, dtype=pl.Categorical)}), None),
    "polars Enum": (lambda values: pl.DataFrame({"g": pl.Series(values, dtype=pl.Enum([*BANDS, "none"]))}), BANDS),
    "Arrow string": (lambda values: pa.table({"g": pa.array(values)}), None),
    "Arrow large_string": (lambda values: pa.table({"g": pa.array(values, pa.large_string())}), None),
    "Arrow dictionary": (arrow_levels, "as they come"),
}


@pytest.mark.parametrize("kind", TEXTS)
@pytest.mark.parametrize("role", ["term", "treatment", "cluster"])
def test_text_and_levels_are_those_of_pandas_and_no_python_objects(kind, role):
    make, levels = TEXTS[kind]
    data = rows()
    g = pd.Series(data["g"], dtype=object)
    foreign, frame = make(data["g"]), pd.DataFrame({"g": g})
    read = as_pandas(foreign)["g"]
    assert read.dtype != object and read.isna().tolist() == g.isna().tolist()
    assert isinstance(read.dtype, pd.ArrowDtype) or read.cat.categories[:3].isin(BANDS).all()
    if levels is not None:
        frame["g"] = pd.Categorical(g, categories=levels if isinstance(levels, list) else g.dropna().unique())
    others = pd.DataFrame({name: data[name] for name in ("y", "x", "d")})
    formula, options = {
        "term": ("y ~ x + g", {"treat": "d"}),
        "treatment": ("y ~ x", {"treat": "g", "reference": "middle"}),
        "cluster": ("y ~ x", {"treat": "d", "cluster": "g"}),
    }[role]
    results = []
    for text in (read, frame["g"]):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of three clusters
            results.append(IPWRA.from_formula(formula, others.assign(g=text), missing="drop", **options).fit())
    ours, theirs = results
    pd.testing.assert_series_equal(ours.params, theirs.params, rtol=0, atol=0)
    pd.testing.assert_frame_equal(ours.cov_params(), theirs.cov_params(), rtol=0, atol=0)
    pd.testing.assert_frame_equal(ours.sample_ledger, theirs.sample_ledger)
    assert ours.model.exog_names == theirs.model.exog_names and str(ours.summary()) == str(theirs.summary())


@pytest.mark.parametrize(
    ("data", "typed"),
    [
        ("births.csv", "data=pandas.read_csv(path)"),
        (polars_frame().lazy(), "data=data.collect()"),
        (np.zeros((3, 2)), "data=pandas.DataFrame(data)"),
    ],
)
def test_what_to_type_for_anything_else(data, typed):
    with pytest.raises(TypeError, match=r"expected a data frame") as caught:
        IPWRA.from_formula("y ~ x", data, treat="d")
    assert f"`{typed}`" in str(caught.value)


def test_without_pyarrow(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for data in (polars_frame(), Capsule(None)):
        with pytest.raises(UnavailableError, match="Use `pip install pyarrow`"):
            IPWRA.from_formula("y ~ x", data, treat="d")

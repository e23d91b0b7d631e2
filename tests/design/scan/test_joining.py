"""Blocks of a scan have the rows of several files or frames, and what is wrong is told with the name of one."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from causalrisk import IPWRA, DesignError, scan
from causalrisk.design.scan.files import File, alike
from tests.conftest import simulate

pytest.importorskip("pyarrow")
N, FILES, F = 600, 60, "y ~ x1 + g"


@pytest.fixture(scope="module")
def data():
    rows = np.arange(N)
    return simulate(n=N, seed=5).assign(
        g=np.array(["b", "a", "c"])[rows % 3], k=rows % 4, w=1.0 + rows % 2, low=(rows % 5 < 2) * 1
    )


def written(frame, folder, kind="parquet", files=FILES):
    """Write a frame to some files, and return their pattern."""
    folder.mkdir(exist_ok=True)
    for k, rows in enumerate(np.array_split(np.arange(len(frame)), files)):
        getattr(frame.iloc[rows], f"to_{kind}")(folder / f"part-{k:02}.{kind}", index=False)
    return f"{folder}/*.{kind}"


def source(kind, frame, folder):
    """Small files or frames."""
    import pyarrow.dataset

    if kind == "frames":
        return lambda: (frame[k : k + 10] for k in range(0, N, 10))
    files = written(frame, folder, "csv" if kind == "csv" else "parquet")
    return pyarrow.dataset.dataset(folder, format="parquet") if kind == "dataset" else files


@pytest.mark.parametrize("kind", ["parquet", "csv", "frames", "dataset"])
def test_small_files_make_blocks_of_the_size_asked_for(data, tmp_path, kind):
    given = source(kind, data, tmp_path)
    for rows, sizes in ((250_000, [N]), (150, [150] * 4), (400, [400, 200])):
        design = IPWRA.from_formula(F, scan(given, block_rows=rows, keep="nothing"), treat="d").design
        blocks = list(design.blocks())
        assert [len(block.y) for block in blocks] == sizes
        np.testing.assert_array_equal(np.concatenate([block.position for block in blocks]), np.arange(N))
        np.testing.assert_allclose(np.concatenate([block.y for block in blocks]), data.y, rtol=1e-14)  # of text


def test_files_change_no_digit(data, tmp_path):
    """Where blocks are the same; random numbers go by rows whatever the blocks are."""
    patterns = [written(data, tmp_path / str(files), files=files) for files in (1, 7, FILES)]
    whole, *others = (IPWRA.from_formula(F, scan(files), treat="d").fit(n_boot=20) for files in patterns)
    for other in others:
        pd.testing.assert_frame_equal(other.boot_params, whole.boot_params, check_exact=True)
        assert other.params.equals(whole.params)
    cut = IPWRA.from_formula(F, scan(patterns[1], block_rows=100), treat="d").fit(n_boot=20)
    pd.testing.assert_frame_equal(cut.boot_params, whole.boot_params, rtol=1e-10)


def test_a_file_is_read_once_a_pass_and_its_columns_are_looked_at_once(data, tmp_path, monkeypatch):
    import pyarrow.parquet

    calls = {"read_schema": 0, "ParquetFile": 0}

    def counted(name, function):
        def call(*args, **options):
            calls[name] += 1
            return function(*args, **options)

        return call

    for name in calls:
        monkeypatch.setattr(pyarrow.parquet, name, counted(name, getattr(pyarrow.parquet, name)))
    model = IPWRA.from_formula(F, scan(written(data, tmp_path / "p"), keep="nothing"), treat="d")
    begun, passes = calls.copy(), 3
    assert begun["read_schema"] <= 3 * FILES
    for _ in range(passes):
        assert len(list(model.design.blocks())) == 1
    assert calls == {"read_schema": begun["read_schema"], "ParquetFile": begun["ParquetFile"] + passes * FILES}


WRONG = {
    "numbers": ("x1", np.inf, {}, "column 'x1' has 1 infinite values"),
    "weights": ("w", -1.0, {"weights": "w", "weight_type": "probability"}, "weights 'w'"),
    "missing": ("x1", np.nan, {"missing": "raise"}, "missing values in 1 of 10 rows"),
    "outcome": ("low", 2, {"family": "binomial", "formula": "low ~ x1"}, "outcome 'low' has 1 values"),
}


@pytest.mark.parametrize("kind", ["parquet", "csv", "frames", "dataset"])
@pytest.mark.parametrize("name", WRONG)
def test_the_file_that_has_what_is_wrong_is_named(data, tmp_path, name, kind):
    column, value, options, message = WRONG[name]
    broken = data.assign(**{column: data[column].where(data.index != 374, value)})
    model = {"formula": F, "treat": "d"} | options
    called = "block 38" if kind == "frames" else "part-37"
    with pytest.raises(DesignError, match=rf"^\S*{called}\S*, rows 0 to 9: .*{message}"):
        IPWRA.from_formula(data=scan(source(kind, broken, tmp_path)), **model).fit()


def test_a_level_that_is_new_in_a_later_pass_names_its_frame(data):
    passes = iter(range(100))

    def begin():
        late = next(passes) >= 2  # the names and the first pass
        frame = data.assign(g=data.g.where((data.index != 374) | (not late), "z"))
        return (frame[k : k + 10] for k in range(0, N, 10))

    with pytest.raises(DesignError, match=r"block 38, rows 0 to 9: the data are not those of the first pass: .*'z'"):
        IPWRA.from_formula(F, scan(begin), treat="d")


def test_a_file_that_changes_is_named_though_it_is_read_with_others(data, tmp_path):
    model = IPWRA.from_formula(F, scan(written(data, tmp_path / "p"), keep="nothing"), treat="d")
    data[:9].to_parquet(tmp_path / "p" / "part-41.parquet")
    with pytest.raises(DesignError, match=r"part-41.parquet' has changed since the scan was made"):
        model.fit()


def test_rows_beside_others_are_what_they_are_by_themselves(data):
    whole, real = data[["k"]], data[["k"]].astype(float)
    assert alike(whole, whole) and alike(whole, real) and alike(real, whole)
    for other in (
        whole + 2**53 + 1,  # no float has it
        whole.astype(str),
        whole.astype(bool),
        whole.astype("Int64"),
        whole.astype("category"),
        whole.rename(columns={"k": "j"}),
    ):
        assert not alike(real, other) and not alike(other, real)
    orders = [data[["g"]].astype(pd.CategoricalDtype(list(order))) for order in ("abc", "cba")]
    assert alike(orders[0], orders[0]) and not alike(*orders)


def test_categories_of_files_keep_their_order_where_all_have_the_same(data, tmp_path):
    """And are sorted where they differ, as are texts."""
    for name, second, names in (("same", "cab", ("c", "a", "b")), ("other", "bac", ("a", "b", "c"))):
        frames = [
            rows.assign(g=pd.Categorical(rows.g, list(order)))
            for rows, order in ((data[:300], "cab"), (data[300:], second))
        ]
        folder = tmp_path / name
        folder.mkdir()
        for k, frame in enumerate(frames):
            frame.to_parquet(folder / f"{k}.parquet")
        source = scan(f"{folder}/*.parquet", keep="nothing")
        design = IPWRA.from_formula("y ~ 0 + g", source, treat="d").design
        assert design.exog_names == tuple(f"g[{level}]" for level in names)
        assert len(list(design.blocks())) == 1 + (name == "other")


def test_clusters_of_exact_numbers_beside_floats(data, tmp_path):
    """Whole numbers that no float has are not made floats by rows of another file."""
    ids = data.assign(firm=2**53 + 1 + data.index // 2)
    small = data.assign(firm=(data.index // 2).astype(float))
    given = scan(lambda: iter([ids[:300], small[300:]]))
    design = IPWRA.from_formula(F, given, treat="d", cluster="firm").design
    assert design.n_clusters == 300


def test_what_a_file_is_does_not_depend_on_its_name(data, tmp_path):
    """What is remembered of a file is forgotten when it changes."""
    pattern = written(data, tmp_path / "p", files=2)
    IPWRA.from_formula(F, scan(pattern), treat="d")
    data[:300].drop(columns="x1").to_parquet(tmp_path / "p" / "part-01.parquet")
    with pytest.raises(DesignError, match=r"part-01.parquet has no column 'x1'"):
        IPWRA.from_formula(F, scan(pattern), treat="d")
    assert File._fields == ("path", "size", "changed")

"""CSV files: rows that do not fit the header, names given twice, and cells that are missing, on both ways to read."""

from __future__ import annotations

import gzip

import numpy as np
import pandas as pd
import pytest

import causalrisk as cr
from causalrisk.cli import main
from causalrisk.errors import DesignError
from tests.conftest import in_parts


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    x = rng.normal(size=900).round(3)
    d = (rng.random(900) < 1 / (1 + np.exp(-x))).astype(int)
    y = (x + 2 * d + rng.normal(size=900)).round(3)
    site = rng.choice(["a", "b", "None"], 900)
    return pd.DataFrame({"y": y, "x": x, "d": d, "site": site, "note": "ok"})


def scanned(path, formula="y ~ x", **options):
    return cr.IPWRA.from_formula(formula, in_parts(path, 100), treat="d", **options).fit()


def command(path, formula="y ~ x"):
    return main(["fit", str(path), formula, "--treat", "d", "--estimator", "IPWRA"])


def with_line(lines, k, change):
    return [*lines[:k], change(lines[k]), *lines[k + 1 :]]


@pytest.mark.parametrize("ending", [".csv", ".csv.gz"])
@pytest.mark.parametrize("row", [2, 3, 99, 100, 101, 901])
@pytest.mark.parametrize("change", [lambda line: f"{line},", lambda line: f"1,{line}"])
def test_a_row_with_more_fields_than_the_header_is_refused(table, tmp_path, capsys, ending, row, change):
    lines = with_line(table.to_csv(index=False).splitlines(), row - 1, change)
    path, text = tmp_path / f"rows{ending}", "\n".join(lines) + "\n"
    path.write_bytes(gzip.compress(text.encode()) if ending == ".csv.gz" else text.encode())
    with pytest.raises(DesignError, match=rf"rows.*csv.*Expected 5 fields in line {row}, saw 6"):
        scanned(path)
    if ending == ".csv":
        assert command(path) == 2
        assert f"Expected 5 fields in line {row}, saw 6" in capsys.readouterr().err


def test_a_header_that_is_one_short_is_refused(table, tmp_path, capsys):
    path = tmp_path / "rows.csv"
    table.to_csv(path, header=["x", "d", "site", "note"], columns=["x", "d", "site", "note"])
    path.write_text(path.read_text().removeprefix(","))  # as R's write.table has it
    with pytest.raises(DesignError, match="Expected 4 fields in line 2, saw 5"):
        scanned(path, "x ~ 1")
    assert command(path, "x ~ 1") == 2
    assert "Expected 4 fields in line 2, saw 5" in capsys.readouterr().err


def test_two_columns_of_one_name_are_refused(table, tmp_path, capsys):
    path = tmp_path / "rows.csv"
    table.rename(columns={"note": "x"}).to_csv(path, index=False)
    with pytest.raises(DesignError, match="2 columns 'x'"):
        scanned(path)
    assert command(path) == 2
    assert "2 columns 'x'" in capsys.readouterr().err


def test_none_is_a_level_and_na_is_missing_on_both_ways(table, tmp_path, capsys):
    path = tmp_path / "rows.csv"
    words = table.astype({"x": str})
    words.loc[::9, "x"] = "NA"
    words.loc[5::9, "site"] = "NA"
    words.to_csv(path, index=False)
    frame = table.assign(x=table.x.where(words.x != "NA"), site=table.site.where(words.site != "NA"))
    expected = cr.IPWRA.from_formula("y ~ x + site", frame, treat="d").fit()
    res = scanned(path, "y ~ x + site")
    assert res.nobs == expected.nobs == 700
    np.testing.assert_allclose(res.effect, expected.effect, rtol=1e-12)
    assert command(path, "y ~ x + site") == 0
    assert capsys.readouterr().out == f"{expected.summary()}\n"


def test_none_in_a_column_of_numbers_is_refused(table, tmp_path, capsys):
    path = tmp_path / "rows.csv"
    table.astype({"x": object}).assign(x=lambda f: f.x.where(f.index % 200 > 0, "None")).to_csv(path, index=False)
    with pytest.raises(DesignError, match="'None'"):
        scanned(path)
    assert command(path) == 2
    assert main(["fit", str(path), "y ~ x", "--treat", "d", "--estimator", "IPWRA", "--na", "None"]) == 0

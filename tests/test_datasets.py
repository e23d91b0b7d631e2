"""Example data: shape, known totals, and every value against the file they were made from."""

from __future__ import annotations

import gzip
from importlib.resources import files
from pathlib import Path

import pandas as pd
import pytest
import statsmodels

from causalrisk.datasets import load_cattaneo2

BINARY = ["mbsmoke", "mmarried", "fbaby", "prenatal1"]
SOURCE = Path(statsmodels.__file__).parent / "treatment" / "tests" / "results" / "cataneo2.csv"


def test_shape_and_columns():
    births = load_cattaneo2()
    assert births.shape == (4642, 23)
    assert list(births.columns) == [
        "bweight", "mmarried", "mhisp", "fhisp", "foreign", "alcohol", "deadkids", "mage", "medu", "fage", "fedu",
        "nprenatal", "monthslb", "order", "msmoke", "mbsmoke", "mrace", "frace", "prenatal", "birthmonth", "lbweight",
        "fbaby", "prenatal1",
    ]  # fmt: skip
    assert not births.isna().any(axis=None)
    assert (births.drop(columns="msmoke").dtypes == "int64").all()


def test_means_as_known_from_statas_manual():
    births = load_cattaneo2()
    assert births["mbsmoke"].sum() == 864
    # Difference in raw means -275.2519 and mean of the non-smokers 3412.912 (Stata, seven digits).
    means = births.groupby("mbsmoke")["bweight"].mean()
    assert means[0] == pytest.approx(3412.912, abs=5e-4)
    assert means[1] - means[0] == pytest.approx(-275.2519, abs=5e-5)
    assert births["mage"].mean() == pytest.approx(26.504524, abs=5e-7)
    assert births["msmoke"].value_counts().to_dict() == {
        "0 daily": 3778, "1-5 daily": 200, "6-10 daily": 337, "11+ daily": 327,
    }  # fmt: skip


def test_columns_are_what_the_docstring_says():
    births = load_cattaneo2()
    for name in [*BINARY, "mhisp", "fhisp", "foreign", "alcohol", "deadkids", "mrace", "frace", "lbweight"]:
        assert set(births[name]) == {0, 1}, name
    assert ((births["msmoke"] != "0 daily") == (births["mbsmoke"] == 1)).all()
    assert ((births["bweight"] <= 2500) == (births["lbweight"] == 1)).all()
    assert ((births["prenatal"] == 1) == (births["prenatal1"] == 1)).all()
    assert ((births["order"] == 1) == (births["fbaby"] == 1)).all()
    assert (births["fage"] == 0).sum() == 294
    assert (births["fedu"] == 0).sum() == 251
    documented = load_cattaneo2.__doc__
    assert all(f"- ``{name}``:" in documented for name in births)


def test_each_call_returns_its_own_frame():
    first, second = load_cattaneo2(), load_cattaneo2()
    first.loc[:, "bweight"] = 0
    first["extra"] = 1
    assert second["bweight"].min() == 340
    assert "extra" not in load_cattaneo2().columns


def test_file_carries_no_time_stamp():
    raw = files("causalrisk.datasets").joinpath("cattaneo2.csv.gz").read_bytes()
    assert raw[4:8] == b"\0\0\0\0"


@pytest.mark.skipif(not SOURCE.exists(), reason="this statsmodels installs no cattaneo2 file")
def test_text_equals_statsmodels_file():
    shipped = gzip.decompress(files("causalrisk.datasets").joinpath("cattaneo2.csv.gz").read_bytes()).decode("ascii")
    source = pd.read_csv(SOURCE, dtype=str)
    for name in BINARY:
        source[name] = source.pop(f"{name}_")
    expected = source.drop(columns="mage2").to_csv(index=False, lineterminator="\n")
    assert shipped == expected

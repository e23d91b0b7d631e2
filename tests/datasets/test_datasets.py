"""Example data: shape, published means, and every value against the file or script it was made from."""

from __future__ import annotations

import gzip
import io
from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import statsmodels

from causalrisk import event_study
from causalrisk.datasets import load_castle, load_cattaneo2, load_hle, load_lalonde, load_nhefs, load_tutoring
from causalrisk.errors import OptionError
from tests.reference.make_datasets import hle, tutoring

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


LOADERS = [load_castle, load_cattaneo2, load_hle, load_lalonde, load_nhefs, load_tutoring]


@pytest.mark.parametrize("load", LOADERS)
def test_each_call_returns_its_own_frame(load):
    first, second = load(), load()
    kept = second.copy()
    first.iloc[:, -1] = first.iloc[::-1, -1].to_numpy()
    first["extra"] = 1
    pd.testing.assert_frame_equal(second, kept)
    assert "extra" not in load().columns


@pytest.mark.parametrize("load", LOADERS)
def test_every_column_is_documented(load):
    assert [name for name in load() if f"``{name}``" not in load.__doc__] == []


@pytest.mark.parametrize("name", ["castle", "cattaneo2", "lalonde", "nhefs", "tutoring"])
def test_file_carries_no_time_stamp(name):
    raw = files("causalrisk.datasets").joinpath(f"{name}.csv.gz").read_bytes()
    assert raw[4:8] == b"\0\0\0\0"


# Rows and rounded means of the arms, so that the files stay as they are: age, educ, black, hispan, nodegree, married,
# re74, re75. The means were not looked up in the article by Dehejia and Wahba.
KNOWN = {
    ("experimental", 1): (185, 25.81, 10.35, 0.84, 0.059, 0.71, 0.19, 2096, 1532),
    ("experimental", 0): (260, 25.05, 10.09, 0.83, 0.11, 0.83, 0.15, 2107, 1267),
    ("cps", 0): (15992, 33.22, 12.02, 0.07, 0.07, 0.29, 0.71, 14016, 13650),
    ("cps3", 0): (429, 28.03, 10.23, 0.20, 0.14, 0.59, 0.51, 5619, 2466),
}


@pytest.mark.parametrize(("controls", "treat"), KNOWN)
def test_lalonde_rows_and_means_stay(controls, treat):
    arm = load_lalonde(controls).query("treat == @treat")
    means = arm[["age", "educ", "black", "hispan", "nodegree", "married", "re74", "re75"]].mean()
    n, *printed = KNOWN[controls, treat]
    assert len(arm) == n
    assert means[:6].to_numpy() == pytest.approx(printed[:6], abs=0.01)
    assert means[6:].to_numpy() == pytest.approx(printed[6:], abs=1)


def test_lalonde_with_cps3_is_matchits_data(lalonde):
    men = load_lalonde("cps3")
    race = lalonde["race"]
    theirs = lalonde.drop(columns="race").assign(black=race == "black", hispan=race == "hispan")
    theirs = theirs.astype({"black": int, "hispan": int})[list(men)].reset_index(drop=True)
    pd.testing.assert_frame_equal(men, theirs, rtol=1e-6)


def test_the_trained_men_are_the_same_with_all_controls():
    trained = [load_lalonde(controls).query("treat == 1") for controls in ("experimental", "cps", "cps3")]
    pd.testing.assert_frame_equal(trained[0].reset_index(drop=True), trained[1].reset_index(drop=True))
    pd.testing.assert_frame_equal(trained[0].reset_index(drop=True), trained[2].reset_index(drop=True))


def test_unknown_controls_are_refused():
    with pytest.raises(OptionError, match=r"controls='cps1'.*'experimental', 'cps', 'cps3'"):
        load_lalonde("cps1")


def test_nhefs_means_as_published():
    """Table 12.1 of Hernan and Robins: those who kept smoking and those who quit, weight known in 1982."""
    smokers = load_nhefs()
    assert smokers.shape == (1629, 19)
    assert smokers.isna().sum()[lambda count: count > 0].to_dict() == {"wt82_71": 63, "wt82": 63, "income": 62}
    known = smokers.dropna(subset=["wt82"])
    table = pd.DataFrame(
        {
            "age": known["age"],
            "men": 100 * (known["sex"] == 0),
            "white": 100 * (known["race"] == 0),
            "university": 100 * (known["education"] == 5),
            "weight": known["wt71"],
            "cigarettes": known["smokeintensity"],
            "years": known["smokeyrs"],
            "little exercise": 100 * (known["exercise"] == 2),
            "inactive": 100 * (known["active"] == 2),
        }
    )
    means = table.groupby(known["qsmk"]).mean().round(1)
    assert means.loc[0].tolist() == [42.8, 46.6, 85.4, 9.9, 70.3, 21.2, 24.1, 37.9, 8.9]
    assert means.loc[1].tolist() == [46.2, 54.6, 91.1, 15.4, 72.4, 18.6, 26.0, 40.7, 11.2]
    assert np.allclose(known["wt82"] - known["wt71"], known["wt82_71"], atol=1e-6)


@pytest.mark.parametrize("load, draw", [(load_tutoring, tutoring), (load_hle, hle)])
def test_made_up_data_are_what_their_script_draws(load, draw):
    pd.testing.assert_frame_equal(load(), pd.read_csv(io.StringIO(draw().to_csv(index=False))))


def test_tutoring_shows_one_of_two_potential_scores():
    pupils = load_tutoring()
    shown = np.where(pupils["tutored"] == 1, pupils["score_tutored"], pupils["score_untutored"])
    assert (pupils["score"] == shown).all()
    gain = pupils["score_tutored"] - pupils["score_untutored"]
    raw = pupils.groupby("tutored")["score"].mean()
    assert gain.mean() == pytest.approx(3.98505, abs=1e-9)
    assert gain[pupils["tutored"] == 1].mean() == pytest.approx(4.37, abs=0.005)
    assert raw[1] - raw[0] == pytest.approx(1.25, abs=0.005)


@pytest.mark.skipif(not SOURCE.exists(), reason="this statsmodels installs no cattaneo2 file")
def test_text_equals_statsmodels_file():
    shipped = gzip.decompress(files("causalrisk.datasets").joinpath("cattaneo2.csv.gz").read_bytes()).decode("ascii")
    source = pd.read_csv(SOURCE, dtype=str)
    for name in BINARY:
        source[name] = source.pop(f"{name}_")
    expected = source.drop(columns="mage2").to_csv(index=False, lineterminator="\n")
    assert shipped == expected


@pytest.mark.filterwarnings("ignore::causalrisk.errors.DesignWarning")
def test_castle_effects_as_moderndid_gives_them():
    """moderndid 0.2.0 on log homicide, never-treated controls, by formula: estimate and standard error."""
    states = load_castle()
    assert states.shape == (550, 10)
    assert not states.isna().any(axis=None)
    states["whole"] = states.begins + (states.begins > 0)  # the first whole year of the law
    study = event_study("np.log(homicide) ~ 1", states, begins="whole", time="year", unit="state")
    known = {"simple": (0.019403, 0.038389), "over exposure": (0.059054, 0.034329), "all": (0.011528, 0.039618)}
    for name, printed in known.items():
        found = study.effects(name, adjust=None).iloc[0][["estimate", "std err"]]
        assert found.to_list() == pytest.approx(printed, abs=1.5e-6)

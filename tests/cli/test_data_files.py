"""CSV files as the command line reads them: words that may be missing values, and what is never fetched."""

from __future__ import annotations

import re
import shlex

import numpy as np
import pandas as pd
import pytest

import causalrisk as cr
from causalrisk.cli import main
from causalrisk.cli.data_files import read_file
from tests.conftest import simulate


@pytest.fixture
def write(tmp_path):
    def written(text):
        path = tmp_path / "data.csv"
        path.write_text(text, "utf-8")
        return path

    return written


@pytest.fixture
def arms(tmp_path):
    """Three arms, one called None; levels called NA and null."""
    data = simulate(300)
    rng = np.random.default_rng(0)
    data["arm"] = rng.choice(["None", "A", "B"], 300)
    data["site"] = rng.choice(["NA", "null", "n/a", "x"], 300)
    path = tmp_path / "none.csv"
    data.to_csv(path, index=False)
    return path, data


def test_levels_called_none_and_na_left_the_sample(arms, capsys):
    path, data = arms
    call = ["fit", str(path), "y ~ x1 + site", "--treat", "arm", "--reference", "A", "--estimator", "IPWRA"]
    assert main(call) == 0
    out, err = capsys.readouterr()
    res = cr.IPWRA.from_formula("y ~ x1 + site", data, treat="arm", reference="A").fit()
    assert out == f"{res.summary()}\n"
    assert "POM[None]" in out
    assert f"column 'arm' is text, and its cells 'None' ({(data.arm == 'None').sum()}) are kept as levels" in err
    assert f"type  --na {shlex.quote('None,' + ','.join(data.site[data.site != 'x'].value_counts().index))}" in err


def test_a_word_that_is_said_to_be_a_level_is_not_asked_about(arms, capsys):
    path, _ = arms
    for option in ("--reference", "--treated"):
        main(["fit", str(path), "y ~ x1", "--treat", "arm", option, "None", "--estimator", "Hajek"])
        assert "column 'arm'" not in capsys.readouterr().err


def test_the_words_that_were_found_are_those_to_type(tmp_path, capsys):
    """Obeyed, the advice named other words and came back."""
    path = tmp_path / "export.csv"
    data = simulate(200).assign(arm=["a", "b", "n/a", "b"] * 50, site=["x", "<NA>", "y", "NA", "y"] * 40)
    data.to_csv(path, index=False)
    call = ["fit", str(path), "y ~ x1 + site", "--treat", "arm", "--reference", "a", "--estimator", "IPWRA"]
    assert main([*call, "--na", "NA"]) == 0
    typed = capsys.readouterr().err.splitlines()[-1].rsplit("type  ", 1)[1]
    assert main([*call, *shlex.split(typed)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    kept = data[(data.arm != "n/a") & ~data.site.isin(["NA", "<NA>"])]
    res = cr.IPWRA.from_formula("y ~ x1 + site", kept, treat="arm", reference="a").fit()
    assert f"{res.effect:.4f}"[:6] in out


def test_words_named_by_na_are_missing(arms, capsys):
    path, data = arms
    call = ["fit", str(path), "y ~ x1", "--treat", "arm", "--reference", "A", "--estimator", "IPWRA", "--na", "None"]
    assert main(call) == 0
    out, err = capsys.readouterr()
    kept = data[data.arm != "None"]
    res = cr.IPWRA.from_formula("y ~ x1", kept, treat="arm", reference="A").fit()
    assert f"{res.effect:.4f}"[:6] in out
    assert err == ""  # site is not used


def test_the_treated_level_and_words_for_missing_are_not_proposed_as_reference(tmp_path, capsys):
    path = tmp_path / "trial.csv"
    data = simulate(300).assign(arm=["Programme", "usual care", "n/a"] * 100)
    data.to_csv(path, index=False)
    call = ["fit", str(path), "y ~ x1", "--treat", "arm", "--treated", "Programme", "--estimator", "IPWRA"]
    assert main(call) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    typed = re.match(r"Type  (--na \S+)   or", last)[1]
    assert main([*call, *shlex.split(typed)]) == 0
    assert "POM[Programme] - POM[usual care]" in " ".join(capsys.readouterr().out.split())


def test_words_among_numbers_and_flags_are_missing(write):
    table, notes = read_file(write("x,n,flag,t,e\n1,NA,True,a,\n2,3,NA,NA,1\nNaN,4,False,,2\n"))
    assert notes == {"t": {"NA": 1}}
    np.testing.assert_array_equal(table.x, [1, 2, np.nan])
    np.testing.assert_array_equal(table.n, [np.nan, 3, 4])
    assert table.flag.tolist()[::2] == [True, False]
    assert table.flag.isna().tolist() == [False, True, False]
    assert table.t.tolist()[:2] == ["a", "NA"]
    assert table.t.isna().tolist() == [False, False, True]
    np.testing.assert_array_equal(table.e, [np.nan, 1, 2])


def test_a_column_of_nothing_but_words_is_missing(write):
    table, notes = read_file(write("x,y\nNA,1\nNA,2\n"))
    assert table.x.isna().all()
    assert notes == {}


def test_files_without_words_are_read_as_pandas_reads_them(write):
    path = write("x,y,z\n1,a,True\n2.5,b c,False\n")
    pd.testing.assert_frame_equal(read_file(path)[0], pd.read_csv(path))


@pytest.mark.parametrize("address", ["https://example.org/data.csv", "ftp://example.org/x.csv", "file:///etc/passwd"])
def test_nothing_is_fetched(address, capsys, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("the network was asked")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    assert main(["fit", address, "y ~ x", "--treat", "d"]) == 2
    assert "is a web address; expected a file on this computer" in capsys.readouterr().err

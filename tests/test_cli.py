"""The command line."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

import causalrisk as cr
from causalrisk.cli import main
from tests.conftest import simulate


@pytest.fixture
def csv(tmp_path):
    """Text treatment and missing values."""
    frame = simulate(300)
    frame["group"] = np.where(frame.pop("d") == 1, "drug", "placebo")
    frame.loc[:4, "x2"] = np.nan
    path = tmp_path / "trial.csv"
    frame.to_csv(path, index=False)
    return path


def test_demo(capsys):
    assert main(["demo"]) == 0
    text = capsys.readouterr().out
    assert "Joint Robust Estimator (JRE) Results" in text
    for name in ("Unadjusted", "OutcomeRegression", "Hajek", "IPWRA", "AIPW", "JRE"):
        assert f"\n{name} " in text
    assert "infants of smokers weigh 275 g less" in " ".join(text.split())  # raw means 3412.91 and 3137.66
    assert "-239.64" in text  # outcome regression, as Stata has it


def test_fit_states_the_coding_and_the_missing_rows(csv, capsys):
    call = ["fit", str(csv), "y ~ x1 + x2", "--treat", "group", "--treated", "drug", "--n-boot", "50"]
    assert main(call) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "ATE = POM[drug] - POM[placebo]" in text
    assert "5 rows dropped from both models: x2 missing in 5" in text


def test_fit_equals_the_library(csv, capsys):
    import pandas as pd

    call = ["fit", str(csv), "y ~ x1", "--treat", "group", "--reference", "placebo", "--estimator", "AIPW"]
    assert main(call) == 0
    res = cr.AIPW.from_formula("y ~ x1", pd.read_csv(csv), treat="group", treated="drug").fit()
    assert capsys.readouterr().out == f"{res.summary()}\n"


def test_numeric_levels_are_read_as_numbers(tmp_path, capsys):
    path = tmp_path / "coded.csv"
    simulate(200).assign(d=lambda f: f.d + 1).to_csv(path, index=False)
    assert main(["fit", str(path), "y ~ x1", "--treat", "d", "--treated", "2", "--estimator", "IPWRA"]) == 0
    assert "POM[2]" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["y ~ x1", "--treat", "group"], ["DesignError", "text levels", "drug", "placebo", 'treated="']),
        (["y ~ x1", "--treat", "grp"], ["DesignError", "grp", "group"]),
        (["y ~ x9", "--treat", "group", "--treated", "drug"], ["DesignError", "x9"]),
        (["y ~ x1 +", "--treat", "group", "--treated", "drug"], ["DesignError", "y ~ x1 +"]),
        (["y ~ x2", "--treat", "group", "--treated", "drug", "--missing", "raise"], ["DesignError", "x2", "5"]),
    ],
)
def test_wrong_input_says_what_to_type(csv, capsys, arguments, words):
    assert main(["fit", str(csv), *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("causalrisk: ")
    assert "typed --treated" in error
    for word in words:
        assert word in error


def test_missing_and_empty_files(tmp_path, capsys):
    assert main(["fit", str(tmp_path / "none.csv"), "y ~ x", "--treat", "d"]) == 2
    (tmp_path / "empty.csv").write_text("")
    assert main(["fit", str(tmp_path / "empty.csv"), "y ~ x", "--treat", "d"]) == 2
    assert "none.csv" in capsys.readouterr().err


def test_version_and_help(capsys):
    for argument in ("--version", "--help"):
        with pytest.raises(SystemExit) as caught:
            main([argument])
        assert caught.value.code == 0
    assert cr.__version__ in capsys.readouterr().out


def test_module_runs():
    done = subprocess.run([sys.executable, "-m", "causalrisk", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"causalrisk {cr.__version__}"


def test_numpy_in_formulas(csv, capsys):
    call = ["fit", str(csv), "y ~ np.exp(x1 / 10)", "--treat", "group", "--treated", "drug", "--estimator", "AIPW"]
    assert main(call) == 0
    assert "np.exp(x1 / 10)" in capsys.readouterr().out


def test_a_file_that_is_not_utf8(tmp_path, capsys):
    path = tmp_path / "latin.csv"
    path.write_bytes("y;größe\n1;2\n".encode("latin-1"))
    assert main(["fit", str(path), "y ~ x", "--treat", "d"]) == 2
    assert "not UTF-8" in capsys.readouterr().err


def test_a_reader_that_stops_early():
    """As in `causalrisk --help | head -1`: no traceback."""
    command = f"{sys.executable} -m causalrisk demo | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("Birth weight")
    assert "Traceback" not in done.stderr

"""The command line: what it prints is what the library gives, and what it refuses."""

from __future__ import annotations

import doctest
import functools
import json
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

import causalrisk as cr
from causalrisk.cli import FORMATS, main, make_parser
from tests.conftest import simulate

FIT = ["y ~ x1 + x2", "--treat", "d"]


@pytest.fixture
def frame():
    """0/1 and text treatments, positive and binary outcomes, weights, clusters, a missing value."""
    data = simulate(300).assign(w=lambda f: 1 + f.index % 3, site=lambda f: f.index % 30, week=lambda f: f.index % 7)
    data = data.assign(positive=np.exp(data.y / 4), ill=(data.y > 0).astype(int), group=data.d.map({0: "no", 1: "yes"}))
    return data.assign(arm=np.random.default_rng(0).choice(["None", "A", "B"], 300), x3=data.x3.where(data.index > 4))


@pytest.fixture
def csv(frame, tmp_path):
    path = tmp_path / "trial.csv"
    frame.to_csv(path, index=False)
    return str(path)


def test_the_demonstration_shows_the_code_that_makes_it(capsys, monkeypatch):
    monkeypatch.setattr(cr, "compare", functools.partial(cr.compare, n_boot=40))
    assert main(["demo"]) == 0
    text = capsys.readouterr().out
    assert "-239.64" in text and "-232.041" in text  # outcome regression and AIPW, as Stata has them
    assert text.index("(AIPW)") < text.index("JRE")
    names = {}
    *examples, comparison = doctest.DocTestParser().get_examples(text)
    assert comparison.source.startswith("print(compare(")
    for example in examples:
        exec(example.source, names)
        assert capsys.readouterr().out in text


CALLS = {
    "": {},
    "--estimator ipwra": {},
    "--propensity x1 --effect ratio --family gamma": {"propensity": "x1", "effect": "ratio", "family": "gamma"},
    "--target treated": {"target": "treated"},
    "--weights w --weight-type probability": {"weights": "w", "weight_type": "probability"},
    "--cluster site": {"cluster": "site"},
    "--cluster site,week": {"cluster": ["site", "week"]},
    "--cov-type HC1": {"cov_type": "HC1"},
    "--n-boot 30 --seed 3": {"n_boot": 30, "rng": 3},
    "--treat group --treated yes": {"treat": "group", "treated": "yes"},
    "--treat arm --reference A --target None": {"treat": "arm", "reference": "A", "target": "None"},
}


@pytest.mark.parametrize("typed", CALLS)
def test_a_fit_is_that_of_the_library(csv, capsys, typed):
    options, model = {"treat": "d"} | CALLS[typed], cr.IPWRA if "ipwra" in typed else cr.AIPW
    at_fit = {name: options.pop(name) for name in ("cov_type", "n_boot", "rng") if name in options}
    assert main(["fit", csv, "positive ~ x1 + x3", "--treat", "d", *typed.split()]) == 0
    out, err = capsys.readouterr()
    res = model.from_formula("positive ~ x1 + x3", pd.read_csv(csv, keep_default_na=False, na_values=""), **options)
    assert out == f"{res.fit(**at_fit).summary()}\n" and "x3 missing." in " ".join(out.split())
    assert err == ""


@pytest.mark.parametrize("kind", [int, float])
def test_levels_are_read_as_the_file_has_them(tmp_path, capsys, kind):
    path, data = tmp_path / "coded.csv", simulate(200).assign(d=lambda f: (f.d + 1).astype(kind))
    data.to_csv(path, index=False)
    assert main(["fit", str(path), "y ~ x1", "--treat", "d", "--treated", "2"]) == 0
    assert capsys.readouterr().out == f"{cr.AIPW.from_formula('y ~ x1', data, treat='d', treated=2).fit().summary()}\n"


@pytest.mark.parametrize("outcome", ["ill", 'I(group == "yes")', 'Q("ill")'])
@pytest.mark.parametrize(
    ("typed", "family"),
    [("AIPW", "gaussian"), ("IPWRA --family binomial", "binomial")],
)
def test_a_binary_outcome_has_the_family_of_the_library(csv, frame, capsys, outcome, typed, family):
    frame["d"] = (frame.x1 + frame.index % 3 > 1).astype(int)
    frame.to_csv(csv, index=False)
    assert main(["fit", csv, f"{outcome} ~ x1 + x2", *FIT[1:], "--estimator", *typed.split()]) == 0
    model = getattr(cr, typed.split()[0]).from_formula(f"{outcome} ~ x1 + x2", frame, treat="d", family=family)
    assert capsys.readouterr().out == f"{model.fit().summary()}\n"


def test_quantiles_of_a_binary_outcome_are_refused_as_in_the_library(csv, capsys):
    for command in ("fit", "compare"):
        assert main([command, csv, "ill ~ x1", *FIT[1:], "--effect", "quantile"]) == 2
        err = capsys.readouterr().err
        assert 'Use `effect="difference"`' in err and "family" not in err


def test_jre_is_fitted_where_it_is_named(csv, frame, capsys):
    assert main(["fit", csv, *FIT, "--estimator", "jre", "--n-boot", "20"]) == 0
    res = cr.JRE.from_formula(FIT[0], frame, treat="d").fit(n_boot=20, rng=0)
    assert capsys.readouterr().out == f"{res.summary()}\n"


def assert_same_numbers(records, table):
    """Old pandas reads the last binary digit of some numbers otherwise."""
    pd.testing.assert_frame_equal(pd.DataFrame(records), pd.DataFrame(table), check_dtype=False, rtol=1e-12)


def test_a_comparison_is_that_of_the_library(csv, frame, tmp_path, capsys):
    call = ["compare", csv, *FIT, "--estimator", "aipw, Hajek,Unadjusted", "--n-boot", "30", "--alpha", "0.1"]
    assert main(call) == 0
    names = ["AIPW", "IPW", "Unadjusted"]
    together = cr.compare(FIT[0], frame, treat="d", estimators=names, n_boot=30, rng=0)
    assert capsys.readouterr().out == f"{together.summary(0.1)}\n"
    assert main([*call, "-o", str(tmp_path / "table.json")]) == 0
    told = json.loads((tmp_path / "table.json").read_text())
    assert_same_numbers(told["estimates"], together.tidy(alpha=0.1))
    assert [row["estimator"] for row in told["glance"]] == names


def test_a_report(csv, tmp_path, capsys, monkeypatch, unprinted_plots):
    monkeypatch.chdir(tmp_path)
    assert main(["report", csv, *FIT]) == 0
    assert "AIPW" in (tmp_path / "report.html").read_text("utf-8")
    assert capsys.readouterr().out.endswith("Written: report.html\n")


@pytest.mark.parametrize("ending", FORMATS)
def test_files_that_are_written(csv, frame, tmp_path, capsys, ending):
    path = tmp_path / f"table{ending}"
    assert main(["fit", csv, *FIT, "-o", str(path)]) == 0
    assert capsys.readouterr().out == f"Written: {path}\n"
    res = cr.AIPW.from_formula(FIT[0], frame, treat="d").fit()
    if ending == ".json":
        told = json.loads(path.read_text())
        assert_same_numbers(told["estimates"], res.tidy())
        assert told["glance"][0]["nobs"] == 300 and told["glance"][0]["n_boot"] is None
    elif ending not in (".docx", ".html"):
        assert path.read_bytes() == res.summary().save(tmp_path / f"other{ending}").read_bytes()


@pytest.mark.parametrize("ending", [".csv.gz", ".tsv", ".txt", ".dta", ".parquet", ".xlsx"])
def test_files_that_are_read(csv, frame, tmp_path, capsys, ending):
    path, plain = tmp_path / f"My.Trial{ending}", frame.drop(columns=["group", "arm"])
    writers = {".dta": plain.to_stata, ".parquet": plain.to_parquet, ".xlsx": plain.to_excel}
    if ending in writers:
        if ending == ".xlsx":
            pytest.importorskip("openpyxl")
        writers[ending](path, **({"write_index": False} if ending == ".dta" else {"index": False}))
    else:
        plain.to_csv(path, index=False, sep="\t" if ending == ".tsv" else ",")
    assert main(["fit", str(path), *FIT]) == 0
    found = capsys.readouterr().out
    assert main(["fit", csv, *FIT]) == 0
    assert found == capsys.readouterr().out


def test_a_file_of_a_spreadsheet_in_german(csv, frame, tmp_path, capsys):
    path = tmp_path / "kurs.csv"
    frame.rename(columns={"x2": "größe"}).assign(arm=frame.arm.where(frame.index > 3, "fehlt")).to_csv(
        path, index=False, sep=";", decimal=",", encoding="latin-1"
    )
    call = ["fit", str(path), "y ~ x1 + größe + arm", "--treat", "d", "--decimal", ",", "--sep", ";", "--na", "fehlt"]
    assert main(call) == 2
    assert "--encoding latin-1" in capsys.readouterr().err
    assert main([*call, "--encoding", "latin-1"]) == 0
    data = frame.rename(columns={"x2": "größe"}).assign(arm=frame.arm.where(frame.index > 3))
    res = cr.AIPW.from_formula("y ~ x1 + größe + arm", data, treat="d").fit()
    assert f"{res.effect:.4f}"[:6] in capsys.readouterr().out


WRONG = [
    (["fit", "trail.csv", *FIT], "no file"),
    (["fit", ".", *FIT], ".parquet"),
    (["fit", "no/trial.csv", *FIT], "no file"),
    (["fit", "https://example.org/data.csv", *FIT], "on this computer"),
    (["fit", "file:///etc/passwd.csv", *FIT], "on this computer"),
    (["fit", "trial.json", *FIT], ".csv.gz"),
    (["fit", "wrong.dta", *FIT], ".dta"),
    (["fit", "wrong.parquet", *FIT], ".parquet"),
    (["fit", "wrong.xlsx", *FIT], ".xlsx"),
    (["fit", "empty.csv", *FIT], "empty.csv"),
    (["fit", "trial.csv", *FIT, "--encoding", "latin-99"], "latin-99"),
    (["fit", "trial.csv", *FIT, "--sep", ";"], "sep"),
    (["fit", "trial.csv", "y ~ x1", "--treat", "group"], "--treated"),
    (["fit", "trial.csv", "y ~ x1", "--treat", "grp"], "group"),
    (["fit", "trial.csv", "y ~ x9", "--treat", "d"], "x3"),
    (["fit", "trial.csv", *FIT, "--estimator", "BART"], "AIPW"),
    (["compare", "trial.csv", *FIT, "--estimator", "AIPW,BART"], "BART"),
    (["fit", "trial.csv", *FIT, "--weights", "w"], "--weight-type"),
    (["fit", "trial.csv", *FIT, "--family", "weibull"], "gaussian"),
    (["fit", "trial.csv", *FIT, "--target", "everyone"], "all"),
    (["fit", "trial.csv", *FIT, "--alpha", "95"], "alpha"),
    (["fit", "trial.csv", *FIT, "--cluster", "town"], "town"),
    (["fit", "trial.csv", *FIT, "-o", "table.doc"], ".docx"),
    (["compare", "trial.csv", *FIT, "-o", "no/table.txt"], "no folder"),
    (["report", "trial.csv", *FIT, "-o", "report.txt"], ".html"),
    (["report", "trial.csv", *FIT, "-o", "no/report.html"], "no folder"),
    (["fit", "trial.csv", "y ~ x9", "--treat", "d", "-o", "no/table.html"], "no folder"),  # before the formula is read
]


@pytest.mark.parametrize(("arguments", "named"), WRONG, ids=range(len(WRONG)))
def test_what_is_wrong_is_one_message_and_exit_code_2(csv, tmp_path, monkeypatch, capsys, arguments, named):
    def refuse(*_, **__):
        raise AssertionError("the network was asked")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    monkeypatch.chdir(tmp_path)
    for name in ("trial.json", "wrong.dta", "wrong.parquet", "wrong.xlsx"):
        (tmp_path / name).write_text("no data")
    (tmp_path / "empty.csv").write_text("")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("causalrisk: ") and named in err and "Traceback" not in err
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("kind", ["same", "path", "link", "hard link"])
def test_the_data_are_never_written_over(csv, tmp_path, capsys, kind):
    data = tmp_path / "trial.csv"
    written = {"same": data, "path": tmp_path / "." / ".." / tmp_path.name / "trial.csv"}.get(kind)
    if written is None:
        written = tmp_path / "other.csv"
        (written.symlink_to if kind == "link" else written.hardlink_to)(data)
    before = data.read_bytes()
    for command in ("fit", "compare"):
        assert main([command, csv, *FIT, "--n-boot", "5", "-o", str(written)]) == 2
        assert "data file" in capsys.readouterr().err
    assert data.read_bytes() == before


def test_help_fits_one_screen_and_options_are_few(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    lines = capsys.readouterr().out.splitlines()
    assert caught.value.code == 0 and len(lines) <= 24 and max(map(len, lines)) <= 80
    (commands,) = (action.choices for action in make_parser()._actions if isinstance(action.choices, dict))
    assert set(commands) == {"demo", "fit", "compare", "report"}
    options = {action.dest for parser in commands.values() for action in parser._actions if action.option_strings}
    assert len(options - {"help"}) <= 20
    for usage in (["fit"], ["simulate"], ["fit", "trial.csv", *FIT, "--efect", "ratio"]):
        with pytest.raises(SystemExit) as caught:
            main(usage)
        assert caught.value.code == 2


def run(*arguments, **options):
    command = [sys.executable, "-m", "causalrisk", *arguments]
    return subprocess.run(command, stderr=subprocess.PIPE, text=True, **options)


def test_a_reader_that_stops_early(csv):
    """As in `causalrisk fit ... | head -1`, though this reader has always gone when the table comes."""
    reading, writing = os.pipe()
    os.close(reading)
    done = run("fit", csv, *FIT, stdout=writing)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")

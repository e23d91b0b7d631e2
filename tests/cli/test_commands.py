"""The command line."""

from __future__ import annotations

import doctest
import json
import os
import re
import resource
import shlex
import subprocess
import sys

import docx
import numpy as np
import pandas as pd
import pytest

import causalrisk as cr
from causalrisk.cli import main
from causalrisk.cli.commands import DEMO_OUTCOME, DEMO_PROPENSITY, make_parser
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
    exec("".join(example.source for example in doctest.DocTestParser().get_examples(text)), {})
    assert f"\n\n{capsys.readouterr().out}" in text  # the code that is shown makes what is shown


def test_fit_states_the_coding_and_the_missing_rows(csv, capsys):
    call = ["fit", str(csv), "y ~ x1 + x2", "--treat", "group", "--treated", "drug", "--n-boot", "50"]
    assert main(call) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "ATE = POM[drug] - POM[placebo]" in text
    assert "5 rows dropped from both models: x2 missing in 5" in text


def test_fit_equals_the_library(csv, capsys):
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
        (["y ~ x1", "--treat", "group"], ["text levels", "drug", "Add  --treated drug  (or  --reference placebo)."]),
        (["y ~ x1", "--treat", "grp"], ["grp", "group"]),
        (["y ~ x9", "--treat", "group", "--treated", "drug"], ["x9"]),
        (["y ~ x1 +", "--treat", "group", "--treated", "drug"], ["y ~ x1 +"]),
        (["y ~ x2", "--treat", "group", "--treated", "drug", "--missing", "raise"], ["x2", "Type  --missing drop"]),
    ],
)
def test_wrong_input_says_what_to_type(csv, capsys, arguments, words):
    assert main(["fit", str(csv), *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("causalrisk: ")
    assert not re.search(r"\b[a-z_]+=\"", error), error  # no Python
    for word in words:
        assert word in error


def test_missing_and_empty_files(tmp_path, capsys):
    assert main(["fit", str(tmp_path / "none.csv"), "y ~ x", "--treat", "d"]) == 2
    (tmp_path / "empty.csv").write_text("")
    assert main(["fit", str(tmp_path / "empty.csv"), "y ~ x", "--treat", "d"]) == 2
    assert "none.csv" in capsys.readouterr().err


def test_a_misspelt_file_is_told_in_one_sentence(csv, capsys):
    assert main(["fit", str(csv.with_name("trail.csv")), "y ~ x1", "--treat", "group"]) == 2
    told = capsys.readouterr().err
    assert told.splitlines()[-1] == f"Type  {csv}"
    assert main(["fit", str(csv.parent), "y ~ x1", "--treat", "group"]) == 2
    assert "is a folder" in capsys.readouterr().err
    assert main(["fit", str(csv.parent / "no" / "a.csv"), "y ~ x1", "--treat", "group"]) == 2
    assert "there is no folder" in capsys.readouterr().err


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
    told = capsys.readouterr().err
    assert "not UTF-8" in told and "--encoding latin-1" in told
    call = ["fit", str(path), "y ~ größe", "--treat", "d", "--encoding", "latin-1", "--sep", ";"]
    assert main(call) == 2 and "'d'" in capsys.readouterr().err  # read, and the column is not there


def test_a_reader_that_stops_early(csv):
    """As in `causalrisk fit ... | head -1`, though this reader has always gone when the table comes: no word of it."""
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "causalrisk", "fit", str(csv), "y ~ x1", "--treat", "group", "--treated", "drug"]
    done = subprocess.run([*command, "--estimator", "IPWRA"], stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture
def coded(tmp_path):
    """0/1 treatment, positive outcome, weights and clusters."""
    frame = simulate(300).assign(w=lambda f: 1 + f.index % 3, site=lambda f: f.index % 30)
    frame = frame.assign(positive=np.exp(frame.y / 4), ill=(frame.y > 0).astype(int))
    path = tmp_path / "coded.csv"
    frame.to_csv(path, index=False)
    return path


def test_json_is_the_library(coded, capsys):
    call = ["fit", str(coded), "y ~ x1 + x2", "--treat", "d", "--estimator", "IPWRA", "--json", "--alpha", "0.1"]
    assert main(call) == 0
    told = json.loads(capsys.readouterr().out)
    res = cr.IPWRA.from_formula("y ~ x1 + x2", pd.read_csv(coded), treat="d").fit()
    assert set(told) == {"glance", "estimates", "notes"}
    assert [row["term"] for row in told["estimates"]] == list(res.params.index)
    assert told["estimates"][0]["estimate"] == res.effect
    assert told["estimates"][0]["conf_low"] == res.conf_int(0.1).loc["ATE", 0]
    assert told["glance"]["nobs"] == 300
    assert told["glance"]["mc_se"] is None


def test_every_option_reaches_the_library(coded, capsys):
    call = ["fit", str(coded), "positive ~ x1", "--treat", "d", "--estimator", "AIPW", "--json", "--family", "gamma",
            "--effect", "ratio", "--target", "overlap", "--weights", "w", "--weight-type", "probability",
            "--cluster", "site", "--clip", "0.02,0.98", "--propensity", "x1 + x2"]  # fmt: skip
    assert main(call) == 0
    told = json.loads(capsys.readouterr().out)["estimates"][0]
    res = cr.AIPW.from_formula(
        "positive ~ x1", pd.read_csv(coded), treat="d", family="gamma", effect="ratio", target="overlap", weights="w",
        weight_type="probability", cluster="site", clip=(0.02, 0.98), propensity="x1 + x2",
    ).fit()  # fmt: skip
    assert told == res.tidy().to_dict("records")[0]


SMALL = {
    "--use-t --small-sample --cluster site": ({"use_t": True, "small_sample": True}, "site"),
    "--df 7 --cluster site": ({"df": 7}, "site"),
    "--use-t --cluster site,week": ({"use_t": True}, ["site", "week"]),
}


@pytest.mark.parametrize("typed", SMALL)
def test_degrees_of_freedom_and_clusters(coded, capsys, typed):
    data, (options, cluster) = pd.read_csv(coded).assign(week=lambda f: f.index // 10 % 12), SMALL[typed]
    data.to_csv(coded, index=False)
    call = ["fit", str(coded), "y ~ x1 + x2", "--treat", "d", "--estimator", "IPWRA", "--json", *typed.split()]
    assert main(call) == 0
    told = json.loads(capsys.readouterr().out)
    res = cr.IPWRA.from_formula("y ~ x1 + x2", data, treat="d", cluster=cluster).fit(**options)
    pd.testing.assert_frame_equal(pd.DataFrame(told["estimates"]), res.tidy(), rtol=1e-12, check_dtype=False)
    assert told["glance"]["df"] == res.df_resid


def test_a_comparison_by_t(coded, capsys):
    call = ["compare", str(coded), "y ~ x1", "--treat", "d", "--estimators", "IPWRA,AIPW", "--json", "--n-boot", "20"]
    assert main([*call, "--use-t"]) == 0
    told = json.loads(capsys.readouterr().out)["estimates"]
    names = ["IPWRA", "AIPW"]
    both = cr.compare("y ~ x1", pd.read_csv(coded), treat="d", estimators=names, n_boot=20, use_t=True)
    assert told == both.tidy().to_dict("records")


LEARNED = {
    "--learner smooth --learner-use replace --n-folds 3": {
        "learner": "smooth", "learner_use": "replace", "n_folds": 3
    },
    "--smooth --n-repeats 3": {"smooth": True, "n_repeats": 3},
    "--learner lasso --learner smooth --learner-use terms": {
        "learner": ["lasso", "smooth"], "learner_use": "terms"
    },
    "--learner lasso,smooth --learner-use terms": {"learner": ["lasso", "smooth"], "learner_use": "terms"},
}  # fmt: skip


@pytest.mark.parametrize("typed", LEARNED)
def test_learners(coded, capsys, typed):
    call = ["fit", str(coded), "y ~ x1 + x2", "--treat", "d", "--estimator", "AIPW", "--json", *typed.split()]
    assert main(call) == 0
    told = json.loads(capsys.readouterr().out)
    res = cr.AIPW.from_formula("y ~ x1 + x2", pd.read_csv(coded), treat="d", **LEARNED[typed]).fit()
    assert told["estimates"] == res.tidy().to_dict("records")
    assert told["glance"]["learner"] == res.glance()["learner"].iloc[0]


def test_learners_of_a_comparison(coded, capsys):
    call = ["compare", str(coded), "y ~ x1 + x2", "--treat", "d", "--estimators", "IPWRA,AIPW", "--json"]
    assert main([*call, "--n-boot", "20", "--learner", "smooth"]) == 0
    told = json.loads(capsys.readouterr().out)["estimates"]
    both = cr.compare(
        "y ~ x1 + x2", pd.read_csv(coded), treat="d", estimators=["IPWRA", "AIPW"], n_boot=20, learner="smooth"
    )
    assert told == both.tidy().to_dict("records")


@pytest.mark.parametrize("at", [None, "2.5", "observed"])
def test_exposure_and_offset(coded, capsys, at):
    call = ["fit", str(coded), "ill ~ x1", "--treat", "d", "--estimator", "IPWRA", "--json", "--family", "poisson"]
    assert main([*call, "--exposure", "positive", *(["--at-exposure", at] if at else [])]) == 0
    told = json.loads(capsys.readouterr().out)
    model = cr.IPWRA.from_formula("ill ~ x1", pd.read_csv(coded), treat="d", family="poisson", exposure="positive")
    number = {"2.5": 2.5}.get(at, at)
    assert told["estimates"] == model.with_options(at_exposure=number).fit().tidy().to_dict("records")
    assert (told["glance"]["offset"], told["glance"]["at_exposure"]) == ("positive", number or 1.0)
    assert main([*call, "--offset", "x2"]) == 0
    res = cr.IPWRA.from_formula("ill ~ x1", pd.read_csv(coded), treat="d", family="poisson", offset="x2").fit()
    assert json.loads(capsys.readouterr().out)["estimates"] == res.tidy().to_dict("records")


def test_the_default_estimator_says_where_its_means_are(coded, capsys):
    call = ["fit", str(coded), "ill ~ x1", "--treat", "d", "--family", "poisson", "--exposure", "positive"]
    assert main(call) == 2
    assert "\nType  --at-exposure observed  for means" in capsys.readouterr().err


def test_joint_options_and_a_target_file(coded, tmp_path, capsys):
    other = tmp_path / "other.csv"
    pd.read_csv(coded).head(40).to_csv(other, index=False)
    base = ["fit", str(coded), "y ~ x1", "--treat", "d", "--n-boot", "20", "--json"]
    assert main([*base, "--penalty", "500", "--objective", "erm", "--target-file", str(other)]) == 0
    told = json.loads(capsys.readouterr().out)["glance"]
    assert (told["penalty"], told["objective"], told["target"], told["n_boot"]) == (500, "erm", "data frame", 20)
    assert main([*base, "--objective", "erm", "--trim", "0.1,0.9"]) == 0
    told = json.loads(capsys.readouterr().out)["glance"]
    assert told["penalty"] == told["nobs"] ** 2
    assert told["estimand"] == "trimmed ATE"


def test_a_word_file_is_that_of_the_summary(coded, tmp_path, capsys):
    path = tmp_path / "out.docx"
    call = ["fit", str(coded), "y ~ x1", "--treat", "d", "--estimator", "IPWRA", "-o", str(path)]
    assert main(call) == 0
    assert capsys.readouterr().out == f"Written: {path}\n"
    expected = cr.IPWRA.from_formula("y ~ x1", pd.read_csv(coded), treat="d").fit().summary().save(tmp_path / "b.docx")
    cells = [
        [cell.text for table in docx.Document(file).tables for row in table.rows for cell in row.cells]
        for file in (path, expected)
    ]
    assert cells[0] == cells[1] and "ATE" in " ".join(cells[0])
    assert main([*call, "--balance"]) == 2  # below the summary
    assert capsys.readouterr().err.endswith(f"Type  --output {path.with_suffix('.html')}\n")


def _beside(path, kind):
    """Another name of a file: itself by another path, a link or a hard link."""
    if kind == "path":
        return path.parent / "." / ".." / path.parent.name / path.name
    other = path.with_name(f"other{path.suffix}")
    (other.symlink_to if kind == "link" else other.hardlink_to)(path)
    return other


@pytest.mark.parametrize("kind", ["same", "path", "link", "hard link"])
@pytest.mark.parametrize("command", ["fit", "compare", "report"])
def test_the_data_are_never_written_over(coded, tmp_path, capsys, command, kind):
    """They were replaced by the summary, at exit code 0."""
    data = coded.rename(tmp_path / "e.html").rename(tmp_path / "e") if command == "report" else coded
    before, other = data.read_bytes(), tmp_path / "target.csv"
    other.write_bytes(before)
    for file, name, more in ((data, "FILE", []), (other, "--target-file", ["--target-file", str(other)])):
        written = file if kind == "same" else _beside(file, kind)
        call = [command, str(data), "y ~ x1", "--treat", "d", "--n-boot", "5", *more, "-o", str(written)]
        assert main(call) == 2, name
        told = capsys.readouterr().err
        if command == "report" and name != "FILE":  # no page by its ending
            assert "--output" in told
        else:
            assert "a file that the command reads" in told and "\nType  --output" in told
        assert file.read_bytes() == before
        if written != file and kind != "path":
            written.unlink()


def test_the_parts_of_a_study_are_never_written_over(tmp_path, capsys):
    folder = tmp_path / "study"
    call = ["simulate", "linear", "--n", "60", "--n-sims", "2", "--estimators", "Unadjusted", "--folder", str(folder)]
    assert main(call) == 0
    parts = {path: path.read_bytes() for path in folder.iterdir()}
    assert len(parts) == 2
    for path in parts:
        assert main([*call, "-o", str(path)]) == 2
        assert "a file that the command reads" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in folder.iterdir()} == parts
    assert main([*call, "-o", str(folder / "table.csv")]) == 0


@pytest.mark.parametrize("spelt", ["ipwra", "Ipwra", "IPWRA"])
def test_estimators_in_any_case(coded, capsys, spelt):
    call = ["y ~ x1", "--treat", "d", "--json"]
    assert main(["fit", str(coded), *call, "--estimator", spelt]) == 0
    assert json.loads(capsys.readouterr().out)["glance"]["estimator"] == "IPWRA"
    assert main(["fit", str(coded), *call, "--estimator", "jre", "--anchor", "1", "--n-boot", "5"]) == 0
    assert json.loads(capsys.readouterr().out)["glance"]["estimator"] == "JRE"
    assert main(["compare", str(coded), *call, "--estimators", f"{spelt}, hajek,unadjusted", "--n-boot", "5"]) == 0
    told = json.loads(capsys.readouterr().out)["glance"]
    assert [row["estimator"] for row in told] == ["IPWRA", "Hajek", "Unadjusted"]
    study = ["simulate", "linear", "--n", "60", "--n-sims", "2", "--estimators", f"lin,{spelt}", "--json"]
    assert main([*study, "--reference", spelt]) == 0
    assert {row["estimator"] for row in json.loads(capsys.readouterr().out)["table"]} == {"Lin", "IPWRA"}


@pytest.mark.parametrize("suffix", [".txt", ".md", ".html", ".tex", ".csv", ".json"])
def test_output_file(coded, tmp_path, capsys, suffix):
    path = tmp_path / f"table{suffix}"
    call = ["fit", str(coded), "y ~ x1", "--treat", "d", "--estimator", "IPWRA", "--output", str(path)]
    assert main(call) == 0
    assert capsys.readouterr().out == f"Written: {path}\n"
    summary = cr.IPWRA.from_formula("y ~ x1", pd.read_csv(coded), treat="d").fit().summary()
    texts = {".txt": str(summary), ".html": summary.as_html(), ".tex": summary.as_latex(), ".csv": summary.as_csv(),
             ".md": summary.as_markdown()}  # fmt: skip
    written = path.read_text("utf-8")
    assert json.loads(written)["estimates"] if suffix == ".json" else written == f"{texts[suffix]}\n"


def test_explained(coded, tmp_path, capsys):
    call = ["fit", str(coded), "y ~ x1", "--treat", "d", "--estimator", "IPWRA", "--explain"]
    assert main(call) == 0
    assert "The question no test answers" in capsys.readouterr().out
    assert main([*call, "--json"]) == 0
    assert "1. The formula" in json.loads(capsys.readouterr().out)["explanation"]
    assert main([*call, "--output", str(tmp_path / "a.tex")]) == 2
    assert ".html" in capsys.readouterr().err


def test_compare(coded, capsys):
    call = ["compare", str(coded), "y ~ x1 + x2", "--treat", "d", "--estimators", "IPWRA, JRE", "--n-boot", "30"]
    assert main(call) == 0
    together = cr.compare("y ~ x1 + x2", pd.read_csv(coded), treat="d", estimators=["IPWRA", "JRE"], n_boot=30)
    assert capsys.readouterr().out == f"{together.summary()}\n"
    assert main([*call, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [row["estimate"] for row in told["estimates"]] == list(together.table["estimate"])
    assert told["differences"][0]["minus"] == "JRE"
    assert [row["estimator"] for row in told["glance"]] == ["IPWRA", "JRE"]


def test_report_of_cattaneo2_within_twenty_seconds(cattaneo, tmp_path):
    """The whole process, from the file to the page; processor time, since test processes share the machine."""
    data, page = tmp_path / "births.csv", tmp_path / "births.html"
    cattaneo.to_csv(data, index=False)
    command = [sys.executable, "-m", "causalrisk", "report", str(data), DEMO_OUTCOME, "--treat", "mbsmoke",
               "--propensity", DEMO_PROPENSITY, "-o", str(page), "--title", "Births"]  # fmt: skip
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 20
    assert done.stdout.startswith("JRE: ATE -230.57 (27.04)")
    assert done.stdout.endswith(f"Written: {page}\n")
    assert "<h1>Births</h1>" in page.read_text("utf-8")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--estimator", "TMLE"], ["TMLE", "'JRE'"]),
        (["--estimator", "ipwr"], ["Type  --estimator IPWRA"]),
        (["--estimator", "psmatch"], ["MatchIt"]),
        (["--levels", "no,yes"], ['Type  --levels "0=control,1=treated"']),
        (["--estimator", "AIPW", "--penalty", "100"], ["--estimator JRE"]),
        (["--output", "table.doc"], [".docx", "table.txt"]),
        (["--output", "nowhere/table.txt"], ["no folder 'nowhere'", "--output table.txt"]),
        (["--weights", "w"], ["--weight-type frequency"]),
        (["--target", "everyone"], ["everyone", "all"]),
        (["--family", "weibull"], ["weibull", "gaussian"]),
        (["--trim", "0.9,0.1"], ["trim"]),
        (["--target", "treated", "--target-file", "x.csv"], ["--target-file"]),
        (["--alpha", "95"], ["alpha"]),
        (["--cluster", "town"], ["town"]),
    ],
)
def test_wrong_options(coded, capsys, arguments, words):
    assert main(["fit", str(coded), "y ~ x1", "--treat", "d", "--n-boot", "20", *arguments]) == 2
    error = capsys.readouterr().err
    for word in words:
        assert word in error


def test_report_into_a_folder_that_is_not_there(coded, capsys):
    assert main(["report", str(coded), "y ~ x1", "--treat", "d", "-o", "nowhere/page.html"]) == 2
    assert "no folder 'nowhere'" in capsys.readouterr().err


def test_simulate(capsys):
    call = ["simulate", "kang_schafer", "--n", "120,200", "--n-sims", "4", "--estimators", "Hajek,IPWRA", "--seed", "3"]
    assert main(call) == 0
    study = cr.simulation.run_study("kang_schafer", n=[120, 200], n_sims=4, estimators=["Hajek", "IPWRA"], rng=3)
    assert capsys.readouterr().out == f"{study.summary()}\n"
    assert main([*call, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["table"]
    assert [row["rmse"] for row in told] == list(study.table["rmse"])
    for arguments, word in ((["kangschafer"], "kang_schafer"), (["kang_schafer", "--n", "few"], "--n 500")):
        assert main(["simulate", *arguments]) == 2
        assert word in capsys.readouterr().err


@pytest.mark.parametrize("command", ["fit", "compare", "report", "simulate"])
def test_help_has_examples_that_parse(command, capsys):
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert "exit codes:" in text
    examples = [line.strip() for line in text.splitlines() if line.strip().startswith(f"causalrisk {command} ")]
    assert len(examples) >= 2
    for line in examples:
        parsed = make_parser().parse_args(shlex.split(line.partition(" | ")[0])[1:])
        assert set(getattr(parsed, "designs", [])) <= set(cr.simulation.DESIGNS)


def test_exit_codes(coded, capsys, monkeypatch):
    call = ["fit", str(coded), "y ~ x1", "--treat", "d", "--estimator", "IPWRA"]
    monkeypatch.setattr(cr.CausalResults, "converged", False)
    assert main(call) == 3
    assert "IPWRA" in capsys.readouterr().out  # printed all the same

    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(cr.IPWRA, "from_formula", interrupted)
    assert main(call) == 130
    assert "interrupted" in capsys.readouterr().err
    with pytest.raises(SystemExit) as caught:
        main(["fit"])
    assert caught.value.code == 2


def test_a_semicolon_file_with_decimal_commas_in_two_steps(tmp_path, capsys):
    """As the messages lead: first the separator, then the decimal mark; the result is that of the plain file."""
    frame = simulate(200).round(3)
    path, plain = tmp_path / "kurs.csv", tmp_path / "plain.csv"
    frame.to_csv(path, index=False, sep=";", decimal=",")
    frame.to_csv(plain, index=False)
    call = ["y ~ x1 + x2", "--treat", "d", "--estimator", "IPWRA", "--json"]
    typed = []
    for advice in ('--sep ";"', "--decimal ,"):
        assert main(["fit", str(path), *call, *typed]) == 2
        told = capsys.readouterr().err
        assert advice in told.rsplit("\n", 2)[1] if advice.startswith("--sep") else advice.split()[0] in told, told
        typed += [word.strip('"') for word in re.search(r"--(?:sep|decimal) \S+", told)[0].split()]
    assert main(["fit", str(path), *call, *typed]) == 0
    found = json.loads(capsys.readouterr().out)["estimates"]
    assert main(["fit", str(plain), *call]) == 0
    assert found == json.loads(capsys.readouterr().out)["estimates"]


def test_a_file_of_stata(coded, tmp_path, capsys):
    frame = pd.read_csv(coded)
    path = tmp_path / "coded.dta"
    frame.to_stata(path, write_index=False)
    call = ["y ~ x1", "--treat", "d", "--estimator", "IPWRA"]
    assert main(["fit", str(path), *call]) == 0
    found = capsys.readouterr().out
    assert main(["fit", str(coded), *call]) == 0
    assert found == capsys.readouterr().out


@pytest.mark.parametrize("ending", [".dta", ".xlsx", ".parquet", ".doc"])
def test_a_file_that_is_not_what_its_ending_says(tmp_path, capsys, ending):
    path = tmp_path / f"data{ending}"
    path.write_text("no data")
    assert main(["fit", str(path), "y ~ x1", "--treat", "d"]) == 2
    told = capsys.readouterr().err
    assert ending in told and ".csv" in told.splitlines()[-1]


def test_tables_below_the_summary(coded, tmp_path, capsys):
    frame = pd.read_csv(coded)
    res = cr.IPWRA.from_formula("y ~ x1", frame, treat="d").fit()
    call = ["fit", str(coded), "y ~ x1", "--treat", "d", "--estimator", "IPWRA", "--by", "ill", "--balance",
            "--pairwise", "--sensitivity"]  # fmt: skip
    assert main(call) == 0
    text = capsys.readouterr().out
    for title, table in (("Groups", res.effects_by("ill", frame)), ("Balance", res.balance()),
                         ("Sensitivity", res.sensitivity()), ("Pairs", res.pairwise())):  # fmt: skip
        assert f"{title}\n{table.to_string()}" in text
    assert main([*call, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    effects = res.effects_by("ill", frame)
    assert [row["estimate"] for row in told["groups"]] == list(effects["estimate"])
    assert {"pairs", "balance", "sensitivity"} <= set(told)
    assert main([*call, "--output", str(tmp_path / "a.tex")]) == 2
    assert f"--output {tmp_path / 'a.html'}" in capsys.readouterr().err


def test_a_permutation_test_below_the_summary(coded, capsys):
    frame = pd.read_csv(coded)
    res = cr.OutcomeRegression.from_formula("y ~ x1", frame, treat="d").fit()
    call = ["fit", str(coded), "y ~ x1", "--treat", "d", "--estimator", "outcomeregression"]
    assert main([*call, "--permutations", "99", "--permute-within", "ill", "--seed", "2"]) == 0
    expected = res.permutation_test(99, strata="ill", data=frame, rng=2).tidy()
    assert f"Permutation test\n{expected.set_index('term').to_string()}" in capsys.readouterr().out
    assert main([*call, "--permutations", "99", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["permutation_test"]
    assert row["p_value"] == res.permutation_test(99).pvalue and row["term"] == "ATE"
    assert main([*call, "--permutations", "all"]) == 2
    assert "--permutations 9999" in capsys.readouterr().err.splitlines()[-1]


def test_levels_and_loss_and_n_boot(coded, capsys):
    call = ["fit", str(coded), "y ~ x1", "--treat", "d", "--estimator", "IPWRA", "--levels", "0=never,1=ever",
            "--propensity-loss", "calibrated", "--n-boot", "20"]  # fmt: skip
    assert main(call) == 0
    res = cr.IPWRA.from_formula(
        "y ~ x1", pd.read_csv(coded), treat="d", levels={0: "never", 1: "ever"}, propensity_loss="calibrated"
    ).fit(cov_type="bootstrap", n_boot=20)
    assert capsys.readouterr().out == f"{res.summary()}\n"


def test_assumptions_of_a_report(coded, tmp_path, capsys):
    page = tmp_path / "page.html"
    call = ["report", str(coded), "y ~ x1", "--treat", "d", "--estimator", "IPWRA", "-o", str(page)]
    given = ["--assumption", "unconfoundedness=Drawn by lot.", "--assumption", "no_interference=Alone."]
    assert main([*call, *given]) == 0
    assert "Drawn by lot." in page.read_text("utf-8")
    capsys.readouterr()
    assert main([*call, "--assumption", "ignorability=Drawn"]) == 2
    assert "--assumption unconfoundedness=" in capsys.readouterr().err
    assert main([*call, "--assumption", "Drawn by lot"]) == 2
    assert "Type  --assumption" in capsys.readouterr().err


def test_a_fault_of_the_program_has_no_traceback(coded, capsys, monkeypatch):
    def broken(*arguments, **options):
        raise RuntimeError("broken")

    monkeypatch.setattr(cr.IPWRA, "from_formula", broken)
    assert main(["fit", str(coded), "y ~ x1", "--treat", "d", "--estimator", "IPWRA"]) == 1
    told = capsys.readouterr().err
    assert "RuntimeError: broken" in told and "fault of the program" in told and "Traceback" not in told

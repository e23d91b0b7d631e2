"""The shell commands of README.md and of the documentation, as they stand there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import causalrisk
from tests.conftest import simulate

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
# What needs a package index or minutes is run by continuous integration, in a clean environment.
LEFT_OUT = (
    "python -m venv",
    ".venv/bin/pip install",
    ".venv/bin/python -m pytest",
    ".venv/bin/python -m sphinx",
    "pip ",
    "python -m pip ",
)
REPOSITORY = ("python tests/reference/make_datasets.py",)  # writes into the repository; test_datasets.py runs it


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text("utf-8"), re.M | re.S)


def commands(page):
    joined = [block.replace("\\\n", "") for block in blocks(page, "bash")]
    lines = [line for block in joined for line in block.splitlines() if line.strip()]
    return [line for line in lines if not line.startswith(LEFT_OUT + REPOSITORY)]


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=lambda page: page.name)
def test_commands_run_as_written(page, tmp_path):
    (tmp_path / ".venv").mkdir()
    bin_ = tmp_path / ".venv" / "bin"
    bin_.mkdir()
    for name, code in {"python": 'exec "{0}" "$@"', "causalrisk": 'exec "{0}" -m causalrisk "$@"'}.items():
        (bin_ / name).write_text(f"#!/bin/sh\n{code.format(sys.executable)}\n")
        (bin_ / name).chmod(0o755)
    path = f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    for line in commands(page):
        done = subprocess.run(
            ["bash", "-ec", line], cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True
        )
        assert done.returncode == 0, (line, done.stderr)
        assert "Traceback" not in done.stderr
        if " fit " in line:
            assert re.search(r"^ATE", done.stdout, re.M), line


def test_python_of_the_readme_prints_what_it_shows(tmp_path):
    """One process for both blocks, each of which imports what it uses."""
    codes, shown = blocks(ROOT / "README.md", "python"), blocks(ROOT / "README.md", "text")
    assert len(codes) == len(shown) == 2
    typed = f"for code in {codes}:\n    exec(code, {{}})"
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", typed], cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert [line.rstrip() for line in done.stdout.splitlines()] == "".join(shown).splitlines()


def test_what_the_readme_types_for_users_of_others_works():
    text = (ROOT / "README.md").read_text("utf-8")
    cells = re.findall(r"^\| [\w ]+ \|.*\| `([^`]*)` \|$", text, re.M)
    assert len(cells) == 6
    names = {name: getattr(causalrisk, name) for name in ("IPW", "AIPW")}
    names["df"] = simulate(200).assign(x=lambda f: f.x1, id=np.arange(200) % 40)
    names["res"] = eval(cells[0], names).fit()
    for cell in cells:
        option = re.match(r"\w+=", cell)
        assert eval(f'AIPW.from_formula("y ~ x", df, treat="d", {cell})' if option else cell, names) is not None


def test_times_of_the_readme_are_those_of_the_benchmarks():
    page = (ROOT / "docs" / "reference" / "benchmarks.md").read_text("utf-8")

    def times(fit):
        return re.findall(r"([\d.]+) \(([\d.]+?)(?:\.0)?\)", re.search(rf"\| {fit} \|(.*)", page)[1])

    readme = (ROOT / "README.md").read_text("utf-8")
    rows = re.findall(r"^\| (?:causalrisk|statsmodels|zEpid|DoubleML),(.*)", readme, re.M)
    fits = [
        times(fit) for fit in ("causalrisk `AIPW`", "statsmodels `aipw`", "zEpid `AIPTW`", "DoubleML IRM, five folds")
    ]
    assert [re.findall(r"\| ([\d.]+)", row) for row in rows] == [[second for second, _ in fit] for fit in fits]
    ours, slow, slower = ([float(ratio) for _, ratio in fit] for fit in fits[:3])
    once, many = (float(f"{slow[k] / ours[k]:.2g}") for k in (0, 1))
    least, most = (f"{value:.0f}" for value in np.sort(np.divide(slower, ours))[[0, -1]])
    jre = times("causalrisk `JRE`")
    for said in (
        f"some {once:.0f} times as fast as statsmodels' `TreatmentEffect(...).aipw()` at 1000 rows and "
        f"{many:.0f} times at 10 000, ",
        f"{least} to {most} times as fast as zEpid's `AIPTW`",
        "`JRE` {}, {}, {} and {} times as long as `IPWRA`".format(*(ratio for _, ratio in jre)),
    ):
        assert said in " ".join(readme.split())


def test_range_of_ratios_in_the_readme_is_that_of_the_evidence():
    page = (ROOT / "docs" / "explanation" / "evidence.md").read_text("utf-8")
    rows = [row.split("|")[4:7] for row in re.findall(r"^\|\w+\|.*\(.*", page.split("## Losses")[0], re.M)]
    ratios = [float(cell.split()[0]) for row in rows for cell in row]
    assert len(rows) == 16
    said = f"its mean squared error was {min(ratios):.2f} to {max(ratios):.2f} times IPWRA's"
    assert said in " ".join((ROOT / "README.md").read_text("utf-8").split())


def test_output_shown_for_r_is_that_of_the_package():
    """R's digits, typed by hand, beside those that the page's own examples print."""
    page = ROOT / "docs" / "howto" / "coming_from_stata_r_statsmodels.md"
    shown, _ = blocks(page, "text")  # the other is of DoubleML
    printed = re.findall(r"^(-\d+\.\d{4})  \d+\.\d{5}$", page.read_text("utf-8"), re.M)[:4]
    assert shown.split()[1:] == printed

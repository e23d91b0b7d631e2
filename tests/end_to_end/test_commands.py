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
    env = os.environ | {
        "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
        "PATH": f"{bin_}{os.pathsep}{os.environ['PATH']}",
    }
    for line in commands(page):
        done = subprocess.run(["bash", "-ec", line], cwd=tmp_path, env=env, capture_output=True, text=True)
        assert done.returncode == 0, (line, done.stderr)
        assert "Traceback" not in done.stderr
        if " fit " in line:
            assert re.search(r"^ATE", done.stdout, re.M), line


def test_python_of_the_readme_prints_what_it_shows_and_writes_its_files(tmp_path):
    codes, (shown,) = blocks(ROOT / "README.md", "python"), blocks(ROOT / "README.md", "text")
    simulate(600).assign(school=np.arange(600) % 200).to_csv(tmp_path / "my.csv", index=False)
    strict = ["-W", "error::UserWarning", "-W", "ignore::DeprecationWarning"]
    done = subprocess.run(
        [sys.executable, *strict, "-c", "\n".join(codes)], cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert [line.rstrip() for line in done.stdout.splitlines()] == shown.splitlines()
    assert all((tmp_path / name).stat().st_size for name in ("table.docx", "balance.png"))


def test_what_the_readme_types_for_users_of_others_works():
    text = (ROOT / "README.md").read_text("utf-8")
    cells = re.findall(r"^\| [\w ]+ \|.*\| `([^`]*)` \|$", text, re.M)
    assert len(cells) == 3
    names = {name: getattr(causalrisk, name) for name in ("IPW", "AIPW", "IPWRA")}
    names["df"] = simulate(200).assign(x=lambda f: f.x1)
    for cell in cells:
        assert np.isfinite(eval(cell, names).fit().effect)


def test_times_of_the_readme_are_those_of_the_benchmarks():
    page = (ROOT / "docs" / "development" / "benchmarks.md").read_text("utf-8")
    fits = ("causalrisk `AIPW`", "causalrisk `JRE`, 999 resamples: its default", "statsmodels `aipw`")
    measured = [re.findall(r"([\d.]+) \(", re.search(rf"\| {fit} \|(.*)", page)[1])[:3] for fit in fits]
    rows = re.findall(r"^\| (?:causalrisk|statsmodels),(.*)", (ROOT / "README.md").read_text("utf-8"), re.M)
    assert [re.findall(r"\| ([\d.]+)", row) for row in rows] == measured
    first = " ".join((ROOT / "README.md").read_text("utf-8").split("## Install")[0].split())
    assert f"`AIPW` with 10 000 rows takes {measured[0][1]} seconds instead of {measured[2][1]}" in first


def test_range_of_ratios_in_the_readme_is_that_of_the_evidence():
    page = (ROOT / "docs" / "explanation" / "evidence.md").read_text("utf-8")
    rows = [row.split("|")[4:7] for row in re.findall(r"^\|\w+\|.*\(.*", page.split("## Losses")[0], re.M)]
    ratios = [float(cell.split()[0]) for row in rows for cell in row]
    assert len(rows) == 16
    said = f"its mean squared error was {min(ratios):.2f} to {max(ratios):.2f} times IPWRA's"
    assert said in " ".join((ROOT / "README.md").read_text("utf-8").split())

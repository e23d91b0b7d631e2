"""The shell commands of README.md and of the documentation, as they stand there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
# What needs a package index or minutes is run by continuous integration, in a clean environment.
LEFT_OUT = (
    "python -m venv",
    ".venv/bin/pip install",
    ".venv/bin/python -m pytest",
    ".venv/bin/python -m sphinx",
    "pip ",
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


def test_every_shell_block_is_found():
    """Blocks of other shells, or commands with a prompt, would not be run."""
    for page in PAGES:
        languages = re.findall(r"^```([^\s`]*)[^\n]*\n.*?^```", page.read_text("utf-8"), re.M | re.S)
        assert set(languages) <= {
            "bash",
            "python",
            "bibtex",
            "r",
            "text",
            "{eval-rst}",
            "{toctree}",
            "{literalinclude}",
        }, page.name
        assert all(not line.startswith("$") for block in blocks(page, "bash") for line in block.splitlines())


def test_python_of_the_readme_prints_the_summary(tmp_path):
    (code,) = blocks(ROOT / "README.md", "python")
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", code], cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    (shown,) = blocks(ROOT / "README.md", "text")
    assert done.stdout.strip() == shown.strip()


def test_output_shown_for_r_is_that_of_the_package():
    """R's digits, typed by hand, beside those that the page's own examples print."""
    page = ROOT / "docs" / "howto" / "coming_from_stata_r_statsmodels.md"
    shown, _ = blocks(page, "text")  # the other is of DoubleML
    printed = re.findall(r"^(-\d+\.\d{4})  \d+\.\d{5}$", page.read_text("utf-8"), re.M)[:4]
    assert shown.split()[1:] == printed

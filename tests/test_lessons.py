"""The pages of the documentation that teach: width of their code, figures and captions, tasks and solutions."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LESSONS = sorted((ROOT / "docs" / "tutorials").glob("*.md"))
PAGES = sorted((ROOT / "docs").rglob("*.md"))
WIDTH = 84  # characters that fit between the lists of the site at 1280 pixels


def lines_of(page):
    return page.read_text("utf-8").splitlines()


@pytest.mark.parametrize("page", LESSONS, ids=lambda page: page.stem)
def test_code_of_lessons_fits_the_page(page):
    assert [line for line in lines_of(page) if line.startswith((">>>", "...")) and len(line) > WIDTH] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_figures_have_captions(page):
    """Figures and captions alternate, and a caption, which is also the alternative text, is plain text."""
    found = [line for line in lines_of(page) if line.startswith((">>> plt.close(", "Figure: "))]
    assert [line.startswith("Figure: ") for line in found] == [False, True] * (len(found) // 2)
    captions = re.findall(r"^Figure: .*?(?=\n\n|\Z)", page.read_text("utf-8"), re.M | re.S)
    assert not [caption for caption in captions if re.search(r"[`*$]|\]\(", caption)]


@pytest.mark.parametrize("page", LESSONS, ids=lambda page: page.stem)
def test_lessons_have_a_figure(page):
    if page.stem not in ("index", "problem_set"):
        assert any(line.startswith(">>> plt.close(") for line in lines_of(page))


def test_every_task_has_a_solution():
    tasks, solutions = (
        [line for line in lines_of(ROOT / "docs" / "tutorials" / f"{name}.md") if re.match(r"## \d", line)]
        for name in ("problem_set", "solutions")
    )
    assert tasks == solutions
    assert len(tasks) == 14


def test_evidence_is_read_in_five_minutes():
    assert len((ROOT / "docs" / "explanation" / "evidence.md").read_text("utf-8").replace("|", " ").split()) <= 900

"""The pages of the documentation that teach: figures and captions, tasks and solutions."""

from __future__ import annotations

import doctest
import importlib
import json
import re
from pathlib import Path

import pytest

from causalrisk.errors.aliases import ATTRIBUTES, NAMES, VALUES

ROOT = Path(__file__).parents[1]
LESSONS = sorted((ROOT / "docs" / "tutorials").glob("*.md"))
PAGES = sorted((ROOT / "docs").rglob("*.md"))


def lines_of(page):
    return page.read_text("utf-8").splitlines()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_figures_have_captions(page):
    """Figures and captions alternate, and a caption, which is also the alternative text, is plain text."""
    found = [line for line in lines_of(page) if line.startswith((">>> plt.show(", "Figure: "))]
    assert [line.startswith("Figure: ") for line in found] == [False, True] * (len(found) // 2)
    captions = re.findall(r"^Figure: .*?(?=\n\n|\Z)", page.read_text("utf-8"), re.M | re.S)
    assert not [caption for caption in captions if re.search(r"[`*$]|\]\(", caption)]


@pytest.fixture(scope="module")
def beside_the_pages():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "docs"))
        yield importlib.import_module


@pytest.fixture(scope="module")
def made(beside_the_pages):
    return beside_the_pages("notebook")


@pytest.mark.parametrize("page", LESSONS, ids=lambda page: page.stem)
def test_notebooks_have_the_examples_of_the_page_with_their_outputs(page, made):
    text = page.read_text("utf-8")
    examples = doctest.DocTestParser().get_examples(text)
    figures = {example.lineno: "<svg/>" for example in examples if example.source.startswith("plt.show(")}
    cells = json.loads(made.notebook(text, figures, "tutorials"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert "".join(f"{cell['source']}\n" for cell in code) == "".join(example.source for example in examples)
    outputs = [output for cell in code for output in cell["outputs"]]
    assert sum("data" in output for output in outputs) == len(figures)
    shown = [example.want.replace("<BLANKLINE>", "") for example in examples if example.want]
    assert [output["text"] for output in outputs if "text" in output] == shown
    assert len({cell["id"] for cell in cells}) == len(cells)
    words = "".join(cell["source"] for cell in cells if cell["cell_type"] == "markdown")
    assert not re.search(r"^>>> |details>|\.md[)#]", words, re.M)


def test_the_lab_of_students_has_every_question_and_no_answer(made):
    text = (ROOT / "docs" / "tutorials" / "lab_lalonde.md").read_text("utf-8")
    asked = made.without_answers(text)
    assert asked.count("**Question") == text.count("**Question") > 5
    assert "Answer" not in asked and "The same by hand" not in asked and "1794.34" not in asked


def test_every_task_has_a_solution():
    tasks, solutions = (
        [line for line in lines_of(ROOT / "docs" / "tutorials" / f"{name}.md") if re.match(r"## \d", line)]
        for name in ("problem_set", "solutions")
    )
    assert tasks == solutions
    assert len(tasks) == 12


def test_pages_that_the_search_prefers_exist():
    known = [str(page.relative_to(ROOT / "docs")) for page in PAGES]
    preferred = re.findall(
        r'^    "(.+)": -?[\d.]+,$', (ROOT / "docs" / "_static" / "scorer.js").read_text("utf-8"), re.M
    )
    assert len(preferred) > 10
    assert [prefix for prefix in preferred if not any(name.startswith(prefix) for name in known)] == []


def test_the_site_lists_every_word_that_is_read(beside_the_pages):
    table = beside_the_pages("conf").words()
    for words in (*ATTRIBUTES.values(), *(text for of in (*NAMES.values(), *VALUES.values()) for text in of.values())):
        assert f"| `{', '.join(words.split())}` |" in table

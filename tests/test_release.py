"""Files of a release: what hosts, citation managers and builders read agrees with the package."""

from __future__ import annotations

import configparser
import datetime
import inspect
import pkgutil
import re
import runpy
from pathlib import Path

import pytest

import causalrisk

ROOT = Path(__file__).resolve().parents[1]
GITHUB = ROOT / ".github"


@pytest.fixture(scope="module")
def setup():
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def test_the_root_holds_nothing_but_what_tools_look_for_there():
    names = {path.name for path in ROOT.iterdir() if path.name[0] != "." and not path.name.endswith(".egg-info")}
    assert names - {"build", "dist"} == {
        "CITATION.cff",
        "LICENSE",
        "README.md",
        "causalrisk",
        "docs",
        "pyproject.toml",
        "setup.cfg",
        "tests",
    }


def test_the_conda_recipe_has_the_requirements_of_setup(setup):
    text = (ROOT / ".ci" / "conda" / "meta.yaml").read_text("utf-8")
    run = re.search(r"^  run:\n((?:    - .*\n)+)", text, re.M)[1]
    needed = [f"python {setup['options']['python_requires']}", *setup["options"]["install_requires"].split()]
    assert [line.strip("- ").replace(" ", "") for line in run.splitlines()] == [n.replace(" ", "") for n in needed]
    assert setup["options.entry_points"]["console_scripts"].strip() in text


def test_the_workflow_runs_what_contributors_run_on_the_pythons_of_setup(setup):
    text = (GITHUB / "workflows" / "ci.yml").read_text("utf-8")
    assert "run: bash .ci/run" in text
    pythons = re.findall(r'"(3\.\d+)"', text)
    assert [f"Programming Language :: Python :: {python}" for python in pythons] == [
        line for line in setup["metadata"]["classifiers"].splitlines() if re.search(r":: 3\.\d+$", line)
    ]


def test_what_is_cited_is_what_the_page_cites(setup):
    citation = " ".join((ROOT / "CITATION.cff").read_text("utf-8").split())
    page = " ".join((ROOT / "docs" / "howto" / "cite.md").read_text("utf-8").replace("{", "").replace("}", "").split())
    for part in (
        "arXiv preprint arXiv:2512.18083",
        "The causalrisk developers",
        "Optimizing ATE Risk under Propensity",
    ):
        assert part in citation and part in page
    assert f"license: {setup['metadata']['license_expression']}" in citation
    changes = (ROOT / "docs" / "changes.md").read_text("utf-8")
    released = datetime.date.fromisoformat(re.search(r"date-released: (\S+)", citation)[1])
    assert f"version: {causalrisk.__version__} date-released" in citation
    assert f"## {causalrisk.__version__}\n\n{released.day} {released:%B %Y}.\n" in changes


DOCS = sorted((ROOT / "docs").rglob("*.md"))


@pytest.mark.parametrize("page", [ROOT / "README.md", *GITHUB.glob("*.md"), *DOCS], ids=lambda page: page.name)
def test_pages_are_plain_markdown_whose_links_lead_somewhere(page):
    """They are read where the code is hosted, too, which knows neither directives nor the names of the site."""
    text = page.read_text("utf-8")
    assert not re.search(r"^(```|:::)\{", text, re.M)
    for link in re.findall(r"\]\((?!\w+:)([^)\s]+)", re.sub(r"^```.*?^```|`[^`]*`", "", text, flags=re.M | re.S)):
        name, _, anchor = link.partition("#")
        found = (page.parent / name).resolve() if name else page
        assert found.exists(), link
        there = found.read_text("utf-8") if found.suffix == ".md" else ""
        heads = [re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in re.findall(r"^#+ (.*)", there, re.M)]
        assert not anchor or anchor in heads, link


API = [
    item
    for page in DOCS
    if page.parent.name == "api"
    for item in re.findall(r"^- \[`(.+)`\]\(([^)\s]+)", page.read_text("utf-8"), re.M)
]


@pytest.mark.parametrize(("name", "link"), API)
def test_names_of_the_reference_lead_to_their_source(name, link):
    found = pkgutil.resolve_name(name if "." in name else f"causalrisk.{name}")
    file = inspect.getsourcefile(found if inspect.ismodule(found) else inspect.unwrap(found))
    assert (ROOT / "docs" / "reference" / "api" / link).resolve().samefile(file)


def test_every_public_name_is_in_the_reference():
    listed = {name for name, _ in API}
    assert set(causalrisk.__all__) - listed == {"__version__", "Hajek"}


@pytest.mark.parametrize("url", ["", "https://github.com/owner/causalrisk"])
def test_an_index_shows_the_readme_without_relative_links(url):
    absolute = runpy.run_path(str(ROOT / ".ci" / "absolute_links.py"))["absolute"]
    text = absolute((ROOT / "README.md").read_text("utf-8"), url, "v1.2.3")
    links = re.findall(r'\]\(([^)\s]+)|src="([^"]+)', re.sub(r"`[^`]*`", "", text))
    assert "(docs/" not in text and '"docs/' not in text
    assert {link for pair in links for link in pair if link and not link.startswith(url or "https:")} == set()
    for folder, ending in re.findall(r"/(raw|blob)/v1\.2\.3/([^)\"#]+)", text):
        assert (ROOT / ending).exists()
        assert (folder == "raw") == ending.endswith((".png", ".svg"))


def test_every_result_has_its_place_in_the_reference():
    page = (ROOT / "docs" / "reference" / "api" / "results.md").read_text("utf-8")
    lists = re.findall(r"CausalResults`\]\(\S+\):((?:\s+`\w+`,?)+)", page)
    names = [name for found in lists for name in re.findall(r"`(\w+)`", found)]
    public = {name for name in dir(causalrisk.CausalResults) if name[0] != "_"} - {"default_model_infos"}
    assert sorted(names) == sorted(public)


def test_every_option_of_a_model_has_its_place_in_the_reference():
    page = (ROOT / "docs" / "reference" / "api" / "models.md").read_text("utf-8")
    table = re.findall(r"^\| [\w ]+ \|(.*)\|$", page, re.M)
    names = [name for row in table for name in re.findall(r"`(\w+)`", row)]
    assert set(inspect.signature(causalrisk.AIPW.from_formula).parameters) - {"others"} <= set(names)


def test_the_description_has_the_words_that_are_searched_for(setup):
    metadata = setup["metadata"]
    said = f"{metadata['description']} {metadata['keywords']}".lower()
    for word in ("ipw", "aipw", "ipwra", "doubly robust", "propensity score", "teffects", "regression adjustment"):
        assert word in said

"""Configuration of the documentation's site; building it runs every example of every page."""

from __future__ import annotations

import doctest
import io
import os
import tomllib
import warnings
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # small matrices, and the same digits everywhere
os.environ.setdefault("MPLBACKEND", "Agg")

import causalrisk

ROOT = Path(__file__).resolve().parents[1]

project = "causalrisk"
author = "The causalrisk developers"
copyright = author
version = release = causalrisk.__version__

extensions = ["myst_parser", "numpydoc", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx_copybutton"]
exclude_patterns = ["_build"]
root_doc = "index"
language = "en"
nitpicky = False

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

autodoc_typehints = "none"
autodoc_member_order = "bysource"
autosummary_generate = False
toc_object_entries_show_parents = "hide"
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False

html_theme = "pydata_sphinx_theme"
html_title = f"causalrisk {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_favicon = "_static/favicon.svg"
html_context = {"default_mode": "auto"}
html_math_renderer = "mathml"
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "logo": {"text": "causalrisk"},
    "navbar_align": "left",
    "show_prev_next": True,
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "footer_start": ["copyright"],
    "footer_end": ["sphinx-version"],
    "pygments_light_style": "tango",
    "pygments_dark_style": "monokai",
}
html_sidebars = {"changes": [], "index": []}
copybutton_prompt_text = r">>> |\.\.\. "
copybutton_prompt_is_regexp = True


def doctest_flags() -> int:
    """Return the flags that pytest runs the same examples with."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["pytest"]["ini_options"]
    return sum(doctest.OPTIONFLAGS_BY_NAME[name] for name in settings["doctest_optionflags"])


def run_examples(app: Any, docname: str, source: list[str]) -> None:
    """Run the examples of a page; one whose output differs from the page's is a warning of the build."""
    from sphinx.util import logging

    test = doctest.DocTestParser().get_doctest(source[0], {"__name__": "__main__"}, docname, f"{docname}.md", 0)
    report = io.StringIO()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        failed, _ = doctest.DocTestRunner(optionflags=doctest_flags()).run(test, out=report.write)
    if failed:
        logging.getLogger(__name__).warning(report.getvalue(), location=docname)


def visit_math(translator: Any, node: Any) -> None:
    """Write a formula as MathML, which browsers show without a script."""
    from docutils.nodes import SkipNode
    from latex2mathml.converter import convert

    block = node.tagname == "math_block"
    markup = convert(node.astext().strip(), display="block" if block else "inline")
    translator.body.append(f'<div class="formula">{markup}</div>' if block else markup)
    raise SkipNode


def setup(app: Any) -> None:
    """Register what this file adds to Sphinx."""
    app.add_html_math_renderer("mathml", inline_renderers=(visit_math, None), block_renderers=(visit_math, None))
    app.connect("source-read", run_examples)

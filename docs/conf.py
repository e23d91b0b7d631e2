"""Configuration of the documentation's site; building it runs every example of every page."""

from __future__ import annotations

import doctest
import html
import inspect
import io
import os
import pkgutil
import re
import sys
import tomllib
import warnings
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # small matrices, and the same digits everywhere
os.environ.setdefault("MPLBACKEND", "Agg")

import causalrisk

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "docs"))
from notebook import linked, notebook, without_answers  # noqa: E402 - beside this file

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
html_search_scorer = str(ROOT / "docs" / "_static" / "scorer.js")
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
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
html_sidebars = {"changes": [], "index": []}
copybutton_prompt_text = r">>> |\.\.\. "
copybutton_prompt_is_regexp = True


def doctest_flags() -> int:
    """Return the flags that pytest runs the same examples with."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["pytest"]["ini_options"]
    return sum(doctest.OPTIONFLAGS_BY_NAME[name] for name in settings["doctest_optionflags"])


# Legible on a telephone, where a figure of 4.8 inches is drawn at three quarters of its size.
FIGURES: dict[str, Any] = {
    "figure.figsize": (4.8, 3.4),
    "figure.constrained_layout.use": True,
    "font.size": 11,
    "axes.titlesize": 11,
    "legend.fontsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}


class Examples(doctest.DocTestRunner):
    """Runs examples, and keeps the figures that they show."""

    def __init__(self) -> None:
        import matplotlib.pyplot as plt

        super().__init__(optionflags=doctest_flags())
        plt.rcParams.update(FIGURES)
        plt.show = lambda: plt.close("all")  # the build opens no window
        self.figures: dict[int, str] = {}

    def report_start(self, out: Any, test: Any, example: Any) -> None:
        """Draw the open figure, as SVG, before an example that starts with ``plt.show``."""
        if example.source.startswith("plt.show("):
            import matplotlib.pyplot as plt

            text = io.StringIO()
            with plt.rc_context({"svg.hashsalt": test.name}):
                plt.gcf().savefig(text, format="svg", bbox_inches="tight", metadata={"Date": None})
            self.figures[example.lineno] = text.getvalue()


def run_examples(app: Any, docname: str, source: list[str]) -> None:
    """Run the examples of a page; one whose output differs from the page's is a warning of the build."""
    from sphinx.util import logging

    logger = logging.getLogger(__name__)
    for block in re.findall(r"^```python\n(.*?)^```", source[0], re.M | re.S):
        if ">>> " not in block:
            logger.warning("a block of Python that is not run; expected lines of >>>:\n%s", block, location=docname)
    page = source[0]
    test = doctest.DocTestParser().get_doctest(page, {"__name__": "__main__"}, docname, f"{docname}.md", 0)
    report, runner = io.StringIO(), Examples()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "only [0-9]+ clusters? of")  # examples have few clusters
        failed, _ = runner.run(test, out=report.write)
    if failed:
        logger.warning(report.getvalue(), location=docname)
    shown = show_sources(show_figures(app, docname, source[0], runner.figures))
    source[0] = re.sub(r"\n\n```$", "\n```", shown, flags=re.M)  # the empty line that ends an example
    if docname.split("/")[-1] == "index":
        source[0] += toctree_of(docname, source[0])
    elif docname.startswith("tutorials/"):
        source[0] = with_notebook(app, docname, page, source[0], runner.figures)


def with_notebook(app: Any, docname: str, page: str, text: str, figures: dict[int, str]) -> str:
    """Write a page as a notebook, a lab also without its answers, and return the text with links to them."""
    folder, name = docname.split("/")
    (Path(app.outdir) / "notebooks").mkdir(parents=True, exist_ok=True)
    made = {name: notebook(page, figures, folder)}
    asked = without_answers(page)
    if asked.splitlines() != page.splitlines():
        made[f"{name}_without_answers"] = notebook(asked, {}, folder)
    links = [
        f'<a href="../notebooks/{file}.ipynb" download>Notebook{", without answers" if file != name else ""}</a>'
        for file in made
    ]
    for file, content in made.items():
        (Path(app.outdir) / "notebooks" / f"{file}.ipynb").write_text(content, encoding="utf-8")
    title, rest = text.split("\n", 1)
    return f"{title}\n\n<p>{' | '.join(links)}</p>\n{rest}"


def write_agents(app: Any, exception: Exception | None) -> None:
    """Write the page for coding assistants as llms.txt, where they look for it."""
    if exception is None:
        page = (ROOT / "docs" / "howto" / "agents.md").read_text("utf-8")
        text = "\n".join(linked(line, "howto").replace("](../", "](") for line in page.splitlines())
        (Path(app.outdir) / "llms.txt").write_text(f"{text}\n", encoding="utf-8")


def toctree_of(docname: str, text: str) -> str:
    """Return the hidden table of contents of an index: the pages it links to, the first page of its folders once."""
    links = dict.fromkeys(re.findall(r"\]\((\w[\w/]*)\.md[)#]", text))
    pages = [link for link in links if docname != "index" or "/" not in link or link.endswith("/index")]
    return "\n".join(["", "```{toctree}", ":hidden:", "", *pages, "```", ""])


def show_figures(app: Any, docname: str, text: str, figures: dict[int, str]) -> str:
    """Put each figure before the next paragraph that begins with "Figure:", its caption and alternative text."""
    lines = text.split("\n")
    stops = [*list(figures)[1:], len(lines)]
    for number, (line, svg) in reversed(list(enumerate(figures.items()))):
        begin = next((k for k in range(line, stops[number]) if lines[k].startswith("Figure: ")), None)
        if begin is None:
            raise ValueError(f"{docname}, line {line + 1}: no paragraph 'Figure: ...' says what the figure shows")
        name = f"{docname.replace('/', '-')}-{number}.svg"
        folder = Path(app.outdir) / "_images"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(svg, encoding="utf-8")
        end = next(k for k in range(begin, len(lines) + 1) if k == len(lines) or not lines[k].strip())
        caption = html.escape(" ".join(lines[begin:end]).removeprefix("Figure: "))
        up = "../" * docname.count("/")
        lines[begin:end] = [
            f'<figure><img class="drawn" src="{up}_images/{name}" alt="{caption}">',
            f"<figcaption>{caption}</figcaption></figure>",
        ]
    return "\n".join(lines)


def show_sources(text: str) -> str:
    """Replace links to source files, alone in a line, by what is in them.

    A list item becomes the documentation of the object that it names, or of the members that it lists; the link's title
    has options of the directive.
    """

    def documentation(found: re.Match[str]) -> str:
        name = found[1] if "." in found[1] else f"causalrisk.{found[1]}"
        options = [option.partition(":") for option in found[2].split("; ")] if found[2] else []
        lines = "".join(f"\n   :{key}:{value}" for key, _, value in options)
        names = [f"{name}.{member}" for member in re.findall(r"`(\w+)`", found[3] or "")]
        if not names:
            return f"\n```{{eval-rst}}\n.. auto{kind_of(name)}:: {name}{lines}\n```\n"
        rows = "".join(f"\n   ~{member}" for member in names)
        parts = "".join(f"\n\n.. auto{kind_of(member)}:: {member}" for member in names)
        return f"\n```{{eval-rst}}\n.. autosummary::\n   :nosignatures:\n{rows}{parts}\n```\n"

    item = r'^- \[`([\w.]+)`\]\(\S+\.py(?: "(.+)")?\)(?::((?:\s+`\w+`,?)+))?$'
    text = re.sub(item, documentation, text, flags=re.M)
    return re.sub(r"^\[[^\]]+\]\(\S+/aliases\.py\)$", words(), text, flags=re.M)


def words() -> str:
    """Return the words of other packages that are read, as a table."""
    from causalrisk.errors.aliases import ATTRIBUTES, NAMES, VALUES

    calls = {"model": "from_formula", "method": "methods and functions"}
    read = {f"`{name}=` of {calls.get(call, f'`{call}`')}": NAMES[call][name] for call in NAMES for name in NAMES[call]}
    read |= {f'`{name}="{value}"`': VALUES[name][value] for name in VALUES for value in VALUES[name]}
    read |= {f"`res.{name}`": text for name, text in ATTRIBUTES.items()}
    rows = [f"| {here} | `{', '.join(text.split())}` |" for here, text in read.items()]
    return "\n".join(["| here | read as the same |", "|---|---|", *rows])


def kind_of(name: str) -> str:
    """Return what autodoc calls a module, class, exception, function, method or property."""
    documented = pkgutil.resolve_name(name)
    if inspect.ismodule(documented):
        return "module"
    if inspect.isclass(documented):
        return "exception" if issubclass(documented, BaseException) else "class"
    if not inspect.isclass(pkgutil.resolve_name(name.rpartition(".")[0])):
        return "function"
    return "method" if callable(documented) else "property"


def short_signature(app: Any, what: str, name: str, obj: Any, options: Any, signature: str, returned: str) -> Any:
    """Return the first arguments of a long signature; none for results, which are not made by hand."""
    if what == "class" and name.endswith("Results"):
        return "", returned
    if signature and len(signature) > 120:
        kept = signature[1:100].rpartition(", ")[0]
        return f"({kept}, ...)", returned
    return None


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
    app.connect("autodoc-process-signature", short_signature)
    app.connect("source-read", run_examples)
    app.connect("build-finished", write_agents)

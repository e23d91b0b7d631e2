"""Structure: one direction of imports, confined dependencies, and packaging files that agree with each other."""

from __future__ import annotations

import ast
import configparser
import functools
import graphlib
import re
import subprocess
import sys
import tomllib
from importlib.util import resolve_name
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "causalrisk"

# From low to high; a module may import from lines above its own. Modules on one line, and those of one subpackage,
# may import each other as long as there is no cycle.
LAYERS = (
    ("_version", "errors"),
    ("runtime",),
    ("numerics", "design", "datasets"),
    ("learners",),
    ("estimation", "joint"),
    ("inference",),
    ("diagnostics",),
    ("report", "hle"),
    ("models",),
    ("simulation",),
    ("__init__",),
    ("cli", "__main__"),
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
REQUIRED = {"numpy", "scipy", "pandas", "patsy", "statsmodels", "threadpoolctl", "joblib"}
OPTIONAL = {
    "matplotlib", "tqdm", "pyarrow", "dask", "distributed", "python-docx", "doubleml", "sklearn",
    "scikit-learn", "zepid", "maketables",
}  # fmt: skip
TEST_COMMAND = 'python -m venv .venv && .venv/bin/pip install -q ".[test]" && .venv/bin/python -m pytest -n 2'
SITE_COMMAND = "-m sphinx -E -W -b html docs build/html"
RUN_COMMAND = 'python -m venv .venv && .venv/bin/pip install -q ".[plots,learners]" && .venv/bin/causalrisk demo'


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}
MODULES["causalrisk.__init__"] = PACKAGE / "__init__.pyi"  # what the package imports late
PACKAGES = {module_name(path) for path in PACKAGE.rglob("__init__.py")}
LATE = {  # imported inside a function: help needs no data
    ("causalrisk.cli", "causalrisk.design.scan"),
    ("causalrisk.cli", "causalrisk.design.formulas"),
    ("causalrisk.cli", "causalrisk.design.tables"),
    ("causalrisk.cli", "causalrisk.models.estimators"),
}


@functools.cache
def tree_of(module):
    return ast.parse(MODULES[module].read_text("utf-8"))


def layer(module):
    """Return the name under which a module stands in LAYERS."""
    return [*module.split("."), "__init__"][1]


@functools.cache
def imports(module):
    """List (line, imported module, whether inside a function) of every import of a module."""
    return list(_imports(module))


def _imports(module):
    package = module if module in PACKAGES else module.rpartition(".")[0]
    nodes = [(tree_of(module), False)]
    while nodes:
        node, inside = nodes.pop()
        inside = inside or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        nodes += [(child, inside) for child in ast.iter_child_nodes(node)]
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name, inside
        elif isinstance(node, ast.ImportFrom):
            base = resolve_name("." * node.level + (node.module or ""), package) if node.level else node.module
            for alias in node.names:
                full = f"{base}.{alias.name}"
                is_module = full in MODULES or full == "scipy.optimize"
                yield node.lineno, full if is_module else base, inside


def first_party(module):
    return [found for found in imports(module) if found[1].split(".")[0] == "causalrisk"]


def third_party(module):
    return [
        found for found in imports(module) if found[1].split(".")[0] not in {"causalrisk", *sys.stdlib_module_names}
    ]


def test_every_module_has_a_layer():
    assert {layer(module) for module in MODULES} - set(LEVEL) == set(), "add the module to LAYERS"


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_downwards(module):
    own = layer(module)
    for line, imported, inside in first_party(module):
        where = f"{module}:{line} imports {imported}"
        assert imported in MODULES, f"{where}, which does not exist"
        assert inside == ((module, imported) in LATE), f"{where} inside a function, or a late one outside"
        same_package = own == layer(imported) and own != "__init__"
        assert same_package or LEVEL[layer(imported)] <= LEVEL[own], f"{where}, which is above it"
        by_name = own in ("cli", "__main__")
        assert imported != "causalrisk" or by_name, f"{where}: import the module that defines the name"


def test_no_import_cycles():
    graph = {module: {imported for _, imported, _ in first_party(module)} - {module} for module in MODULES}
    order = list(graphlib.TopologicalSorter(graph).static_order())  # raises on a cycle
    assert set(order) >= set(MODULES)


@pytest.mark.parametrize("module", MODULES)
def test_third_party_imports(module):
    for line, imported, inside in third_party(module):
        top = imported.split(".")[0]
        assert top in REQUIRED or top in OPTIONAL, f"{module}:{line} imports {imported}, which is no dependency"
        assert top in REQUIRED or inside, f"{module}:{line} imports the optional {imported} outside a function"


def test_only_optimize_uses_scipy_optimize():
    users = {m for m in MODULES for _, imported, _ in imports(m) if imported.startswith("scipy.optimize")}
    users |= {
        module
        for module in MODULES
        for node in ast.walk(tree_of(module))
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ("scipy.optimize", "sp.optimize")
    }
    assert users == {"causalrisk.numerics.optimize"}


def test_only_one_module_imports_patsy():
    users = {m for m in MODULES for _, imported, _ in imports(m) if imported.split(".")[0] == "patsy"}
    assert users == {"causalrisk.design.formulas"}


@pytest.mark.parametrize("module", MODULES)
def test_no_assert_and_no_broad_except(module):
    for node in ast.walk(tree_of(module)):
        assert not isinstance(node, ast.Assert), f"{module}:{node.lineno} asserts"
        if isinstance(node, ast.ExceptHandler):
            where = f"{module}:{node.lineno} catches everything"
            assert node.type is not None, where
            caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
            assert not {ast.unparse(kind) for kind in caught} & {"Exception", "BaseException"}, where


@pytest.fixture(scope="module")
def setup():
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


@pytest.fixture(scope="module")
def pyproject():
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def names_of(requirements):
    return {re.split(r"[<>=\[ ]", line)[0] for line in requirements.split("\n") if line}


def test_dependencies_are_the_ones_imported(setup):
    extras = setup["options.extras_require"]
    assert names_of(setup["options"]["install_requires"]) == REQUIRED
    promised = [extra for extra in extras if extra not in ("docs", "test", "all")]
    assert set().union(*(names_of(extras[extra]) for extra in promised)) <= OPTIONAL
    assert extras["all"].strip() == f"causalrisk[{','.join(name for name in extras if name != 'all')}]"


def test_version_stands_in_one_place(setup):
    assert setup["metadata"]["version"] == "attr: causalrisk._version.__version__"
    version = re.fullmatch(r'""".*"""\n\n__version__ = "(.+)"\n', (PACKAGE / "_version.py").read_text("utf-8"))[1]
    files = [ROOT / "setup.cfg", ROOT / "pyproject.toml", ROOT / "README.md", *PACKAGE.rglob("*.py")]
    holders = [path.name for path in files if re.search(rf"(?<![\d.]){re.escape(version)}(?![\d.])", path.read_text())]
    assert holders == ["_version.py"]
    assert f"## {version}" in (ROOT / "docs" / "changes.md").read_text("utf-8")


def test_nothing_stands_both_in_setup_and_pyproject(setup, pyproject):
    assert set(pyproject) == {"build-system", "tool"}
    assert set(pyproject["tool"]) == {"ruff", "mypy", "pytest"}
    assert {name.split(".")[0] for name in setup.sections()} == {"metadata", "options"}


def test_oldest_dependencies_are_tested(setup):
    """Each required one has a lower bound, and the constraints of the oldest environment hold it."""
    required = setup["options"]["install_requires"].split()
    script = ROOT / ".ci" / "oldest.py"
    constraints = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True).stdout.split()
    assert all(">=" in line for line in required)
    assert {f"{line.replace('>=', '==')}.*" for line in required} <= set(constraints)
    assert len(names_of("\n".join(constraints))) == len(constraints)


def test_commands_of_the_site_agree():
    for name in ("docs/development/contributing.md", ".ci/run"):
        text = (ROOT / name).read_text("utf-8")
        assert text.replace("sphinx -q", "sphinx").count(SITE_COMMAND) == 1, name


def test_readme_commands_and_continuous_integration_agree():
    readme = (ROOT / "README.md").read_text("utf-8").splitlines()
    script = [line.strip() for line in (ROOT / ".ci" / "run").read_text("utf-8").splitlines()]
    assert readme.count(TEST_COMMAND) == readme.count(RUN_COMMAND) == 1
    assert script.count(TEST_COMMAND) == 1
    assert "set -euo pipefail" in script
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111


def test_data_and_type_marker_are_packaged(setup):
    patterns = setup["options.package_data"]["causalrisk"].split()
    data = [path for path in PACKAGE.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")]
    packaged = {path for pattern in patterns for path in PACKAGE.glob(pattern)}
    assert set(data) == packaged
    assert (PACKAGE / "py.typed").exists()

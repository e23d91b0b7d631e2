"""The package from outside: its names, and what importing it and asking for help brings along."""

from __future__ import annotations

import ast
import builtins
import importlib
import pkgutil
import subprocess
import sys
import types
from pathlib import Path

import pytest

import causalrisk as cr
from causalrisk.models.estimators import MODELS
from tests.conftest import LONG, WORDS, simulate
from tests.test_architecture import OPTIONAL, REQUIRED

USE = """
from causalrisk import IPWRA, datasets
res = IPWRA.from_formula("bweight ~ mage + medu", datasets.load_cattaneo2(), treat="mbsmoke").fit()
print(res.summary())
"""
LOOK = "import causalrisk as cr; dir(cr); cr.__version__; hasattr(cr, '__wrapped__'); hasattr(cr, '_internal')"


def imported(*arguments):
    """Return the modules that a process of Python imports."""
    command = [sys.executable, "-X", "importtime", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip() for line in lines}


@pytest.mark.parametrize("arguments", [("-c", LOOK), ("-m", "causalrisk", "--help")], ids=["import", "help"])
def test_no_dependency_is_imported_before_it_is_needed(arguments):
    modules = imported(*arguments)
    assert "causalrisk" in modules
    assert {module.partition(".")[0] for module in modules} & (REQUIRED | OPTIONAL) == set()


def test_a_robust_fit_needs_no_optimiser_and_no_distributions():
    """Half of the time that `import statsmodels.api` takes is scipy.stats."""
    modules = imported("-c", USE)
    assert {"causalrisk.estimation.fit", "pandas"} <= modules
    assert modules & {"scipy.stats", "scipy.optimize", "statsmodels.api", "joblib", "matplotlib"} == set()


def test_public_names_are_all_there_is():
    found = {}
    exec("from causalrisk import *", found)
    assert set(cr.__all__) == set(dir(cr)) == found.keys() - {"__builtins__"}
    assert len(cr.__all__) == len(set(cr.__all__)) > 30
    for name in set(cr.__all__) - {"Hajek", "__version__"}:
        value = getattr(cr, name)
        own = value.__name__ if not isinstance(value, types.ModuleType) else value.__name__.removeprefix("causalrisk.")
        assert own == name and value.__doc__ and found[name] is value
    assert cr.IPW is cr.Hajek


def test_an_estimator_is_a_specification_a_class_and_a_public_name():
    assert [model.__name__ for model in MODELS] == [model.spec.name for model in MODELS]
    assert {model.spec.name for model in MODELS} <= set(cr.__all__)


def test_type_checkers_find_the_names_where_they_are_imported_from():
    stub = ast.parse(Path(cr.__file__).with_suffix(".pyi").read_text("utf-8")).body
    found = {alias.name: node.module for node in stub if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert found == cr._HOMES | dict.fromkeys(cr._SUBPACKAGES, "causalrisk")


@pytest.mark.parametrize("name", ["", ".datasets", ".errors", ".hle", ".simulation"])
def test_public_names_exist(name):
    module = importlib.import_module(f"causalrisk{name}")
    assert all(hasattr(module, shown) for shown in module.__all__)
    assert name or dir(module) == sorted(module.__all__)


def test_every_module_can_be_imported_by_its_dotted_name():
    """`import causalrisk.design.on_disk as design` goes by attributes, so no function is named as its module."""
    modules = [found.name for found in pkgutil.walk_packages(cr.__path__, "causalrisk.")]
    modules.remove("causalrisk.__main__")  # which runs the command line
    code = "\n".join(f"import {name} as found; assert found.__name__ == {name!r}, found" for name in modules)
    exec(code, {})


def test_every_error_is_one_of_the_package():
    names = [found.name for found in pkgutil.walk_packages(cr.__path__, "causalrisk.") if "__main__" not in found.name]
    values = [value for name in names for value in vars(importlib.import_module(name)).values()]
    kinds = {value for value in values if isinstance(value, type) and issubclass(value, Exception)}
    kinds = {kind for kind in kinds if kind.__module__.startswith("causalrisk")}
    assert {cr.OptionError, cr.LearnerError, cr.CausalRiskWarning} < kinds
    others = {kind for kind in kinds if not issubclass(kind, cr.CausalRiskError | cr.CausalRiskWarning)}
    assert others == set()


def test_warnings_point_at_the_line_of_the_caller():
    data = simulate(60).assign(city=[k % 4 for k in range(60)])
    with pytest.warns(cr.DesignWarning, match="clusters") as caught:
        cr.AIPW.from_formula("y ~ x1", data, treat="d", cluster="city").fit()
    assert {warning.filename for warning in caught} == {__file__}


def test_no_error_of_python_is_raised():
    """But for the AttributeError of private names."""
    raised = []
    for path in sorted(Path(cr.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
                name = ast.unparse(node.exc.func)
                raised += [f"{path}:{node.lineno} {name}"] if hasattr(builtins, name) else []
    assert {line.rpartition(" ")[2] for line in raised} == {"AttributeError"}, raised


def test_scripts_beside_the_tests_can_be_imported():
    """Benchmarks, studies and machines are run by hand, so nothing else would say that a name of theirs has moved."""
    tests = Path(__file__).parent
    for path in tests.rglob("*.py"):
        if not path.name.startswith(("test_", "__init__")):
            importlib.import_module(".".join(path.relative_to(tests.parent).with_suffix("").parts))


@pytest.mark.parametrize("name", WORDS + LONG)
def test_what_the_quick_tests_leave_out_exists(name):
    path, _, function = name.partition("::")
    found = [place for place in Path(__file__).parents[1].glob(f"{path}*") if place.suffix in ("", ".py")]
    assert found and (not function or f"def {function}" in found[0].read_text("utf-8"))


def test_private_names_have_no_advice():
    with pytest.raises(AttributeError, match=r"^module 'causalrisk' has no attribute '_design'\.$"):
        _ = cr._design

"""Formulas of the command line: they compute, and do nothing else."""

from __future__ import annotations

import pytest

from causalrisk.cli import main
from causalrisk.design.formulas.evaluation import FUNCTIONS
from causalrisk.design.formulas.safe import NUMPY, check_safe
from causalrisk.errors import DesignError
from tests.conftest import simulate

NAMES = ("y", "x", "site", "C", "mother's age")
COMMON = [
    "y ~ x + site",
    "y ~ x*site + x:site - 1 + 0",
    "y ~ (x + site)**2 + I(x**2) + I(x ** -1.5) + I(x / 2 + 1e-3)",
    "np.log(y) ~ np.sqrt(x) + np.exp(-x) + np.where(x > 0, x, 0) + np.clip(x, 0, 1)",
    "y ~ C(site, Treatment(reference='a')) + C(site, Sum) + center(x) + standardize(x) + scale(x)",
    "y ~ bs(x, df=4, degree=3) + cr(x, df=3) + te(cr(x, df=3), cc(x, df=3))",
    "y ~ Q(\"mother's age\") + I((x > 1) & (x < 2)) + I(not x) + I(x == 'a') + C(C)",
    "y ~ bs(x, knots=[1, 2, 3], lower_bound=-1)",
]
HOSTILE = [
    "y ~ x + I(0*x + __import__('os').system('touch pwn'))",
    "y ~ I(open('/etc/passwd').read())",
    "y ~ I(eval('1'))",
    "y ~ I(x.__class__.__mro__)",
    "y ~ x.to_csv('pwn')",
    "y ~ np.load('pwn.npy', allow_pickle=True)",
    "y ~ np.lib.npyio.DataSource().open('http://example.org')",
    "y ~ (lambda: 1)()",
    "y ~ [x for x in range(9)][0]",
    "y ~ I(9**9**9**9)",
    "y ~ I(x**1e9)",
    "y ~ x[0]",
    "y ~ I(f'{x}')",
    "y ~ sys.exit()",
    "y ~ os",
    "y ~ options",
    "y ~ np",
    "y ~ np.log",
    "y ~ getattr(x, 'y')",
    "y ~ (z := 3)",
    "__import__('os').getpid() ~ x",
]


@pytest.mark.parametrize("text", COMMON)
def test_common_formulas_are_safe(text):
    assert check_safe(text, "outcome", NAMES) is None  # nothing is raised


@pytest.mark.parametrize("text", HOSTILE)
def test_formulas_that_do_more_are_refused(text):
    with pytest.raises(DesignError, match=r"(?s)the outcome formula .*(is no column, number, operator|cannot be read)"):
        check_safe(text, "outcome", NAMES)


def test_functions_are_those_of_patsy_and_elementwise_ones():
    assert {"C", "I", "Q", "center", "bs", "cr"} <= set(FUNCTIONS)
    assert not NUMPY & {"load", "save", "fromfile", "memmap", "loadtxt", "genfromtxt", "frompyfunc", "vectorize"}


def test_the_command_line_ran_a_formula_that_calls_the_system(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    simulate(100).to_csv("f.csv", index=False)
    call = ["fit", "f.csv", "y ~ x1 + I(0*x1 + __import__('os').system('touch pwn'))", "--treat", "d"]
    assert main(call) == 2
    assert "which is run as Python, type  --allow-python" in capsys.readouterr().err
    assert not (tmp_path / "pwn").exists()
    call = ["fit", "f.csv", "y ~ x1", "--propensity", "x1 + I(0*x1 + __import__('os').system('touch pwn'))"]
    assert main([*call, "--treat", "d"]) == 2
    assert "the propensity formula" in capsys.readouterr().err
    assert not (tmp_path / "pwn").exists()


def test_python_in_a_formula_on_request(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    simulate(100).to_csv("f.csv", index=False)
    call = ["fit", "f.csv", "y ~ x1 + I(x2.clip(0, 1))", "--treat", "d", "--estimator", "IPWRA"]
    assert main(call) == 2
    assert main([*call, "--allow-python"]) == 0
    assert "POM[1]" in capsys.readouterr().out

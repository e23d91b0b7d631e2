"""Formulas of the command line: they compute, and do nothing else."""

from __future__ import annotations

import pytest

from causalrisk.cli import main
from causalrisk.design.formulas.evaluation import FUNCTIONS
from causalrisk.design.formulas.scope import NUMPY, check_safe
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
    with pytest.raises(DesignError, match=r"(?s)the outcome formula .*(type  --allow-python|cannot be read)"):
        check_safe(text, "outcome", NAMES)


LARGE = [
    "y ~ I('a' * (4 * 10**9) == 'b')",
    "y ~ I('a' + 'b')",
    "y ~ I(I('a') * 10**9)",
    "y ~ I(('a' if x is None else 'b') * 10**9)",
    "y ~ I(np.where(x > 0, 'a', 'b') * 10**9)",
    "y ~ I(site * 10**9)",
    "y ~ I(Q('site') * 10**9)",
    "y ~ I([1] * 10**9)",
    "y ~ I((1, 2) * 10**9)",
    "y ~ I(1 << 10**9)",
    "y ~ I(x << 3)",
    "y ~ I(x @ x)",
    "y ~ I(((9**99)**99)**99)",
    "y ~ I(x + 10**99 * 10**99)",
    "y ~ I(x + " + "9" * 200 + ")",
    "y ~ bs(x, df=100000)",
    "y ~ bs(x, 100000)",
    "y ~ bs(x, df=10**5)",
    "y ~ bs(x, df=x)",
    "y ~ bs(x, df=4, degree=10000)",
    "y ~ bs(x, knots=x)",
    "y ~ bs(x, knots=[" + ",".join(map(str, range(101))) + "])",
    "y ~ cr(x, 101)",
    "y ~ te(cr(x, df=50), cr(y2, df=50))",
    "y ~ bs(x, df=50):bs(y2, df=50)",
    "y ~ bs(x, df=50):x0 + bs(y2, df=50):cr(x1, df=20)",
    "y ~ " + "*".join(f"x{j}" for j in range(10)),
    "y ~ (" + "+".join(f"x{j}" for j in range(100)) + ")**50",
    "y ~ x" + " + x" * 5000,
    "y ~ I(" + "-" * 9000 + "x)",
    "y ~ I(" + "not " * 2000 + "x)",
]


@pytest.mark.parametrize("text", LARGE, ids=range(len(LARGE)))
def test_what_may_take_long_is_refused(text):
    """None of them is run: the work of some has no end, that of others fills the memory."""
    with pytest.raises(DesignError, match=r"\n(Make|Give) |type  --allow-python"):
        check_safe(text, "outcome", [*NAMES, "y2", *(f"x{j}" for j in range(100))], texts=["site"])


SMALL = [
    "y ~ I(x**100 / 10**9) + I(x * 1e6) + I(-x) + I(x % 7)",
    "y ~ I((site == 'a') * x) + I(np.isin(site, ['a', 'b']) * x) + np.where(site == 'a', 1, 0)",
    "y ~ bs(x, df=100) + bs(x, knots=[1, 2], degree=2) + bs(x=x, df=5) + cr(x, 4)",
    "y ~ te(cr(x, df=10), cr(y2, df=10)):site",
    "y ~ (x0 + x1 + x2 + x3 + x4 + x5 + x6 + x7)**8",
    "y ~ (" + "+".join(f"x{j}" for j in range(40)) + ")**2",
]


@pytest.mark.parametrize("text", SMALL, ids=range(len(SMALL)))
def test_what_people_type_is_within_the_bounds(text):
    names = [*NAMES, "y2", *(f"x{j}" for j in range(100))]
    assert check_safe(text, "outcome", names, texts=["site"]) is None  # nothing is raised


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

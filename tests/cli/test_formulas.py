"""Formulas of strangers on the command line: they compute with columns, and do nothing else."""

from __future__ import annotations

import io
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import causalrisk as cr
from causalrisk.cli import check_formula, main, make_parser

MARK = "ran"  # the file that a payload makes where it is run
CODE = [
    "__import__('os').system('touch ran')",
    "open('ran', 'w')",
    "eval(\"open('ran', 'w')\")",
    "getattr(np, 'save' + 'txt')('ran', x1)",
    "(z := open('ran', 'w'))",
    "f\"{open('ran', 'w')}\"",
    "'{0}'.format(open('ran', 'w'))",
    "[open][0]('ran', 'w')",
    "(open if 1 else 0)('ran', 'w')",
    "ｏｐｅｎ('ran', 'w')",
    "x1.to_csv('ran')",
    "().__class__.__base__.__subclasses__()",
    "np.savetxt('ran', x1)",
    "np.memmap('ran', mode='w+', shape=1)",
    "np.load('pickled.npy', allow_pickle=True)",
    "np.vectorize(open)('ran', 'w')",
    "np.ctypeslib.ctypes.CDLL(None).creat(b'ran', 420)",
    "__builtins__['open']('ran', 'w')",
    "(lambda: open('ran', 'w'))()",
    "[open('ran', 'w') for _ in x1]",
]
HOSTILE = [
    *(f"I(0*x1 + len(str({code})))" for code in CODE),
    *(f"np.log({code})" for code in CODE),
    *CODE,
    "C(g, open('ran', 'w') and Treatment)",
    "C(g, Treatment(open('ran', 'w')))",
    "C(g, np)",
    "C(g, levels=open('ran', 'w'))",
    'Q("__import__")("os").system("touch ran")',
    "Q(open('ran', 'w'))",
    "bs(x1, df=3 + 0 * len(str(open('ran', 'w'))))",
    "bs(x1, knots=[open('ran', 'w')])",
    "x1 + I(x1 + len(repr(open('ran', 'w')))):I(x1)",
    "I(x1 == open('ran', 'w'))",
    "I(x1 ** open('ran', 'w'))",
    "':' + open('ran', 'w') + ':'",
    "i.open('ran', 'w')",
    "c.x1#c.__import__('os').system('touch ran')",
    "`open('ran', 'w')`",
    "{open('ran', 'w')}",
    "x1[0]",
    "x1.values",
    "options",
    "np",
    "np.log",
    "exp",
    "bs",
]
LONG = [  # none may be run: the work of some has no end, others fill the memory
    "np.sign(" + "np.square(" * 40 + "k" + ", dtype='O')" * 40 + ")",
    "np.exp(x2, out=x1)",
    "np.exp(x2, x1)",
    "np.log(x1, where=x2)",
    "np.log(x1, x2)",
    "log(x1, x2)",
    "center()",
    "exit(k)",
    "bytes(100000000000)",
    "np.zeros(100000000000)",
    "np.diag(k)",
    "C(x1, x2, k)",
    "C(g, Treatment, Sum)",
    "C(g, x1)",
    "I(x1**11)",
    "I('a' * 1000000000 == g)",
    "'%1000000000d' % k",
    "I(9**9**9**9)",
    "I(((((((((9**10)**10)**10)**10)**10)**10)**10)**10)**10)",
    "I((x1**10)**10)",
    "I((abs(9)**9)**9)",
    "I((abs(('x1' == 'x1') + 9)**9)**9)",
    "I(x1**1e9)",
    "I(x1**k)",
    "I([1] * 10**9)",
    "I(1 << 10**9)",
    "I(x1 @ x1)",
    "bs(x1, df=31)",
    "bs(x1, df=4, degree=31)",
    "bs(x1, df=2.5)",
    "bs(x1, df=100000)",
    "bs(x1, 100000)",
    "bs(x1, df=10**5)",
    "bs(x1, df=x1)",
    "bs(x1, knots=[" + ",".join(map(str, range(2000))) + "])",
    "bs(x1, df=50):bs(x2, df=50)",
    "(" + "+".join(["x1", "x2", "k", "g"] * 25) + ")**50",
    "x1" + " + x2" * 5000,
    "I(" + "-" * 9000 + "x1)",
    "(" * 5000 + "x1" + ")" * 5000,
]
FINE = [
    "x1*g + x1:g - 1 + 0",
    "(x1 + g)**2 + I(x1**2) + I(x2 ** -1 / 2 + 1e-3)",
    "np.log(k) + log(k + 1) + np.sqrt(abs(x1)) + exp(-x2)",
    "C(g, Treatment(reference='b')) + C(k > 2) + center(x1) + standardize(x2)",
    "bs(x1, df=4, degree=3) + cr(x2, 3)",
    "abs + cr + I(abs**2)",
    "Q(\"mother's age: years\") + I((x1 > 0) & (x2 < 1)) + I((g == 'a') * x1)",
    "bs(x1, knots=[-0.5, 0.5]):g",
    "bs(x1, df=4):bs(x2, df=4) + C(g, Treatment) + C(k, Sum) + C(g, Treatment('b')):x1 + np.log1p(k) + I(x1**0.0)",
]


@pytest.fixture(scope="module")
def files():
    """Data, their file, and one that is code."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(200, 2)), columns=["x1", "x2"]).assign(d=[0, 1] * 100, g=list("abba") * 50)
    frame = frame.assign(k=rng.integers(1, 9, 200), y=frame.x1 + frame.d + rng.normal(size=200))
    frame["abs"], frame["cr"] = frame.x2**2, frame.x2 + frame.k
    frame["mother's age: years"] = rng.integers(20, 40, 200)
    code = io.BytesIO()
    np.save(code, np.array([_Touch()]), allow_pickle=True)
    return frame, {"data.csv": frame.to_csv(index=False).encode(), "pickled.npy": code.getvalue()}


@pytest.fixture(autouse=True)
def data(files, tmp_path, monkeypatch):
    """The files are in a folder of the test's own."""
    monkeypatch.chdir(tmp_path)
    for name, content in files[1].items():
        Path(name).write_bytes(content)
    return files[0].copy()


class _Touch:
    def __reduce__(self):
        return open, (MARK, "w")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("payload", [f"I(0*x1 + len(str({code})))" for code in (CODE[0], CODE[3])])
def test_python_runs_what_a_formula_holds(data, payload):
    """Otherwise the test below could not fail."""
    cr.OutcomeRegression.from_formula(f"y ~ x2 + {payload}", data, treat="d")
    assert Path(MARK).exists()


@pytest.mark.parametrize("payload", [*HOSTILE, *LONG], ids=range(len(HOSTILE + LONG)))
def test_formulas_that_do_more_than_compute_are_refused_at_once(payload, data, capsys):
    begun = time.process_time()
    for formula in (f"y ~ x2 + {payload}", f"{payload} ~ x2", payload):
        with pytest.raises(cr.DesignError):
            check_formula(formula, data, "outcome")
    assert main(["fit", "data.csv", "y ~ x2", "--propensity", payload, "--treat", "d"]) == 2
    assert not Path(MARK).exists()
    assert "Traceback" not in capsys.readouterr().err
    assert time.process_time() - begun < 20


def test_an_attack_ends_a_process_with_exit_code_2():
    """Forty squares of Python's integers, which have no bound."""
    command = [sys.executable, "-m", "causalrisk", "fit", "data.csv", f"y ~ x1 + {LONG[0]}", "--treat", "d"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and done.stdout == "" and "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["fit", "compare", "report"])
def test_no_option_runs_what_it_is_given(command, capsys, monkeypatch):
    """The options are those of the parser, so that a new one is among them."""
    monkeypatch.setattr(cr.CausalResults, "report", lambda self, path, **_: path)  # plots, of numbers
    (parsers,) = (action.choices for action in make_parser()._actions if isinstance(action.choices, dict))
    for option in [action for action in parsers[command]._actions if action.nargs != 0]:
        payloads = (f"I(0*x1 + len(str({CODE[0]})))", CODE[0], f"x1 > {CODE[1]}")
        for payload in payloads[: 3 if command == "fit" else 1]:
            name = option.option_strings[-1:]
            file, formula = ("data.csv", "y ~ x1") if name else (payload, payload)
            typed = [command, file, formula, "--treat", "d", "--n-boot", "2", *(f"{o}={payload}" for o in name)]
            try:
                assert main(typed) in (0, 2)
            except SystemExit as stop:  # of argparse, which takes no such value
                assert stop.code == 2
            assert not Path(MARK).exists(), (option.dest, payload)


@pytest.mark.filterwarnings("ignore")  # a spline's columns depend on the constant
@pytest.mark.parametrize("right", FINE)
def test_what_people_type_runs(data, right, capsys):
    assert main(["fit", "data.csv", f"y ~ {right}", "--propensity", "x1", "--treat", "d"]) == 0
    spelt = right.replace("log(k + 1)", "np.log(k + 1)").replace(" exp(", " np.exp(")
    res = cr.AIPW.from_formula(f"y ~ {spelt}", data, treat="d", propensity="x1").fit()
    assert f"{res.effect:.4f}"[:6] in capsys.readouterr().out

"""Text of strangers on the command line: nothing of it is run, whichever option it comes in by."""

from __future__ import annotations

import argparse
import contextlib
import functools
import pickle
import sys
import warnings
from pathlib import Path

import numpy as np
import numpy.f2py  # older ones do not load it by themselves
import pandas as pd
import pytest

import causalrisk as cr
from causalrisk.cli import commands
from causalrisk.design.formulas.terms import uses
from causalrisk.models.results import CausalResults

MARK = "ran"  # the file that a payload makes where it is run
NUMBER = "I(0*x1 + len(str({})))"  # what a formula can use is a number for each row
LIVE = [  # each makes the file where formulas are trusted, so that a hole would be seen
    *(
        NUMBER.format(code)
        for code in (
            "np.f2py.subprocess.run(['touch', 'ran'])",
            "__import__('os').system('touch ran')",
            "__import__('subprocess').run(['touch', 'ran'])",
            "open('ran', 'w')",
            "eval(\"open('ran', 'w')\")",
            "eval(compile(\"open('ran', 'w')\", 'a', 'eval'))",
            "getattr(__import__('pathlib'), 'Path')('ran').touch()",
            "getattr(np, 'save' + 'txt')('ran', x1)",
            "(z := open('ran', 'w'))",
            "f\"{open('ran', 'w')}\"",
            "'{0}'.format(open('ran', 'w'))",
            "[open][0]('ran', 'w')",
            "(open if 1 else 0)('ran', 'w')",
            "ｏｐｅｎ('ran', 'w')",
            "x1.to_csv('ran')",
            "().__class__.__base__.__subclasses__() and open('ran', 'w')",
            "np.save('ran', x1) or __import__('os').rename('ran.npy', 'ran')",
            "np.savetxt('ran', x1)",
            "np.asarray(x1).tofile('ran')",
            "np.array(x1).dump('ran')",
            "np.memmap('ran', mode='w+', shape=1)",
            "np.lib.format.open_memmap('ran', mode='w+', shape=(1,))",
            "np.load('pickled.npy', allow_pickle=True)",
            "np.frompyfunc(open, 2, 1)('ran', 'w')",
            "np.vectorize(open)('ran', 'w')",
            "np.ctypeslib.ctypes.CDLL(None).creat(b'ran', 420)",
        )
    ),
    "C(g, open('ran', 'w') and Treatment)",
    "bs(x1, df=3 + 0 * len(str(open('ran', 'w'))))",
    "te(cr(x1, df=3 if open('ran', 'w') else 4))",
    "x1 + I(x1 + len(repr(open('ran', 'w')))):I(x1 if 0 else x1 * 2)",
]
INERT = [  # never run, trusted or not: functions without a name, quoted names, contrasts, other notations
    NUMBER.format("__builtins__['open']('ran', 'w')"),  # runs where these are a dictionary
    "I(0*x1 + (lambda: open('ran', 'w'))())",
    "I(x1.pipe(lambda s: open('ran', 'w')))",
    "I([open('ran', 'w') for _ in x1])",
    "I(list(open('ran', 'w') for _ in x1))",
    'Q("__import__")("os").system("touch ran")',
    "Q(\"open('ran', 'w')\")",
    'C(g, Q("exit"))',
    "C(g, np)",
    "C(g, exit)",
    "C(g, Treatment(reference=Q(\"open('ran', 'w')\")))",
    "i.open('ran', 'w')",
    "c.x1#c.__import__('os').system('touch ran')",
    "x1 if open('ran', 'w')",
    "(y x1) (d open('ran', 'w'))",
    "x1 [pw=open('ran', 'w')]",
    "poly(x1, open('ran', 'w'))",
    "x1 %in% c(open('ran', 'w'))",
    "`open('ran', 'w')`",
    "factor(open('ran', 'w'))",
    "offset(open('ran', 'w'))",
    "{open('ran', 'w')}",
    "x1^open('ran', 'w')",
]
SMALL = {"fit": ["--estimator", "IPWRA"], "report": ["--estimator", "IPWRA"], "compare": ["--n-boot", "3"],
         "simulate": ["--n-sims", "2", "--n", "60"]}  # fmt: skip
FEW = ["--estimators", "Unadjusted"]  # of compare and simulate


class _Touch:
    def __reduce__(self):
        return open, (MARK, "w")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A folder with data and a file that is code."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(40, 2)), columns=["x1", "x2"]).assign(d=[0, 1] * 20, g=list("abba") * 10)
    frame.assign(y=frame.x1 + frame.d + rng.normal(size=40)).to_csv("data.csv", index=False)
    with open("pickled.npy", "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": (1,)})
        pickle.dump(_Touch(), file)
    return tmp_path


@pytest.mark.parametrize("payload", LIVE)
def test_where_formulas_are_trusted_a_payload_runs(payload):
    """Otherwise the test below could not fail."""
    data = pd.read_csv("data.csv")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with contextlib.suppress(TypeError, ValueError, AttributeError, OSError):  # what it returns is no column
            cr.OutcomeRegression.from_formula(f"y ~ x2 + {payload}", data, treat="d")
    assert Path(MARK).exists()


COMPILED: list[str] = []  # sources that the interpreter has compiled, parsing among it, since it was emptied
PROBE = NUMBER.format("open('ran', 'w')")
FORMS = ("{}", "~ {}", "y ~ x1 + {}", "{} ~ x1")


@pytest.fixture
def compiled():
    """What is compiled; a hook stays for good, so that it is told when to listen."""
    listening = [True]
    sys.addaudithook(lambda event, about: COMPILED.append(str(about[0])) if listening and event == "compile" else None)
    yield COMPILED
    listening.clear()


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["compiled", "every option"])
def test_no_option_of_any_command_runs_what_it_is_given(capsys, monkeypatch, compiled, every):
    """The options are those of the parser, so that a new one is among them.

    All payloads go to each option whose text Python compiles, if only to look at it: to the formulas of a fit in every
    form, to the others in one form each, which changes from option to option. One goes to what is not compiled, or,
    which takes minutes, all of them to every option in every form.
    """
    monkeypatch.setattr(CausalResults, "report", lambda self, path, **_: path)  # plots, of numbers
    monkeypatch.setattr(commands, "make_parser", functools.cache(commands.make_parser))
    parsers = next(a for a in commands.make_parser()._actions if isinstance(a, argparse._SubParsersAction)).choices
    payloads, becomes_code = [*LIVE, *INERT], []
    assert len(payloads) >= 40
    for command, parser in parsers.items():
        options = [action for action in parser._actions if action.nargs != 0]
        places = [action for action in options if not action.option_strings]
        for option in options:
            forms = []
            for form in FORMS:
                compiled.clear()
                uses.cache_clear()  # what is known of a text is not compiled again
                _run(_arguments(command, places, option, form.format(PROBE)))
                assert not Path(MARK).exists(), (command, option.dest)
                forms += [form] if every or any("open('ran', 'w')" in code for code in compiled) else []
            becomes_code += [(command, option.dest)] if forms else []
            in_all_forms = every or (command == "fit" and option.dest in ("formula", "propensity"))
            for number, payload in enumerate(payloads if forms else []):
                turn = (number + len(becomes_code)) % len(forms)
                for form in forms if in_all_forms else [forms[turn]]:
                    _run(_arguments(command, places, option, form.format(payload)))
                    assert not Path(MARK).exists(), (command, option.dest, payload)
    capsys.readouterr()
    formulas = {(command, dest) for command in ("fit", "compare", "report") for dest in ("formula", "propensity")}
    assert set(becomes_code) >= formulas | {("fit", "by")}


def _arguments(command: str, places: list[argparse.Action], option: argparse.Action, value: str) -> list[str]:
    """Return a command line that works but for the value of one option."""
    usual = {"file": "data.csv", "formula": "y ~ x1 + x2", "designs": "linear"}
    typed = [value if place is option else usual[place.dest] for place in places]
    typed += [] if command in ("simulate", "demo") else ["--treat", "d"]
    typed += SMALL.get(command, []) + (FEW if command in ("compare", "simulate") else [])
    return [command, *typed, *([f"{option.option_strings[-1]}={value}"] if option.option_strings else [])]


def _run(arguments: list[str]) -> None:
    with contextlib.suppress(SystemExit):  # of argparse, which does not take the value
        commands.run(arguments)

"""Every text that a caller gives to a table, in every format: it is shown, and it does nothing."""

from __future__ import annotations

import inspect
import re

import numpy as np
import pytest

from causalrisk import IPWRA, compare, etable, pool, table_one
from tests.conftest import simulate

HOSTILE = (
    "\r\n=1+1",
    "a\n\n# Heading\n\n| b |\n",
    r"}\input{secrets} %c $m$",
    '<script>alert(1)</script>" onload="x',
    "![a](x) &amp; *b*",
    "\x0b\x07\x1b[31m",
)
FRAME = simulate(120, seed=4).assign(c=1.0, c2=lambda frame: frame.x1 > -9)
NAMED = {text: FRAME.assign(g=np.where(FRAME.x1 > 0, text, np.where(FRAME.x2 > 0, "a", "b"))) for text in HOSTILE}
FIT = IPWRA.from_formula("y ~ x1", FRAME, treat="d").fit()
POOLED = pool([FIT, IPWRA.from_formula("y ~ x1", simulate(120, seed=5), treat="d").fit()])
PAIR = compare("y ~ x1", FRAME, treat="d", estimators=["Unadjusted", "IPWRA"], n_boot=20)
TABLES = {  # function: argument -> a table with a text there
    etable: {
        "results": lambda text: etable({text: FIT}),
        "names": lambda text: etable([FIT], names=[text]),
        "rename": lambda text: etable([FIT], rename={"ATE": text}),
        "extra": lambda text: etable([FIT], extra={text: [text]}),
        "title": lambda text: etable([FIT], title=text),
        "notes": lambda text: etable([FIT], notes=[text]),
    },
    table_one: {
        "data": lambda text: table_one(["g"], NAMED[text], by="d"),
        "by": lambda text: table_one(["x1"], NAMED[text], by="g"),
        "levels": lambda text: table_one(["x1"], FRAME, by="d", levels={0: text, 1: "one"}),
        "weights": lambda text: table_one(
            ["x1"], FRAME.rename(columns={"c": text}), by="d", weights=text, weight_type="probability"
        ),
        "names": lambda text: table_one(["x1"], FRAME, by="d", names={"x1": text}),
        "title": lambda text: table_one(["x1"], FRAME, by="d", title=text),
        "notes": lambda text: table_one(["x1"], FRAME, by="d", notes=[text]),
    },
    FIT.table_one: {
        "also": lambda text: FIT.table_one(also="~ g", data=NAMED[text]),
        "data": lambda text: FIT.table_one(also="~ g", data=NAMED[text]),
        "names": lambda text: FIT.table_one(names={"x1": text}),
        "title": lambda text: FIT.table_one(title=text),
        "notes": lambda text: FIT.table_one(notes=[text]),
    },
    FIT.summary: {
        "title": lambda text: FIT.summary(title=text),
        "yname": lambda text: FIT.summary(yname=text),
        "xname": lambda text: FIT.summary(xname=["ATE", text, text]),
    },
    PAIR.summary: {"title": lambda text: PAIR.summary(title=text)},
    POOLED.summary: {"title": lambda text: POOLED.summary(title=text)},
}
NO_TEXTS = {  # arguments that are numbers, or names of what is there
    "keep", "drop", "below", "stars", "alpha", "statistics", "covariates", "treated", "reference", "weight_type",
    "overall", "median", "threshold", "interactions", "coefficients", "slim", "digits", "more", "others",
}  # fmt: skip


@pytest.mark.parametrize("function", TABLES, ids=lambda function: function.__qualname__)
def test_every_argument_is_tried(function):
    assert set(inspect.signature(function).parameters) - NO_TEXTS == set(TABLES[function])


@pytest.mark.parametrize("text", HOSTILE)
def test_texts_are_shown_and_do_nothing(text, tmp_path):
    pytest.importorskip("maketables")
    for function, arguments in TABLES.items():
        for number, (argument, made) in enumerate(arguments.items()):
            table, where = made(text), (function.__qualname__, argument)
            latex, markdown, page = table.as_latex(), table.as_markdown(), table.as_html()
            assert r"\input{" not in latex and "\n\n" not in latex, where
            assert not re.search(r"(?<!\\)%|(?<!\\)\$m", latex), where
            assert not re.search(r"^# |^\| b |(?<!\\)<|\]\(|(?<!\\)&amp;|(?<!\\)\*b", markdown, re.MULTILINE), where
            assert "<script" not in page, where
            assert "\x1b" not in str(table), where
            if number != 1 % len(arguments):
                continue
            # The other endings are the texts above; Word's refuses control characters, and a page would run a script.
            if "\x1b" in text:
                table.save(tmp_path / "t.docx")
            if "<script" in text:
                assert "<script" not in table.save(tmp_path / "t.html").read_text("utf-8"), where


@pytest.mark.parametrize("text", HOSTILE)
def test_captions(text):
    latex = etable([FIT]).as_latex(caption=text)
    assert r"\input{" not in latex and "\n\n" not in latex


def test_usual_labels_stay_as_they_are():
    for label in ("tab:c", "tab:main_effects-2", "sec.1/Tabelle+ä"):
        assert rf"\label{{{label}}}" in etable([FIT]).as_latex(label=label)

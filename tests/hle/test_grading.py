"""Grading without a judge."""

from __future__ import annotations

import math

import pytest

from causalrisk.errors import OptionError
from causalrisk.hle import grade, stated_confidence

FORMAT = "Explanation: some steps.\n{}: {}\nConfidence: 80%"


@pytest.mark.parametrize("given", ["B", "b", "(B)", "**B**", "B.", "B) Paris", "B: Paris", "Option B", " B \n"])
def test_letters_that_agree(given):
    assert grade(FORMAT.format("Answer", given), "B", "multipleChoice")
    assert grade(given, "B", "multipleChoice")
    assert not grade(given, "C", "multipleChoice")


@pytest.mark.parametrize(("given", "answer"), [("I do not know", "I"), ("I'm unsure", "I"), ("Both", "B"), ("", "A")])
def test_words_are_not_letters(given, answer):
    assert not grade(given, answer, "multipleChoice")


@pytest.mark.parametrize(
    ("given", "answer"),
    [
        ("0.50", "1/2"),
        ("$\\boxed{42}$", "42"),
        ("1,234,567", "1234567"),
        ("\N{MINUS SIGN}3", "-3"),
        ("Paris.", "paris"),
        ("\\text{Marie  Curie}", "marie curie"),
        ("\\(x + 1\\)", "$x + 1$"),
    ],
)
def test_exact_answers_that_agree(given, answer):
    assert grade(FORMAT.format("Exact Answer", given), answer)


@pytest.mark.parametrize(
    ("given", "answer"), [("0.501", "1/2"), ("42 or 43", "42"), ("1,23", "123"), ("not Paris", "Paris"), ("1/0", "0")]
)
def test_exact_answers_that_differ(given, answer):
    assert not grade(FORMAT.format("Exact Answer", given), answer)


def test_the_last_stated_answer_counts():
    assert grade("Answer: A\nOn reflection:\n**Final Answer:** C", "C", "multipleChoice")
    assert grade("Answer: 7. Confidence: 85%", "7")
    assert grade("Answer:\n7\n", "7")


@pytest.mark.parametrize(
    ("text", "value"), [("Confidence: 85%", 85), ("**Confidence:** 7.5", 7.5), ("confidence: 0", 0)]
)
def test_stated_confidence(text, value):
    assert stated_confidence(f"Confidence: 1%\n{text}") == value


@pytest.mark.parametrize("text", ["", "Confidence: high", "Confidence: 850%", "90%"])
def test_no_stated_confidence(text):
    assert math.isnan(stated_confidence(text))


def test_unknown_answer_type():
    with pytest.raises(OptionError, match=r"answer_type='multiplechoice'.*\n.*multipleChoice"):
        grade("A", "A", "multiplechoice")

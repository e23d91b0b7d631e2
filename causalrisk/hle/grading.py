"""Grading without a judge: the answer and the confidence that a response states, compared with the right answer."""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction

from causalrisk.errors import one_of

ANSWER_TYPES = ("exactMatch", "multipleChoice")
ANSWER = re.compile(r"^[^\w\n]*(?:exact |final )?answer[^\w\n]*:", re.I | re.M)
CONFIDENCE = re.compile(r"[^\w\n]*confidence[^\w\n]*:", re.I)
PERCENT = re.compile(r"[^\w\n]*(\d+(?:\.\d+)?)")
LETTER = re.compile(r"\W*(?:(?:option|choice)\W+)?([A-Z])(?:[^\w\s']|\s*(?:\n|$))", re.I)
NUMBER = re.compile(r"[-+]?\d+(?:\.\d+|/0*[1-9]\d*)?")
LATEX = re.compile(r"\\(?:text|mathrm|boxed)\s*\{([^{}]*)\}|\$|\\[()\[\],!;]")
DASHES = str.maketrans(dict.fromkeys("\N{MINUS SIGN}\N{EN DASH}\N{NON-BREAKING HYPHEN}", "-"))


def grade(response: str, answer: str, answer_type: str = "exactMatch") -> bool:
    r"""Grade a response by comparison, without a judge.

    Parameters
    ----------
    response : str
        Text of the model. After a line that starts with ``Answer:`` or ``Exact Answer:``, as the benchmark asks for,
        only what it says there counts; otherwise all of it.
    answer : str
        The right answer.
    answer_type : {"exactMatch", "multipleChoice"}, default "exactMatch"
        Multiple choice compares the letter, which stands alone or before punctuation. Exact matches compare numbers as
        numbers, and text without regard to case, spaces, full stops at the end, dollar signs and ``\boxed``.

    Returns
    -------
    bool
        Whether they agree. A right answer in other words counts as wrong: use a judge where that matters.

    Examples
    --------
    >>> from causalrisk.hle import grade
    >>> grade(
    ...     "Explanation: elimination.\nAnswer: (B) Paris\nConfidence: 80%",
    ...     "B",
    ...     "multipleChoice",
    ... )
    True
    >>> grade("Exact Answer: $0.50$", "1/2")
    True
    >>> grade("Exact Answer: one half", "1/2")
    False
    """
    one_of("answer_type", answer_type, ANSWER_TYPES)
    given = CONFIDENCE.split(ANSWER.split(response)[-1])[0]
    if answer_type == "multipleChoice" and re.fullmatch("[A-Z]", answer.strip(), re.I):
        letter = LETTER.match(given)
        return letter is not None and letter[1].upper() == answer.strip().upper()
    return _normal(given) == _normal(answer)


def stated_confidence(response: str) -> float:
    """Return the confidence that a response states, in percent.

    Parameters
    ----------
    response : str
        Text of the model; the last number after ``Confidence:`` counts.

    Returns
    -------
    float
        Between 0 and 100; NaN if none is stated or it is above 100.

    Examples
    --------
    >>> from causalrisk.hle import stated_confidence
    >>> stated_confidence("Answer: B. Confidence: 85%")
    85.0
    """
    _, *stated = CONFIDENCE.split(response)
    number = PERCENT.match(stated[-1]) if stated else None
    return float(number[1]) if number and float(number[1]) <= 100 else float("nan")


def _normal(text: str) -> str | Fraction:
    plain = LATEX.sub(lambda found: found[1] or "", unicodedata.normalize("NFKC", text).translate(DASHES))
    plain = " ".join(plain.casefold().split()).strip(" .*'\"`")
    digits = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", plain)
    return Fraction(digits) if NUMBER.fullmatch(digits) else plain

"""Passes over a scan in which functions of its formulas learn from all rows, such as the knots of splines."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

from causalrisk.design.formulas.evaluation import Formula, Scope
from causalrisk.design.formulas.stateful import Lesson, Question, first_lesson, stateful_calls
from causalrisk.design.scan.chunks import Piece, by_place
from causalrisk.design.scan.levels import Survey
from causalrisk.design.scan.reader import KeptRows, ScanReader, check_read, numbered, other_rows, where
from causalrisk.runtime.workers import check_wanted, flat_map


class Answers(NamedTuple):
    """Rows of a block in the sample and in the data, and its answers to the questions; none without rows."""

    n: int
    read: int
    given: list[Any]

    def beside(self, other: Answers) -> Answers:
        """Return those of other rows beside these."""
        pairs = zip(self.given, other.given, strict=False)
        both = [a.beside(b) for a, b in pairs] if self.given and other.given else self.given or other.given
        return Answers(self.n + other.n, self.read + other.read, both)


def taught(found: Survey, first: KeptRows) -> ScanReader:
    """Let all functions of the formulas learn that do, in up to four passes, more where one is inside of another.

    Parameters
    ----------
    found : Survey
        What the first pass learnt.
    first : KeptRows
        The first block that has rows in the sample.

    Returns
    -------
    ScanReader
        That of the survey, its formulas told what was learnt.
    """
    reader, scope, lessons = found.reader, _scope(first), dict[str, Lesson]()
    done: set[str] = set()
    while True:
        for call, (node, formula) in _ready(reader, done).items():
            lesson = lessons.get(call) or first_lesson(node, formula, scope, found.n)
            if lesson is None:
                done.add(call)
            else:
                lessons[call] = lesson
        if lessons:
            steps = _pass(found, reader, lessons)
            lessons = {call: step for call, step in steps.items() if not isinstance(step, str)}
            reader = reader.told({call: step for call, step in steps.items() if isinstance(step, str)})
            done |= steps.keys() - lessons.keys()
        elif not _ready(reader, done):
            return reader


def _ready(reader: ScanReader, done: set[str]) -> dict[str, tuple[ast.Call, Formula]]:
    """Return the calls that are not done, all those inside of them being done, each with its formula."""
    calls = {
        call: (node, formula)
        for formula in (reader.assigned, reader.outcome)
        for call, node in stateful_calls(formula, reader.frame).items()
        if call not in done
    }
    return {call: known for call, known in calls.items() if not any(other in call for other in calls if other != call)}


def _pass(found: Survey, reader: ScanReader, lessons: dict[str, Lesson]) -> dict[str, Lesson | str]:
    """Make a pass; return the next lesson of each call, or the call told."""
    questions = [lesson.question for lesson in lessons.values()]
    work = functools.partial(_answered, reader.without_data(), questions)
    pieces = numbered(reader, found.starts, found.read)
    answers = functools.reduce(Answers.beside, flat_map(work, pieces, 1, where), Answers(0, 0, []))
    check_read((found.read, found.n), (answers.read, answers.n))
    if any(q.search and q.search.size != tally.n for q, tally in zip(questions, answers.given, strict=True)):
        raise other_rows("a later pass read other rows than the first ones")
    return {call: lesson.after(given) for (call, lesson), given in zip(lessons.items(), answers.given, strict=True)}


def _answered(reader: ScanReader, questions: list[Question], piece: tuple[Piece, int]) -> Iterator[Answers]:
    """Put the questions to each block of a piece, whose first row has the number that comes with it."""
    for rows in reader.blocks(*piece):
        check_wanted()
        if not rows.n:
            yield Answers(0, rows.read, [])
            continue
        given = by_place(functools.partial(_answers, questions, rows), rows.places, rows.position)
        yield Answers(rows.n, rows.read, given)


def _answers(questions: list[Question], rows: KeptRows, which: Any) -> list[Any]:
    scope = _scope(rows.some(which))
    return [question.of(scope) for question in questions]


def _scope(rows: KeptRows) -> Scope:
    """Return what the names of both formulas mean in a block."""
    scopes = rows.formulas.left, rows.formulas.right, rows.formulas.assign
    return Scope(rows.variables(), {name: value for scope in scopes for name, value in scope.constants.items()})

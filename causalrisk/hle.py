"""Humanity's Last Exam: judged answers as a tidy data frame, and the scores that the benchmark reports."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from causalrisk.errors import DesignError, DesignWarning, listed, one_of, warn_user, whole_number
from causalrisk.numerics.arrays import Array
from causalrisk.numerics.resampling import seed_sequence

__all__ = ["load_judged", "score"]
REQUIRED = ("id", "category", "answer_type")
ANSWER_TYPES = ("exactMatch", "multipleChoice")
SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")
SCORED = ["arm", "answered", "correct", "confidence"]
BIN_SIZE = 100  # answers per bin of the published calibration error


def load_judged(files: Mapping[str, Any], questions: Any) -> pd.DataFrame:
    """Read the judged answers of one or more arms (conditions to compare).

    Parameters
    ----------
    files : mapping of str to path
        Judged file of each arm, in the format of the benchmark's judge: a JSON object that maps question ids to
        ``{"model", "response", "usage", "judge_response": {"correct": "yes" or "no", "confidence": 0 to 100, ...}}``.
    questions : path or DataFrame
        The questions: a DataFrame, or a file of JSON lines (.jsonl or .json), .csv or .parquet. Columns are ``id``,
        ``category`` and ``answer_type``, and optionally ``raw_subject`` and ``image``.

    Returns
    -------
    DataFrame, shape (questions x arms, 7 to 9)
        One row per question and arm, answered or not. Within an arm, the answered questions come first, in the order of
        the file. Columns: ``id``; ``arm``; ``correct`` (1 or 0; 0 without an answer, as in the benchmark);
        ``confidence`` (percent; NaN without an answer); ``answered``; ``category``; ``answer_type``; and
        ``raw_subject`` and ``has_image`` if the questions have these columns. Question texts are left out.

    Raises
    ------
    DesignError
        If a file is malformed. The message names the entry.

    Warns
    -----
    DesignWarning
        If a judged file has entries without a judgement. They count as not answered, as in the benchmark. Also if all
        confidences of an arm are between 0 and 1 and some are fractions, because percentages are expected.

    Examples
    --------
    >>> import json, tempfile
    >>> from pathlib import Path
    >>> import pandas as pd
    >>> from causalrisk import hle
    >>> file = Path(tempfile.mkdtemp()) / "judged.json"
    >>> judgement = {"correct": "yes", "confidence": 80}
    >>> _ = file.write_text(json.dumps({"q1": {"judge_response": judgement}}))
    >>> questions = pd.DataFrame({"id": ["q1", "q2"], "category": "Math"})
    >>> questions["answer_type"] = "exactMatch"
    >>> frame = hle.load_judged({"off": file}, questions)
    >>> frame[["id", "arm", "correct", "confidence", "answered"]]
       id  arm  correct  confidence  answered
    0  q1  off        1        80.0      True
    1  q2  off        0         NaN     False
    """
    table = _questions(questions)
    frame = pd.concat([_arm(str(arm), path, table) for arm, path in files.items()], ignore_index=True)
    _arms(frame)  # checks confidences
    return frame


def _arm(arm: str, path: Any, questions: pd.DataFrame) -> pd.DataFrame:
    """Return one row per question: the answered questions in the order of the file, then the others."""
    where = f"arm {arm!r} ({path})"
    entries = _parsed(Path(path).read_bytes(), where)
    if not isinstance(entries, dict):
        raise DesignError(f"{where} holds {entries!r:.40}; expected a JSON object with question ids as keys.")
    unknown = [key for key in entries if key not in questions.index]
    if unknown:
        problem = f"{len(unknown)} of {len(entries)} entries are not among the {len(questions)} questions"
        advice = "Use `questions=` with all questions asked, and select rows afterwards."
        raise DesignError(f"{where}: {problem}, such as {unknown[0]!r}.\n{advice}")
    judged = {key: entry.get("judge_response") if isinstance(entry, dict) else entry for key, entry in entries.items()}
    missing = [key for key, judgement in judged.items() if judgement is None]
    if entries and len(missing) == len(entries):
        raise DesignError(f"{where} has no 'judge_response', which the judge adds.\nRun the judge first.")
    if missing:
        problem = f"{len(missing)} of {len(entries)} entries have no judge_response, the first {missing[0]!r}"
        advice = "Run the judge again to complete the file."
        warn_user(f"{where}: {problem}; they count as not answered.\n{advice}", DesignWarning)
    found = {key: _judged(given, f"{where}: entry {key!r}") for key, given in judged.items() if given is not None}
    frame = pd.DataFrame.from_dict(found, orient="index", columns=["correct", "confidence"])
    frame = frame.reindex([*found, *questions.index.difference(found, sort=False)]).rename_axis("id").reset_index()
    frame["answered"] = frame["correct"].notna()
    frame = frame.fillna({"correct": 0}).astype({"correct": "int64", "confidence": float})
    frame.insert(1, "arm", arm)
    about = [name for name in ("category", "answer_type", "raw_subject", "has_image") if name in questions]
    return frame.join(questions[about], on="id")


def _judged(judgement: Any, place: str) -> tuple[int, float]:
    match judgement:
        case {"correct": "yes" | "no" as correct, "confidence": int() | float() as confidence}:
            if not isinstance(confidence, bool) and 0 <= confidence <= 100:
                return int(correct == "yes"), float(confidence)
    expected = "expected 'correct', which is 'yes' or 'no', and 'confidence', a number from 0 to 100"
    advice = "Judge the answer again, or remove it from the file. The question then counts as not answered."
    raise DesignError(f"{place}: judge_response is {judgement!r:.200}; {expected}.\n{advice}")


def _questions(source: Any) -> pd.DataFrame:
    """Return the text columns of the questions, and `has_image`, indexed by the id."""
    where = "questions=" if isinstance(source, pd.DataFrame) else f"questions ({source})"
    table = source if isinstance(source, pd.DataFrame) else _table(Path(source), where)
    missing = [name for name in REQUIRED if name not in table]
    if missing:
        expected = f"expected {listed(REQUIRED)}, found {listed(list(table)) or 'none'}"
        advice = "Rename the columns, or use the data set as published."
        raise DesignError(f"{where} has no column {listed(missing)}; {expected}.\n{advice}")
    table = table[[name for name in (*REQUIRED, "raw_subject", "image") if name in table]].astype(object)
    table = table.where(table.notna(), "").astype(str)
    for what, rows in (
        ("no id", table["id"] == ""),
        ("a duplicate id", table["id"].duplicated()),
        ("no category", table["category"] == ""),
        (f"an answer_type other than {listed(ANSWER_TYPES)}", ~table["answer_type"].isin(ANSWER_TYPES)),
    ):
        if rows.any():
            place = int(rows.to_numpy().argmax())
            row = f"row {place + 1} of {len(table)}, id {table['id'].iloc[place]!r}"
            raise DesignError(f"{where}: {row}, has {what}.\nCorrect the row, or leave it out.")
    if "image" in table:
        table["has_image"] = table.pop("image") != ""
    return table.set_index("id")


def _table(path: Path, where: str) -> pd.DataFrame:
    """Read a table of questions from a file, whose ending gives the format."""
    if path.suffix == ".csv":
        return pd.read_csv(path, dtype=str, keep_default_na=False)  # "NA" and "None" are answers
    if path.suffix == ".parquet":
        return pd.read_parquet(path)
    if path.suffix not in SUFFIXES:
        raise DesignError(f"{where}: expected a file ending in {listed(SUFFIXES)}.\nConvert it, or rename the file.")
    lines = enumerate(path.read_bytes().splitlines(), 1)
    return pd.DataFrame([_parsed(line, f"{where}, line {number}") for number, line in lines if line.strip()])


def _parsed(text: bytes, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise DesignError(f"{where} is not JSON: {error}.\nCheck that the file is complete.") from error


def score(frame: pd.DataFrame, binning: str = "all", *, n_boot: int = 999, rng: Any = 0) -> pd.DataFrame:
    """Score every arm as the benchmark does, and also on its answered questions alone.

    Parameters
    ----------
    frame : DataFrame
        Data frame from `load_judged`, or some of its rows. Only these rows count.
    binning : {"all", "published"}, default "all"
        Definition of the calibration error. Answers are sorted by confidence and cut into bins of 100. With "all",
        every bin counts. Answers with equal confidence get their mean gap, so their order does not matter. With
        "published", the last, most confident bin is left out, as in the benchmark's scoring code.
    n_boot : int, default 999
        Number of resamples for the standard error of the calibration error.
    rng : int, Generator, SeedSequence or None, default 0
        Source of randomness.

    Returns
    -------
    DataFrame, one row per arm, in percent except the counts

        - ``accuracy``: correct answers among all questions, with two decimals. A missing answer counts as wrong.
        - ``half_width``: half width of the 95% interval of ``accuracy``, 1.96 sqrt(accuracy (100 - accuracy) /
          n_questions), with two decimals.
        - ``calibration_error``: root mean squared gap between stated confidence and accuracy. It is rounded to a whole
          percent with "published", and NaN if no answer has a confidence.
        - ``calibration_error_se``: bootstrap standard error of the calibration error.
        - ``n_questions``, ``answered``: counts.
        - ``accuracy_answered``, ``half_width_answered``: accuracy and half width among the answered questions.

    Raises
    ------
    DesignError
        If columns are missing or have values that `load_judged` does not give. With "published", also if an arm has
        fewer than 100 answers.

    Warns
    -----
    DesignWarning
        If binning is "published" and an arm has fewer than 200 answers. Its only bin is left out, and the error is 0.
        Also if the confidences of an arm are all between 0 and 1, as in `load_judged`.

    Notes
    -----
    The half width is for one arm, not for a difference between arms, which answer the same questions. For a
    difference, fit a model with ``cluster="id"``.

    Examples
    --------
    >>> from causalrisk import datasets, hle
    >>> scores = hle.score(datasets.load_hle())
    >>> scores[["accuracy", "half_width", "answered", "accuracy_answered"]]
               accuracy  half_width  answered  accuracy_answered
    arm
    off           18.17        3.09       600              18.17
    on            21.33        3.28       409              31.30
    unlimited     28.33        3.61       600              28.33
    """
    one_of("binning", binning, ("all", "published"))
    whole_number("n_boot", n_boot, 2, 999)
    arms, table = _arms(frame), []
    for (arm, rows), seed in zip(arms.items(), seed_sequence(rng).spawn(len(arms)), strict=True):
        answered, calibration = rows[rows["answered"]], _calibration(arm, rows, binning, n_boot, seed)
        table.append((*_accuracy(rows), *calibration, len(rows), len(answered), *_accuracy(answered)))
    columns = [
        "accuracy", "half_width", "calibration_error", "calibration_error_se", "n_questions", "answered",
        "accuracy_answered", "half_width_answered",
    ]  # fmt: skip
    return pd.DataFrame(table, columns=columns, index=pd.Index(list(arms), name="arm"))


def _arms(frame: pd.DataFrame) -> dict[Any, pd.DataFrame]:
    missing = [name for name in SCORED if name not in getattr(frame, "columns", ())]
    if missing:
        raise DesignError(f"the frame has no column {listed(missing)}.\nUse `frame = load_judged(...)`.")
    stated = pd.to_numeric(frame["confidence"], errors="coerce").astype(float)
    known = frame["arm"].notna() & (frame["confidence"].isna() | stated.between(0, 100))
    wrong = frame.loc[~(known & frame[["answered", "correct"]].isin([0, 1]).all(axis=1)), SCORED]
    if len(wrong):
        found = f"{len(wrong)} of {len(frame)} rows cannot be scored, such as {wrong.astype(object).iloc[0].to_dict()}"
        expected = "expected an arm, 'answered' True or False, 'correct' 1 or 0, and 'confidence' from 0 to 100 or NaN"
        raise DesignError(f"{found}; {expected}.\nCorrect these rows, or leave them out.")
    frame = frame.assign(confidence=stated).astype({"answered": bool, "correct": int})
    arms = frame.groupby("arm", sort=False, observed=True)
    for arm, stated in arms["confidence"]:
        if stated.max() <= 1 and (stated % 1 > 0).any():  # shares, which would count as percentages
            problem = "every confidence is between 0 and 1; expected percentages, so 0.8 counts as 0.8%"
            warn_user(f"arm {arm!r}: {problem}.\nIf they are shares, multiply them by 100.", DesignWarning)
    return dict(iter(arms))


def _accuracy(rows: pd.DataFrame) -> tuple[float, float]:
    """Return accuracy and half width in percent, both rounded as published."""
    n = len(rows)
    if not n:
        return np.nan, np.nan
    accuracy = round(100 * float(rows["correct"].sum()) / n, 2)
    return accuracy, round(1.96 * (accuracy * (100 - accuracy) / n) ** 0.5, 2)


def _by_confidence(stated: Array, values: Array) -> Array:
    """Return the values in the order of confidence. Values with equal confidence are replaced by their mean."""
    _, level, count = np.unique(stated, return_inverse=True, return_counts=True)
    return np.repeat(np.bincount(level, values) / count, count)


def _root_mean_square(gaps: Array, binning: str) -> Any:
    """Return the calibration error, given gaps between confidence and correctness in the order of confidence.

    A bin has `BIN_SIZE` answers; the last bin also has the remaining answers.
    """
    starts = np.arange(max(len(gaps) // BIN_SIZE, 1)) * BIN_SIZE
    n = np.diff(starts, append=len(gaps))
    terms = n / len(gaps) * (np.add.reduceat(gaps, starts) / n) ** 2
    return np.sqrt((terms if binning == "all" else terms[:-1]).sum())


def _calibration(arm: str, rows: pd.DataFrame, binning: str, n_boot: int, seed: Any) -> tuple[float, float]:
    """Return the calibration error and its standard error in percent; the published error is a whole number."""
    rows = rows[rows["answered"] & rows["confidence"].notna()]
    stated, published, m = rows["confidence"].to_numpy() / 100, binning == "published", len(rows)
    gaps = stated - rows["correct"].to_numpy()
    if not m:
        return np.nan, np.nan
    if published and m < 2 * BIN_SIZE:
        problem, advice = f"arm {arm!r} has {m} answers with a confidence", 'Use `binning="all"`.'
        if m < BIN_SIZE:
            raise DesignError(f'{problem}: binning="published" needs at least {BIN_SIZE}.\n{advice}')
        left_out = 'binning="published" leaves out their only bin, so the calibration error is always 0'
        warn_user(f"{problem}: {left_out}.\n{advice}", DesignWarning)
    sorted_gaps = gaps[np.argsort(stated)] if published else _by_confidence(stated, gaps)
    error, generator = float(_root_mean_square(sorted_gaps, binning)), np.random.default_rng(seed)
    drawn = (generator.integers(m, size=m) for _ in range(n_boot))
    errors = [_root_mean_square(_by_confidence(stated[i], gaps[i]), binning) for i in drawn]
    return float(round(100 * round(error, 2))) if published else 100 * error, 100 * float(np.std(errors, ddof=1))

"""Judged files: the golden case, the published rules, malformed files, and paired arms. All files are made up."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pandas as pd
import pytest

import causalrisk as cr
from causalrisk import hle
from causalrisk.errors import DesignError, DesignWarning, OptionError
from tests.reference.make_datasets import hle as simulated


def judgement(correct="no", confidence=50):
    return {
        "correct_answer": "1", "model_answer": "2", "reasoning": "", "correct": correct, "confidence": confidence,
    }  # fmt: skip


def judged(correct="no", confidence=50):
    return {"model": "m", "response": "r", "usage": {}, "judge_response": judgement(correct, confidence)}


def questions(n):
    kinds = ["exactMatch", "exactMatch", "exactMatch", "multipleChoice"]
    return pd.DataFrame(
        {
            "id": [f"q{k}" for k in range(n)],
            "question": "?",
            "image": ["data:," if k % 7 == 0 else "" for k in range(n)],
            "answer": ["A" if k % 4 == 3 else str(k) for k in range(n)],
            "answer_type": [kinds[k % 4] for k in range(n)],
            "category": [["Math", "Physics", "Other"][k % 3] for k in range(n)],
            "raw_subject": "none",
        }
    )


@pytest.fixture
def write(tmp_path):
    def write(content, name="judged.json"):
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return path

    return write


def load(write, entries, n=5):
    return hle.load_judged({"arm": write(entries)}, questions(n))


def test_golden_case(write):
    entries = {f"q{k}": judged("yes" if k % 5 == 0 else "no", 50 + k % 50) for k in range(400)}
    row = hle.score(load(write, entries, 2500), binning="published").loc["arm"]
    assert (row["accuracy"], row["half_width"], row["calibration_error"]) == (3.2, 0.69, 42.0)
    assert (row["n_questions"], row["answered"], row["accuracy_answered"]) == (2500, 400, 20)
    assert row["half_width_answered"] == 3.92  # 1.96 sqrt(20 * 80 / 400)
    confidence = np.repeat(np.arange(50, 100), 8).reshape(4, 100)  # right where it is a multiple of five
    gap = confidence.mean(axis=1) - 100 * (confidence % 5 == 0).mean(axis=1)
    every_bin = hle.score(load(write, entries, 2500)).loc["arm", "calibration_error"]
    assert every_bin == pytest.approx((gap**2).mean() ** 0.5)


def test_accuracy_is_rounded_first_and_the_half_width_from_it(write):
    """One of seven: 1.96 sqrt(14.29 * 85.71 / 7) is 25.925..., 1.96 sqrt((100 / 7) (600 / 7) / 7) is 25.923."""
    row = hle.score(load(write, {"q0": judged("yes")}, 7)).loc["arm"]
    assert (row["accuracy"], row["half_width"]) == (14.29, 25.93)


def test_frame_has_a_row_for_every_question_and_arm(write):
    first = write({"q3": judged("yes", 90), "q1": judged("no", 10)}, "first.json")
    second = write({"q0": judged("yes", 70)}, "second.json")
    frame = hle.load_judged({"a": first, "b": second}, questions(5))
    assert frame["id"].tolist() == ["q3", "q1", "q0", "q2", "q4", "q0", "q1", "q2", "q3", "q4"]
    assert frame["arm"].tolist() == ["a"] * 5 + ["b"] * 5
    assert frame["correct"].tolist() == [1, 0, 0, 0, 0, 1, 0, 0, 0, 0]
    assert frame["answered"].tolist() == [True, True, False, False, False, True, False, False, False, False]
    assert frame["confidence"].fillna(-1).tolist() == [90, 10, -1, -1, -1, 70, -1, -1, -1, -1]
    assert frame["category"].tolist()[:2] == ["Math", "Physics"]
    assert frame["has_image"].tolist()[:3] == [False, False, True]
    assert not {"question", "image", "answer"} & set(frame)
    assert hle.score(frame)[["accuracy", "n_questions"]].to_numpy().tolist() == [[20, 5], [20, 5]]
    assert hle.score(frame[~frame["has_image"]])["n_questions"].tolist() == [4, 4]


def test_arm_without_answers(write):
    row = hle.score(load(write, {})).loc["arm"]
    assert row[["accuracy", "half_width", "n_questions", "answered"]].tolist() == [0, 0, 5, 0]
    unknown = ["calibration_error", "calibration_error_se", "accuracy_answered", "half_width_answered"]
    assert row[unknown].isna().all()


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".parquet"])
def test_question_files(write, tmp_path, suffix):
    table = questions(9)
    table.loc[3, "category"] = "NA"
    path = tmp_path / f"questions{suffix}"
    {
        ".csv": lambda: table.to_csv(path, index=False),
        ".parquet": lambda: table.assign(image=table["image"].replace("", None)).to_parquet(path),
    }.get(suffix, lambda: table.to_json(path, orient="records", lines=True))()
    answers = write({f"q{k}": judged("yes") for k in range(9)})
    frame = hle.load_judged({"arm": answers}, path)
    pd.testing.assert_frame_equal(frame, hle.load_judged({"arm": answers}, table))
    assert frame["category"].tolist() == table["category"].tolist()
    assert frame["has_image"].tolist() == [k % 7 == 0 for k in range(9)]


def test_entries_without_a_judgement_in_a_judged_file_are_told_of(write):
    entries = {"q0": judged("yes"), "q1": {"response": "Answer: 1"}, "q2": {"response": "x", "judge_response": None}}
    with pytest.warns(DesignWarning, match=r"2 of 3 entries have no judge_response, the first 'q1'"):
        frame = load(write, entries)
    assert frame["answered"].sum() == 1


MALFORMED = {
    "not json": ('{"q0": ', r"is not JSON: .*\nCheck that the file is complete"),
    "a list": ([1], r"holds \[1\]; expected a JSON object with question ids as keys"),
    "entry no object": ({"q0": judged(), "q1": "B"}, r"entry 'q1': judge_response is 'B'; expected 'correct'"),
    "nothing in it": ({"q0": {"model": "m"}}, r"has no 'judge_response', which the judge adds"),
    "unknown id": ({"x9": judged(), "q0": judged()}, r"1 of 2 entries are not among the 5 questions, such as 'x9'"),
    "no object": (
        {"q1": {"judge_response": "yes"}},
        r"entry 'q1': judge_response is 'yes'; expected 'correct', .*\nJudge the answer again",
    ),
    "no verdict": ({"q1": {"judge_response": {"confidence": 5}}}, r"entry 'q1': judge_response is {'confidence': 5}"),
    "odd verdict": ({"q1": judged("Yes!")}, r"entry 'q1': judge_response is .*'Yes!'.*; expected .*'yes' or 'no'"),
    "text": ({"q1": judged("no", "80")}, r"entry 'q1': judge_response is .*'80'.*; expected .* 0 to 100"),
    "bool": ({"q1": judged("no", True)}, r"entry 'q1': judge_response is .*True"),
    "too sure": ({"q1": judged("no", 101)}, r"entry 'q1': judge_response is .*101"),
    "nan": ('{"q1": {"judge_response": {"correct": "no", "confidence": NaN}}}', r"entry 'q1': .* 'confidence': nan"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_files_are_refused_by_entry(write, case):
    content, message = MALFORMED[case]
    with pytest.raises(DesignError, match=rf"arm 'arm' \(.*judged\.json\).*{message}"):
        load(write, content)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda table: table.drop(columns="category"),
            r"no column 'category'; expected 'id', 'category', 'answer_type'",
        ),
        (lambda table: table.assign(id="q0"), r"id 'q0', has a duplicate id"),
        (lambda table: table.assign(answer_type="open"), r"id 'q0', has an answer_type other than"),
    ],
)
def test_malformed_questions(write, change, message):
    with pytest.raises(DesignError, match=message):
        hle.load_judged({"arm": write({"q0": judged("yes")})}, change(questions(3)))


def test_malformed_question_files(write):
    answers = write({})
    with pytest.raises(DesignError, match=r"questions\.jsonl\), line 3 is not JSON"):
        hle.load_judged({"arm": answers}, write('{"id": "q0"}\n\n{"id":\n', "questions.jsonl"))
    with pytest.raises(DesignError, match=r"expected a file ending in '\.jsonl', '\.json', '\.csv', '\.parquet'"):
        hle.load_judged({"arm": answers}, write("", "questions.xlsx"))


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        ("", "q.jsonl", r"no column 'id', 'category', 'answer_type'; .*, found none\.\nRename"),
        ("id;category;answer_type\nq0;Math;exactMatch\n", "q.csv", r"found 'id;category;answer_type'"),
        ("id,category,answer_type\nq0,Math,exactMatch\n,Math,exactMatch\n", "q.csv", r"row 2 of 2, id '', has no id"),
        ("id,category,answer_type\nq0,,exactMatch\n", "q.csv", r"id 'q0', has no category"),
    ],
)
def test_question_files_that_cannot_be_read(write, tmp_path, content, name, message):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DesignError, match=rf"questions \(.*{message}"):
        hle.load_judged({"arm": write({})}, tmp_path / name)


def test_shares_for_confidences_are_told_of(write):
    with pytest.warns(DesignWarning, match=r"every confidence is between 0 and 1; .*\nIf they are shares, multiply"):
        load(write, {"q0": judged("yes", 0.8), "q1": judged("no", 1)})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(write, {"q0": judged("yes", 1), "q1": judged("no", 0)})


def test_published_binning_with_few_answers(write):
    def answered(n):
        return load(write, {f"q{k}": judged("no", 80) for k in range(n)}, 200)

    with pytest.raises(DesignError, match=r"arm 'arm' has 99 answers .* at least 100\.\nUse"):
        hle.score(answered(99), binning="published")
    with pytest.warns(DesignWarning, match=r"arm 'arm' has 199 answers .* leaves out their only bin"):
        assert hle.score(answered(199), binning="published").loc["arm", "calibration_error"] == 0
    assert hle.score(answered(99)).loc["arm", "calibration_error"] == pytest.approx(80)


def test_order_of_answers_with_equal_confidence_changes_nothing(write):
    """Each has their mean: 15 of 30 answers at 50% are correct."""
    first = {f"q{k}": judged("yes" if k < 15 else "no", 50) for k in range(30)}
    first |= {f"q{k}": judged("yes" if k < 120 else "no", 90) for k in range(30, 200)}
    frames = [load(write, entries, 200) for entries in (first, dict(reversed(first.items())))]
    scores = [hle.score(frame)["calibration_error"]["arm"] for frame in frames]
    level = 90 / 170  # share correct at 90%
    low = 0.7 * (0.9 - level)  # the 30 answers at 50% have no gap
    assert scores == pytest.approx([100 * ((low**2 + (0.9 - level) ** 2) / 2) ** 0.5] * 2)


def published(confidence, correct, beta=100):
    """The formula as stated with the benchmark: k = m // beta bins, the last stretched, and the loop one bin short."""
    order = np.argsort(confidence)
    confidence, correct, m = confidence[order], correct[order], len(confidence)
    edges = [[i * beta, (i + 1) * beta] for i in range(m // beta)]
    edges[-1][1] = m
    total = 0.0
    for low, high in edges[:-1]:
        total += (high - low) / m * (confidence[low:high].mean() - correct[low:high].mean()) ** 2
    return total**0.5


def answers_of(confidence, correct):
    columns = {"arm": "a", "answered": True, "correct": correct.astype(int), "confidence": 100 * confidence}
    return pd.DataFrame(columns)


@pytest.fixture(scope="module")
def answers():
    draw = np.random.default_rng(3)
    confidence = draw.random(1234).round(2)
    return confidence, (draw.random(1234) < confidence**2).astype(float)


@pytest.mark.parametrize("m", [200, 250, 1234])
def test_published_binning_is_the_published_formula(answers, m):
    confidence, correct = answers[0][:m], answers[1][:m]
    found = hle.score(answers_of(confidence, correct), "published", n_boot=2)["calibration_error"]["a"]
    assert found == round(100 * published(confidence, correct))


@pytest.mark.parametrize("bins", [slice(0, None), slice(0, -1)], ids=["all", "published"])
def test_bootstrap_error_of_the_calibration_against_a_plain_one(answers, bins):
    """Drawn answers are sorted with ties in random order, which adds little to the error."""
    confidence, correct = answers
    draw, errors = np.random.default_rng(8), []
    for _ in range(2000):
        rows = draw.integers(len(confidence), size=len(confidence))
        gap = (confidence - correct)[rows[np.argsort(confidence[rows] + 1e-6 * draw.random(len(rows)))]]
        parts = np.split(gap, np.arange(100, 1200, 100))[bins]
        errors.append(np.sqrt(sum(len(part) * part.mean() ** 2 for part in parts) / len(gap)))
    options = {"binning": "all" if bins.stop is None else "published", "n_boot": 2000, "rng": 9}
    se = hle.score(answers_of(confidence, correct), **options)["calibration_error_se"]["a"]
    assert se == pytest.approx(100 * np.std(errors, ddof=1), rel=0.08)  # each has a Monte Carlo error of 1.6%


def test_frames_that_cannot_be_scored(write):
    frame = load(write, {"q0": judged()})
    with pytest.raises(DesignError, match=r"no column 'answered'\.\nUse `frame = load_judged"):
        hle.score(frame.drop(columns="answered"))
    with pytest.raises(OptionError, match="binning='publish'"):
        hle.score(frame, binning="publish")


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("correct", None), ("correct", "yes"), ("correct", 2), ("answered", None), ("answered", "no"), ("arm", None),
        ("confidence", 101), ("confidence", -1), ("confidence", "high"),
    ],
)  # fmt: skip
def test_values_that_cannot_be_scored_are_refused(write, column, value):
    frame = load(write, {f"q{k}": judged() for k in range(3)}, 3).astype(object)
    frame.loc[1, column] = value
    with pytest.raises(DesignError, match=f"1 of 3 rows cannot be scored, such as .*'{column}': {value!r}"):
        hle.score(frame)


def test_numbers_for_true_and_false_and_shares_for_percent(write):
    frame = load(write, {"q0": judged("yes", 80), "q1": judged("no", 60)})
    scores = hle.score(frame)
    pd.testing.assert_frame_equal(hle.score(frame.astype({"answered": float, "correct": bool})), scores)
    with pytest.warns(DesignWarning, match=r"arm 'arm': every confidence is between 0 and 1"):
        hle.score(frame.assign(confidence=frame.confidence / 100))


def test_bootstrap_error_is_reproducible_and_arms_have_their_own_draws(write):
    path = write({f"q{k}": judged("yes" if k % 3 == 0 else "no", k % 100) for k in range(500)})
    frame = hle.load_judged({"a": path, "b": path}, questions(500))
    scores = hle.score(frame)
    pd.testing.assert_frame_equal(scores, hle.score(frame))
    assert scores["calibration_error"].nunique() == 1
    assert scores["calibration_error_se"].nunique() == 2
    assert hle.score(frame, rng=1)["calibration_error_se"]["a"] != scores["calibration_error_se"]["a"]


# Two arms that answered the same questions.


@pytest.fixture(scope="module")
def paired():
    frame = simulated(n=2500, seed=5)
    return frame[frame["arm"] != "on"].replace({"arm": {"unlimited": "on"}})


def test_example_has_the_columns_of_judged_files(write):
    example = cr.datasets.load_hle()
    judged_arm = load(write, {"q0": judged("yes", 80)}).drop(columns="raw_subject")
    pd.testing.assert_series_equal(example.dtypes, judged_arm.dtypes)


@pytest.mark.parametrize("estimator", [cr.OutcomeRegression, cr.IPWRA])
def test_fully_paired_arms(paired, estimator):
    """The clustered error (no small-sample factor) is the paired one with divisor n; Student's has n - 1 inside."""
    formula = "correct ~ C(category) + C(answer_type)"
    res = estimator.from_formula(formula, paired, treat="arm", reference="off", cluster="id").fit()
    wide = paired.pivot(index="id", columns="arm", values="correct")
    difference, n = wide["on"] - wide["off"], len(wide)
    student = difference.std(ddof=1) / n**0.5
    assert res.effect == pytest.approx(difference.mean(), abs=1e-12)
    assert res.effect_se == pytest.approx(difference.std(ddof=0) / n**0.5, rel=1e-9)
    assert res.effect_se * (n / (n - 1)) ** 0.5 == pytest.approx(student, rel=1e-9)
    unclustered = estimator.from_formula(formula, paired, treat="arm", reference="off").fit()
    assert unclustered.effect_se > 1.5 * res.effect_se  # as if the arms had answered different questions


def test_unequal_subsets_need_adjustment():
    """Time runs out in hard questions: answers alone flatter the tools, counting as wrong hides them."""
    frame = simulated(n=8000, seed=1)
    frame = frame[frame["arm"] != "unlimited"]
    scores = hle.score(frame, n_boot=2)
    truth = 8  # percentage points, in every category
    assert scores.loc["on", "accuracy_answered"] - scores.loc["off", "accuracy_answered"] > truth + 2
    assert scores.loc["on", "accuracy"] - scores.loc["off", "accuracy"] < truth - 2
    res = cr.IPWRA.from_formula(
        "correct ~ C(category) + C(answer_type)", frame[frame["answered"]], treat="arm", reference="off", cluster="id"
    ).fit()
    assert abs(100 * res.effect - truth) < 3 * 100 * res.effect_se
    assert 100 * res.effect_se < 0.7

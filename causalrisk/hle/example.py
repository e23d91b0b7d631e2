"""Made-up questions and answers in the benchmark's format, to try things on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from causalrisk.errors import whole_number
from causalrisk.numerics.multiplicities import seed_sequence

# Category: share of the questions, chance of a right answer without tools, chance of running out of time with them.
CATEGORIES = {
    "Math": (0.41, 0.10, 0.45),
    "Biology/Medicine": (0.11, 0.35, 0.10),
    "Computer Science/AI": (0.10, 0.20, 0.40),
    "Physics": (0.09, 0.12, 0.40),
    "Humanities/Social Science": (0.09, 0.40, 0.05),
    "Other": (0.09, 0.30, 0.10),
    "Chemistry": (0.07, 0.20, 0.20),
    "Engineering": (0.04, 0.25, 0.20),
}
GAIN, GUESSING, IMAGES = 0.08, 0.06, 0.14
ARMS = {"tools off": (0.0, False), "tools on": (GAIN, True), "tools on, no time limit": (GAIN, False)}


def write_example(folder: Any, n: int = 600, rng: Any = 0) -> dict[str, Path]:
    """Write made-up questions and judged answers in the published format.

    One model answers every question without tools and with them. With tools it runs out of time in some questions,
    mostly the hard categories; a third file has its answers without a time limit, so that the truth is known.

    Parameters
    ----------
    folder : path
        Where to write; made if it does not exist.
    n : int, default 600
        Questions.
    rng : int, Generator, SeedSequence or None, default 0
        Source of the random numbers.

    Returns
    -------
    dict of str to Path
        ``"questions"`` (JSON lines), and the judged files ``"tools off"``, ``"tools on"`` and ``"tools on, no time
        limit"``.

    Notes
    -----
    Tools raise the chance of a right answer by 8 percentage points in every category. Both runs meet the same luck in
    a question, so that their answers go together. Nothing here comes from the benchmark but the format.
    """
    whole_number("n", n, 1)
    draw, place = np.random.default_rng(seed_sequence(rng)), Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    shares, base, timeout = (np.array(column) for column in zip(*CATEGORIES.values(), strict=True))
    category = draw.choice(len(shares), n, p=shares / shares.sum())
    choice, image = draw.random(n) < 0.24, draw.random(n) < IMAGES
    answers = np.where(choice, draw.choice(list("ABCDE"), n), draw.integers(1000, size=n).astype(str))
    luck, in_time = draw.random(n), draw.random(n) >= timeout[category]
    confidence = draw.integers(60, 101, size=n)
    ids = [f"made-up-{number:05d}" for number in range(n)]
    names = list(CATEGORIES)
    questions = [
        {
            "id": ids[i], "question": f"Made-up question {i}.", "image": "data:," if image[i] else "",
            "answer": str(answers[i]), "answer_type": "multipleChoice" if choice[i] else "exactMatch",
            "rationale": "", "raw_subject": names[category[i]], "category": names[category[i]],
        }
        for i in range(n)
    ]  # fmt: skip
    paths = {"questions": place / "questions.jsonl"}
    paths["questions"].write_text("".join(f"{json.dumps(row)}\n" for row in questions), encoding="utf-8")
    for arm, (gain, limited) in ARMS.items():
        correct = luck < base[category] + GUESSING * choice + gain
        stated = np.clip(confidence + draw.integers(-10, 11, size=n), 0, 100)
        rows = np.flatnonzero(in_time) if limited else range(n)
        entries = {
            ids[i]: _entry(arm, str(answers[i]) if correct[i] else "no idea", str(answers[i]), int(stated[i]))
            for i in rows
        }
        paths[arm] = place / f"judged_hle_{arm.replace(',', '').replace(' ', '_')}.json.json"
        paths[arm].write_text(json.dumps(entries, indent=1), encoding="utf-8")
    return paths


def _entry(model: str, given: str, right: str, confidence: int) -> dict[str, Any]:
    return {
        "model": f"made-up model, {model}",
        "response": f"Explanation: made up.\nAnswer: {given}\nConfidence: {confidence}%",
        "usage": {},
        "judge_response": {
            "correct_answer": right,
            "model_answer": given,
            "reasoning": "made up",
            "correct": "yes" if given == right else "no",
            "confidence": confidence,
        },
    }

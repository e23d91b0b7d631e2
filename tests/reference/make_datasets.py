"""Make the files in causalrisk/datasets: ``python tests/reference/make_datasets.py [PATH_OF_CAUSALDATA]``.

The path is that of the unpacked PyPI package causaldata 0.1.5 (MIT): the folder that holds castle/, nhefs/,
nsw_mixtape/ and cps_mixtape/. Without it only the made-up data are written. docs/reference/datasets.md says where each
came from.
"""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

import numpy as np
import pandas as pd

ROOT = Path(__file__).resolve().parents[2]
NHEFS = [
    "seqn", "qsmk", "wt82_71", "wt71", "wt82", "sex", "age", "race", "education", "school", "income", "marital", "ht",
    "smokeintensity", "smkintensity82_71", "smokeyrs", "exercise", "active", "death",
]  # fmt: skip
CASTLE = ["homicide", "robbery", "burglary", "population", "police", "unemployment", "poverty"]
STATES = [
    "Alabama", "Alaska", "Arizona", "Arkansas", "California", "Colorado", "Connecticut", "Delaware",
    "District of Columbia", "Florida", "Georgia", "Hawaii", "Idaho", "Illinois", "Indiana", "Iowa", "Kansas",
    "Kentucky", "Louisiana", "Maine", "Maryland", "Massachusetts", "Michigan", "Minnesota", "Mississippi",
    "Missouri", "Montana", "Nebraska", "Nevada", "New Hampshire", "New Jersey", "New Mexico", "New York",
    "North Carolina", "North Dakota", "Ohio", "Oklahoma", "Oregon", "Pennsylvania", "Rhode Island",
    "South Carolina", "South Dakota", "Tennessee", "Texas", "Utah", "Vermont", "Virginia", "Washington",
    "West Virginia", "Wisconsin", "Wyoming",
]  # fmt: skip
LALONDE = ["treat", "age", "educ", "black", "hispan", "married", "nodegree", "re74", "re75", "re78"]
EARNINGS = ["re74", "re75", "re78"]
# share of the questions, chance of a correct answer without tools, chance of running out of time with tools
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


def write(frame, name):
    text = frame.to_csv(index=False, lineterminator="\n").encode("ascii")
    (ROOT / "causalrisk" / "datasets" / name).write_bytes(gzip.compress(text, compresslevel=9, mtime=0))


def nhefs(source):
    frame = pd.read_stata(source / "nhefs" / "nhefs.dta")[NHEFS]
    return frame.apply(pd.to_numeric).convert_dtypes().round(8)


def lalonde(source):
    """The experiment, then CPS-1, whose 429 rows of CPS-3 come first, in the order of MatchIt's data."""
    names = {"hisp": "hispan", "marr": "married"}
    nsw, cps = (
        pd.read_stata(source / name / f"{name}.dta").rename(columns=names)[LALONDE]
        for name in ("nsw_mixtape", "cps_mixtape")
    )
    for frame in (nsw, cps):
        frame[EARNINGS] = frame[EARNINGS].astype("float32").astype(str)  # the shortest text, as in the original files
    matchit = pd.read_csv(ROOT / "tests" / "reference" / "lalonde614.csv.gz")
    matchit = matchit.assign(black=matchit["race"] == "black", hispan=matchit["race"] == "hispan")[LALONDE]
    matchit[EARNINGS] = matchit[EARNINGS].astype("float32").astype(str)
    whole = [name for name in LALONDE if name not in EARNINGS]
    nsw, cps, matchit = (frame.astype(dict.fromkeys(whole, int)) for frame in (nsw, cps, matchit))
    rest = {}
    for position, row in enumerate(cps.itertuples(index=False)):
        rest.setdefault(tuple(row), []).append(position)
    third = [rest[tuple(row)].pop(0) for row in matchit[matchit["treat"] == 0].itertuples(index=False)]
    parts = {"nsw": nsw, "cps3": cps.iloc[third], "cps1": cps.drop(index=third)}
    return pd.concat([part.assign(source=name) for name, part in parts.items()])


def castle(source):
    """States and years; `begins` is the year in which the law took effect, 0 for states without one."""
    frame = pd.read_stata(source / "castle" / "castle.dta").sort_values(["sid", "year"], ignore_index=True)
    frame = frame.rename(columns={"popwt": "population", "unemployrt": "unemployment"})
    first = frame[frame["post"] > 0].groupby("sid")["year"].min()
    frame["state"] = [STATES[int(number) - 1] for number in frame["sid"]]
    frame["begins"] = frame["sid"].map(first - 1).fillna(0)  # `post` marks whole years
    frame["police"] = np.exp(frame["l_police"])
    whole = {"year": int, "begins": int, "population": int}
    return frame[["state", "year", "begins", *CASTLE]].astype(whole).round(6)


def tutoring(n=2000, seed=13):
    """Pupils, tutoring and both potential scores; RandomState, because numpy never changes its stream."""
    draw = np.random.RandomState(seed)
    prior = np.clip(np.round(draw.normal(50, 10, n), 1), 15, 85)
    parent_educ = np.clip(np.round(12 + 0.08 * (prior - 50) + draw.normal(0, 2, n)), 6, 20).astype(int)
    girl = draw.binomial(1, 0.5, n)
    absences = draw.poisson(np.exp(1.5 - 0.02 * (prior - 50)))
    z = (prior - 50) / 10
    tutored = draw.binomial(1, 1 / (1 + np.exp(0.6 + 0.8 * z - 0.2 * (parent_educ - 12) + 0.1 * (absences - 5))))
    without = 52 + 7 * z + 3 * z**2 + 0.8 * (parent_educ - 12) + girl - 0.4 * absences + draw.normal(0, 5, n)
    gain = 4 - 1.5 * z + draw.normal(0, 2, n)
    scores = np.round(np.stack([without, without + gain]), 1)
    return pd.DataFrame(
        {
            "score": scores[tutored, np.arange(n)], "tutored": tutored, "prior": prior, "parent_educ": parent_educ,
            "girl": girl, "absences": absences, "score_untutored": scores[0], "score_tutored": scores[1],
        }
    )  # fmt: skip


def hle(n=600, seed=0):
    """Questions as in Humanity's Last Exam, answered without tools, with tools, and with tools but no time limit.

    Tools raise the chance of a correct answer by 8 percentage points in every category. One random number per question
    decides all three answers, so that they are correlated. With a time limit, answers in hard categories are missing.
    """
    draw = np.random.RandomState(seed)
    shares, base, timeout = (np.array(column) for column in zip(*CATEGORIES.values(), strict=True))
    category = draw.choice(len(shares), n, p=shares / shares.sum())
    choice, image = draw.uniform(size=n) < 0.24, draw.uniform(size=n) < 0.14
    luck, in_time = draw.uniform(size=n), draw.uniform(size=n) >= timeout[category]
    confidence = draw.randint(60, 101, n)
    runs = []
    for run, gain in {"off": 0, "on": 0.08, "unlimited": 0.08}.items():
        answered, stated = in_time | (run != "on"), np.clip(confidence + draw.randint(-10, 11, n), 0, 100)
        columns = {
            "id": [f"made-up-{number:05d}" for number in range(n)], "arm": run,
            "correct": answered & (luck < base[category] + 0.06 * choice + gain),
            "confidence": np.where(answered, stated, np.nan), "answered": answered,
            "category": np.array(list(CATEGORIES))[category],
            "answer_type": np.where(choice, "multipleChoice", "exactMatch"), "has_image": image,
        }  # fmt: skip
        runs.append(pd.DataFrame(columns).astype({"correct": int}))
    return pd.concat(runs, ignore_index=True)


if __name__ == "__main__":
    write(tutoring(), "tutoring.csv.gz")
    write(hle(), "hle.csv.gz")
    for folder in map(Path, sys.argv[1:]):
        write(nhefs(folder), "nhefs.csv.gz")
        write(lalonde(folder), "lalonde.csv.gz")
        write(castle(folder), "castle.csv.gz")

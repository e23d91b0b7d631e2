"""The folder of a study: what is done is not done again, parts are whole, dead workers are reported."""

from __future__ import annotations

import functools
import os
import shutil
import signal
import time
import types
from concurrent.futures.process import BrokenProcessPool

import pandas as pd
import pytest

import causalrisk as cr
from causalrisk.simulation import DESIGNS, Specified, run_study

SETTINGS = {"n": 100, "n_sims": 5, "estimators": ["Unadjusted", "IPWRA"]}


def three(trial):
    return 3.0, 1.0


class Other:
    @staticmethod
    def three(trial):
        return 30.0, 1.0


@pytest.fixture(scope="module", autouse=True)
def four_samples_at_a_time():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("causalrisk.simulation.study.CHUNK", 4)
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder with a study in two parts, and its estimates."""
    path = tmp_path_factory.mktemp("study")
    return path, run_study("strong", path=path, **SETTINGS).raw


@pytest.fixture
def folder(finished, tmp_path):
    shutil.copytree(finished[0], tmp_path, dirs_exist_ok=True)
    return tmp_path


def test_the_same_study_is_not_done_again_and_another_begins_anew(folder):
    before = {p: p.stat().st_mtime_ns for p in folder.glob("*.csv")}
    run_study("strong", path=folder, **SETTINGS)
    assert {p: p.stat().st_mtime_ns for p in folder.glob("*.csv")} == before
    for other in ({"rng": 1}, {"n_boot": 9}, {"estimators": {"Unadjusted": ("IPWRA", {"clip": (0.1, 0.9)})}}):
        found = run_study("strong", path=folder, **(SETTINGS | other))
        pd.testing.assert_frame_equal(found.raw, run_study("strong", **(SETTINGS | other)).raw, check_exact=True)
    assert len(list(folder.glob("*.csv"))) == 4 * len(before)


def test_parts_reach_the_disk_whole(finished, folder, monkeypatch):
    """A full disk while a part is written leaves no part, and the study goes on from the others."""
    for part in folder.glob("*.csv"):
        part.unlink()
    calls = []

    def full(handle):
        calls.append(handle)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as caught:
        run_study("strong", path=folder, **SETTINGS)
    assert caught.value.filename.endswith(".csv")
    assert len(list(folder.glob("*.csv"))) == 1
    assert not list(folder.glob(".*"))
    monkeypatch.undo()
    pd.testing.assert_frame_equal(run_study("strong", path=folder, **SETTINGS).raw, finished[1], check_exact=True)


def killed(trial, home):
    """End the process, unless it is that of the test."""
    if os.getpid() != home:
        os.kill(os.getpid(), signal.SIGKILL)
    return 1.0, 1.0


def test_a_worker_that_dies_is_named(tmp_path):
    estimators = {"fast": "Unadjusted", "killed": (killed, {"home": os.getpid()})}
    with pytest.raises(BrokenProcessPool):
        run_study("strong", n=100, n_sims=20, estimators=estimators, n_jobs=2, path=tmp_path)


def test_a_part_that_fails_is_told_as_it_was():
    """An error of a worker ends the others."""
    begun = time.monotonic()
    with pytest.raises(cr.OptionError, match="shrinkage"):
        run_study("strong", n=100, n_sims=100, estimators={"JRE": ("JRE", {"shrinkage": "x"})}, n_jobs=2)
    assert time.monotonic() - begun < 30


def test_functions_of_one_name_are_not_mistaken(tmp_path):
    elsewhere = types.FunctionType((lambda trial: (300.0, 1.0)).__code__, {"__name__": "elsewhere"}, "three")
    elsewhere.__qualname__ = "three"
    for function, estimate in ((three, 3.0), (Other.three, 30.0), (elsewhere, 300.0), (three, 3.0)):
        raw = run_study("strong", n=100, n_sims=2, estimators={"three": function}, path=tmp_path).raw
        assert (raw["estimate"] == estimate).all()
    assert len(list(tmp_path.glob("*.csv"))) == 3


@pytest.mark.parametrize("function", [lambda trial: (1.0, 1.0), functools.partial(three)])
def test_functions_without_a_name_of_their_own_are_refused(tmp_path, function):
    with pytest.raises(cr.OptionError, match=r"(?s)'mine' must be .*\nUse a function .* top level of a module"):
        run_study("strong", n=100, n_sims=2, estimators={"mine": function}, path=tmp_path)
    assert not list(tmp_path.iterdir())


def test_other_formulas_of_a_design_begin_anew(tmp_path):
    found = []
    for formula in ("y ~ x1", "y ~ x1 + x2"):
        design = Specified(DESIGNS["strong"], "mine", formula, "x1")
        found.append(run_study(design, n=100, n_sims=2, estimators="IPWRA", path=tmp_path).raw["estimate"])
    assert (found[0] != found[1]).all()

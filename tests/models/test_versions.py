"""Pickles say which version wrote them, and one of a newer version is refused in words."""

from __future__ import annotations

import copy
import pickle
import warnings

import joblib
import pytest

import causalrisk as cr
from causalrisk.models import results
from tests.conftest import RHS, simulate


@pytest.fixture(scope="module")
def things():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", cr.CausalRiskWarning)
        data = simulate(150)
        model = cr.IPWRA.from_formula(f"y ~ {RHS}", data, treat="d")
        return {
            "model": model,
            "results": model.fit(),
            "JRE": cr.JRE.from_formula(f"y ~ {RHS}", data, treat="d").fit(n_boot=20),
            "comparison": cr.compare(f"y ~ {RHS}", data, treat="d", estimators=["IPWRA", "AIPW"], n_boot=20),
        }


NAMES = ("model", "results", "JRE", "comparison")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_comes_back(things, name, protocol):
    back = pickle.loads(pickle.dumps(things[name], protocol))
    assert type(back) is type(things[name])
    assert repr(back) == repr(things[name])
    assert repr(copy.deepcopy(back)) == repr(copy.copy(back)) == repr(back)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("version", ["99.0", "0.3.1", "1.0.0rc1"])
def test_a_pickle_of_a_newer_version_is_refused_in_words(things, name, version, monkeypatch, tmp_path):
    monkeypatch.setattr(results, "__version__", version)
    written = pickle.dumps(things[name])
    joblib.dump(things[name], tmp_path / "fit.joblib")
    monkeypatch.undo()
    words = rf"written by causalrisk {version}; this is causalrisk \d.*\nUse `pip install 'causalrisk>={version}'"
    for load in (lambda: pickle.loads(written), lambda: joblib.load(tmp_path / "fit.joblib")):
        with pytest.raises(cr.CausalRiskError, match=words):
            load()


def test_a_newer_version_is_refused_before_what_it_holds_is_read(things, monkeypatch):
    """What a newer version adds may not exist here: the message must come first."""
    monkeypatch.setattr(results, "__version__", "99.0")
    written = pickle.dumps(things["results"], protocol=2)
    monkeypatch.undo()
    assert written.index(b"99.0") < written.index(b"FitRecord")
    with pytest.raises(cr.CausalRiskError, match=r"causalrisk 99\.0"):
        pickle.loads(written.replace(b"FitRecord", b"NotHereYet"[:9]))


@pytest.mark.parametrize("version", ["0.0.9", "0.1.0", "0.1.0rc1", "0.1"])
def test_older_ones_and_this_one_are_read(things, version, monkeypatch):
    monkeypatch.setattr(results, "__version__", version)
    written = pickle.dumps(things["results"])
    monkeypatch.undo()
    assert repr(pickle.loads(written)) == repr(things["results"])

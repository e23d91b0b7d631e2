"""Files of the command line: words for missing values, and what is never fetched."""

from __future__ import annotations

import numpy as np
import pytest

import causalrisk as cr
from causalrisk.cli import main
from tests.conftest import simulate


@pytest.fixture
def arms(tmp_path):
    """Three arms, one called None."""
    data = simulate(300)
    rng = np.random.default_rng(0)
    data["arm"] = rng.choice(["None", "A", "B"], 300)
    path = tmp_path / "none.csv"
    data.to_csv(path, index=False)
    return path, data


def test_words_named_by_na_are_missing(arms, capsys):
    path, data = arms
    call = ["fit", str(path), "y ~ x1", "--treat", "arm", "--reference", "A", "--estimator", "IPWRA", "--na", "None"]
    assert main(call) == 0
    out, err = capsys.readouterr()
    kept = data[data.arm != "None"]
    res = cr.IPWRA.from_formula("y ~ x1", kept, treat="arm", reference="A").fit()
    assert f"{res.effect:.4f}"[:6] in out
    assert err == ""


@pytest.mark.parametrize("address", ["https://example.org/data.csv", "ftp://example.org/x.csv", "file:///etc/passwd"])
def test_nothing_is_fetched(address, capsys, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("the network was asked")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    assert main(["fit", address, "y ~ x", "--treat", "d"]) == 2
    assert "is a web address; expected a file on this computer" in capsys.readouterr().err

"""Results in files."""

from __future__ import annotations

import pickle

import pandas as pd
import pytest
import statsmodels.api as sm

import causalrisk
from causalrisk import IPWRA, DesignError, OptionError, UnavailableError
from tests.conftest import simulate


@pytest.fixture(scope="module")
def model():
    return IPWRA.from_formula("y ~ x1 + C(x2 > 0)", simulate(200), treat="d")


def test_results_come_back_whole(model, tmp_path):
    res = model.fit()
    path = res.save(tmp_path / "res.pickle")
    for again in (causalrisk.load(path), sm.load(path)):
        assert str(again.summary()) == str(res.summary())
        assert again.predict(simulate(5, seed=1)).equals(res.predict(simulate(5, seed=1)))


def test_comparisons_and_tables_are_saved_too(model, tmp_path):
    both = causalrisk.compare("y ~ x1", simulate(200), treat="d", estimators=["IPW", "AIPW"], n_boot=9)
    again = causalrisk.load(both.save(tmp_path / "both.pickle"))
    assert str(again.summary()) == str(both.summary())
    table = causalrisk.etable(both)
    assert table.to_csv(tmp_path / "table.csv").read_text("utf-8") == f"{table.to_csv()}\n"


@pytest.mark.parametrize("name", ["x.parquet", "x.PQ", "x.csv.gz", "x.csv"])
def test_a_data_file_is_not_replaced(model, tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"the user's data")
    with pytest.raises(
        OptionError, match=r"the ending of a table, but .*\nUse `res\.tidy\(\)`, or `res\.save\(\"fit\.pickle\"\)`"
    ):
        model.fit().save(path)
    assert path.read_bytes() == b"the user's data"


def test_what_cannot_be_written_is_told(model, tmp_path):
    res = model.with_options(target=lambda e: e).fit()
    with pytest.raises(UnavailableError, match=r"cannot be pickled.*\nDefine it at the top level"):
        res.save(tmp_path / "res.pickle")
    assert not (tmp_path / "res.pickle").exists()


OTHERS = [
    b"no pickle",
    b"",
    pickle.dumps({"params": 1}),
    b"cnowhere\nThing\n.",  # a module that is not there
    b"ccausalrisk\nnothing_of_this_name\n.",
    b"cos\nnothing_of_this_name\n.",
    b"cbuiltins\nint\n(S'x'\ntR.",
    b"cbuiltins\nint\n(I1\nI2\nI3\ntR.",
    b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f",
    pickle.dumps(pd.DataFrame({"params": [1]})),
    pickle.dumps(sm.OLS([1.0, 2.0, 4.0], [1.0, 2.0, 3.0]).fit()),
]


@pytest.mark.parametrize("content", OTHERS, ids=range(len(OTHERS)))
def test_files_that_hold_no_results(tmp_path, content):
    path = tmp_path / "other.pickle"
    path.write_bytes(content)
    with pytest.raises(DesignError, match=r"\nUse a file that `res\.save\(\)` wrote"):
        causalrisk.load(path)

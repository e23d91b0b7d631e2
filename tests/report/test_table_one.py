"""Table 1: every number by hand, before a fit and under its weights."""

from __future__ import annotations

import re
import tracemalloc

import numpy as np
import pandas as pd
import pytest

from causalrisk import IPWRA, CausalRiskError, DesignError, OptionError, OutcomeRegression, datasets, table_one
from tests.conftest import REFERENCE, simulate


@pytest.fixture(scope="module")
def frame():
    frame = simulate(240, seed=9)
    return frame.assign(
        g=np.array(["a", "b", "c"])[np.arange(240) % 3],
        money=np.exp(8 + frame.x2).round(),
        sex=1 + np.arange(240) // 2 % 2,
        x3=frame.x3.mask(frame.index % 20 == 0),
        arm=np.where(frame.x1 > 0.8, "high", np.where(frame.d == 1, "low", "none")),
    )


def cells(table):
    return {row[0]: row[1:] for row in table.tables[0].body}


def test_before_a_fit_by_hand(frame):
    table = table_one(
        ["x1", "g", "x3", "money", "sex"], frame, by="d", levels={0: "control", 1: "treated"}, overall=True,
        median=["money"], names={"x1": "Age"},
    )  # fmt: skip
    rows, sets = cells(table), [frame, frame[frame.d == 0], frame[frame.d == 1]]
    assert table.tables[0].heads == [
        ["", "overall", "control", "treated", "SMD"],
        ["", *(f"n {len(part)}" for part in sets), ""],
    ]
    for j, part in enumerate(sets):
        mean, sd = rows["Age"][j].rstrip(")").split(" (")
        assert float(mean) == pytest.approx(part.x1.mean(), abs=5.1e-4)
        assert float(sd) == pytest.approx(part.x1.std(), abs=5.1e-4)
        assert rows["  b"][j] == f"{(part.g == 'b').sum()} ({100 * (part.g == 'b').mean():.1f}%)"
        assert rows["sex: 2"][j] == f"{(part.sex == 2).sum()} ({100 * (part.sex == 2).mean():.1f}%)"
        gone = part.x3.isna()
        assert rows["  missing"][j] == f"{gone.sum()} ({100 * gone.mean():.1f}%)"
        low, middle, high = part.money.quantile([0.25, 0.5, 0.75])
        shown = [float(x) for x in rows["money"][j].replace("[", "").replace("]", "").replace(",", "").split()]
        np.testing.assert_allclose(shown, [middle, low, high], atol=0.0051)
        label = ["overall", "control", "treated"][j]
        np.testing.assert_allclose(table.frame.loc["x3", f"mean {label}"], part.x3.mean())
        assert table.frame.loc["x3", f"missing {label}"] == gone.sum()
    assert rows["g"] == ["", "", "", ""]

    def smd(values):
        one, zero = values[frame.d == 1].dropna(), values[frame.d == 0].dropna()
        binary = values.dropna().isin([0, 1]).all()
        spread = [v.mean() * (1 - v.mean()) if binary else v.var() for v in (one, zero)]
        return (one.mean() - zero.mean()) / np.sqrt(np.mean(spread))

    columns = {"Age": frame.x1, "x3": frame.x3, "g: b": (frame.g == "b").astype(float), "money": frame.money}
    for name, values in columns.items():
        np.testing.assert_allclose(table.frame.loc[name, "SMD"], smd(values), rtol=1e-10)
    assert rows["x3"][-1].strip("* ") == f"{smd(frame.x3):z.3f}"
    assert rows["Age"][-1].endswith("*") == (abs(smd(frame.x1)) > 0.1)
    assert "Median [quartiles] where shown." in table.notes


@pytest.mark.parametrize(("target", "whose"), [("treated", "group 1"), ("control", "group 0"), ("overlap", "all rows")])
def test_differences_are_those_of_balance_for_every_target(frame, target, whose):
    res = IPWRA.from_formula("y ~ x1 + g", frame, treat="d", target=target).fit()
    table, balance = res.table_one(), res.balance(binary="std")
    for when in ("before", "after"):
        np.testing.assert_allclose(table.frame[f"SMD {when}"], balance[f"diff {when}"].iloc[1:], atol=1e-12)
    assert f"divided by the standard deviation of {whose}" in " ".join(str(table).split())


def test_agrees_with_the_balance_of_a_fit(frame):
    names = ["x1", "money", "g"]
    res = IPWRA.from_formula("y ~ x1 + money + g", frame, treat="d").fit()
    before = table_one(names, frame, by="d").frame["SMD"]
    balance = res.balance("std")
    np.testing.assert_allclose(before, balance.loc[before.index, "diff before"], rtol=1e-10)
    table = res.table_one()
    for when in ("before", "after"):
        found = table.frame[f"SMD {when}"]
        np.testing.assert_allclose(found, balance.loc[found.index, f"diff {when}"], rtol=1e-10, atol=1e-14)
    moments = res.balance(means=True).loc[table.frame.index]
    for name in ("mean 0 before", "mean 1 after", "sd 1 after"):
        np.testing.assert_allclose(table.frame[name], moments[name])
    sizes = [f"n {n:.1f}" for n in res.overlap()["effective n"]]
    assert table.tables[0].heads[2] == ["", *(f"n {n}" for n in frame.d.value_counts().sort_index()), "", *sizes, ""]
    assert max(map(len, str(table).splitlines())) <= 78


def test_of_a_fit_two_values_are_named_and_constants_noted(frame):
    res = IPWRA.from_formula("y ~ x1 + sex", frame.assign(k=3.0), treat="d").fit()
    table = res.table_one(also=["k"], data=frame.assign(k=3.0))
    assert f"{100 * (frame.sex == 2)[frame.d == 1].mean():.1f}%" in cells(table)["sex: 2"]
    assert list(table.frame.index) == ["x1", "sex: 2"]
    assert "Constant covariates are left out: k." in table.notes
    named = res.table_one(names={"sex": "Sex"})
    assert "Sex: 2" in cells(named) and "constant" not in " ".join(named.notes)


def test_a_group_without_known_values_leaves_the_differences_of_others(frame):
    table = table_one(["x3"], frame.assign(x3=frame.x3.mask(frame.g == "b")), by="g").frame
    a, c = (frame.x3[frame.g == group] for group in "ac")
    assert table.loc["x3", "SMD c"] == pytest.approx((c.mean() - a.mean()) / np.sqrt((a.var() + c.var()) / 2))
    assert np.isnan(table.loc["x3", "SMD b"])


def test_groups_in_the_order_asked_for(frame):
    table = table_one("~ x1", frame, by="arm", reference="none")
    assert table.tables[0].heads[0] == ["", "none", "high", "low", "SMD", "SMD"]
    assert list(table.frame.columns[-2:]) == ["SMD high", "SMD low"]
    ordered = frame.assign(arm=pd.Categorical(frame.arm, categories=["none", "low", "high"]))
    assert table_one("~ x1", ordered, by="arm").tables[0].heads[0][1:4] == ["none", "low", "high"]
    fit = IPWRA.from_formula("y ~ x1", frame.assign(arm=np.arange(240) % 3), treat="arm", reference=0).fit()
    assert max(map(len, str(fit.table_one()).splitlines())) <= 78
    assert list(fit.table_one().frame.filter(like="SMD").columns[:2]) == ["SMD 1 before", "SMD 2 before"]


def test_all_columns_one_group_and_rows_in_none(frame):
    everything = table_one(None, frame[["x1", "g", "d"]], by="d")
    assert "d" not in everything.frame.index
    assert table_one(["x1"], frame).tables[0].heads[0] == ["", "overall"]
    gaps = frame.assign(d=frame.d.mask(frame.index < 7))
    table = table_one(["x1"], gaps, by="d")
    assert "7 rows without d are in no group." in table.notes
    assert table.frame["n 0"].iloc[0] + table.frame["n 1"].iloc[0] == 233
    empty = table_one(["x3"], frame.assign(x3=frame.x3.mask(frame.d == 1)), by="d")
    assert cells(empty)["x3"][1:] == ["", ""]
    unmarked = table_one(["x1"], frame, by="d", threshold=None)
    assert "*" not in str(unmarked)


def test_weighted_numbers_are_those_of_r():
    births = datasets.load_cattaneo2()
    births["w"] = (1 + births.mage % 5) / (1 + births.medu % 3)
    found = pd.read_csv(REFERENCE / "r_survey_table_one.csv").set_index(["covariate", "arm"])
    names = list(found.index.levels[0])
    options = {"by": "mbsmoke", "weights": "w", "weight_type": "probability"}
    table = table_one(names, births, **options)
    for (name, arm), row in found.iterrows():
        line = table.frame.loc[name]
        assert line[f"n {arm}"] == row.n
        np.testing.assert_allclose(line[f"mean {arm}"], row["mean"], rtol=1e-12)
        if not np.isnan(line[f"sd {arm}"]):
            np.testing.assert_allclose(line[f"sd {arm}"], row.sd, rtol=1e-12)
            w = births.w[births.mbsmoke == arm] / births.w[births.mbsmoke == arm].sum()
            divided = np.sqrt((1 - (w**2).sum()) * row.n / (row.n - 1))
            np.testing.assert_allclose(line[f"sd {arm}"] * divided, row.sd_survey, rtol=1e-12)
    np.testing.assert_allclose(table.frame["SMD"], found.xs(1, level="arm").smd.loc[table.frame.index], rtol=1e-12)
    assert table.tables[0].heads[1] == ["", "n 3778", "n 864", ""]
    married = births[births.mbsmoke == 0]
    share = f"{100 * found.loc[('mmarried', 0), 'mean']:.1f}%"
    assert cells(table)["mmarried"][0] == f"{married.mmarried.sum()} ({share})"  # rows, and their weighted share
    by_median = table_one(["mage", "fage", "medu"], births, median=["fage", "medu"], **options)
    assert by_median.frame.columns[-1] == "SMD"
    quartiles = cells(by_median)
    numbers = by_median.frame[[f"{name} 0" for name in ("q25", "median", "q75")]]
    assert numbers.loc["mage"].isna().all()
    for name in ("fage", "medu"):
        np.testing.assert_array_equal(numbers.loc[name], found.loc[(name, 0), ["q25", "q50", "q75"]])
        expected = [f"{row.q50:.0f} [{row.q25:.0f}, {row.q75:.0f}]" for _, row in found.loc[name].iterrows()]
        assert quartiles[name][:2] == expected


def test_frequencies_are_rows_written_out(frame):
    weighted = frame.assign(k=np.arange(240) % 4, x3=frame.x3.where(frame.x3 < 1))
    repeated = weighted.loc[weighted.index.repeat(weighted.k)]
    options = {"by": "arm", "overall": True, "median": ["money", "x2"]}
    names = ["x1", "x2", "g", "x3", "money", "sex"]
    short = table_one(names, weighted, weights="k", weight_type="fweight", **options)
    long = table_one(names, repeated.reset_index(), **options)
    assert short.tables[0].heads == long.tables[0].heads
    assert short.tables[0].body == long.tables[0].body
    np.testing.assert_allclose(short.frame.astype(float), long.frame.astype(float), rtol=1e-12)
    assert "60 rows without a positive weight are left out." in short.notes


def test_probability_weights_are_those_of_a_fit(frame):
    weighted = frame.assign(w=np.exp(frame.x2 / 2).mask(frame.index < 9))
    options = {"weights": "w", "weight_type": "probability"}
    table = table_one(["x1", "money", "g"], weighted, by="d", **options)
    balance = IPWRA.from_formula("y ~ x1 + money + g", weighted, treat="d", **options).fit().balance("std", means=True)
    np.testing.assert_allclose(table.frame["SMD"], balance["diff before"].loc[table.frame.index], rtol=1e-10)
    for name in ("mean 1", "mean 0", "sd 0"):
        np.testing.assert_allclose(table.frame[name], balance[f"{name} before"].loc[table.frame.index], rtol=1e-10)
    larger = table_one(["x1", "money", "g"], weighted.assign(w=1e9 * weighted.w), by="d", **options)
    assert larger.tables[0].body == table.tables[0].body
    assert "w" not in table_one(None, weighted[["x1", "d", "w"]], by="d", **options).frame.index
    with pytest.raises(OptionError, match="weight_type="):
        table_one(["x1"], weighted, weights="w")


def test_differences_have_the_sign_of_the_fit(frame):
    named = frame.assign(drug=np.where(frame.d == 1, "Programme", "usual care"))
    fit = IPWRA.from_formula("y ~ x1", named, treat="drug", treated="Programme").fit().table_one().frame
    for options in ({"treated": "Programme"}, {"reference": "usual care"}):
        table = table_one(["x1"], named, by="drug", **options)
        assert table.tables[0].heads[0] == ["", "usual care", "Programme", "SMD"]
        np.testing.assert_allclose(table.frame.loc["x1", "SMD"], fit.loc["x1", "SMD before"], rtol=1e-12)
    for words, options in (
        ("(?s)treated=.none. does not set the reference.*`reference=", {"by": "arm", "treated": "none"}),
        ("name the same level", {"by": "drug", "treated": "Programme", "reference": "Programme"}),
        (r"treated= .*\n.*`by=", {"treated": "Programme"}),
    ):
        with pytest.raises(OptionError, match=words):
            table_one(["x1"], named, **options)


def test_unreadable_tables_are_refused_before_levels_are_coded():
    data = pd.DataFrame({"s": [f"l{k}" for k in range(4000)], "d": np.arange(4000) % 2, "x": np.arange(4000) / 7})
    tracemalloc.start()
    for covariates in ("~ s", "~ x + s:d", None):
        with pytest.raises(DesignError, match="'s' has 4,000 levels"):
            table_one(covariates, data, by="d")
    assert tracemalloc.get_traced_memory()[1] < 8 * 4000**2 / 4
    tracemalloc.stop()


def test_refusals(frame):
    for error, words, call in (
        (DesignError, "group 'x1' has 240 values; expected two to 20", lambda: table_one(["x2"], frame, by="x1")),
        (DesignError, "reference=.z. is not a level of treatment 'arm'.*'high'",
         lambda: table_one(["x1"], frame, by="arm", reference="z")),
        (OptionError, r"Use `table_one..x1 [+] x2., data, by=.d..`", lambda: table_one("~ x1 + x2 | d", frame)),
        (OptionError, r"median=.'x2'.; expected numeric covariates: 'x1'",
         lambda: table_one(["x1"], frame, median=["x2"])),
        (OptionError, "median=.'sex'.; expected", lambda: table_one(["x1", "sex"], frame, median="sex")),
        (OptionError, "threshold=-1", lambda: table_one(["x1"], frame, threshold=-1)),
    ):  # fmt: skip
        with pytest.raises(error, match=f"(?s){words}"):
            call()


def test_an_estimator_without_weights_describes_the_groups_before(frame):
    weights = {"weights": np.arange(1, 241), "weight_type": "probability"}
    for target in ("ATE", "ATT"):
        raw, weighted = (
            kind.from_formula("y ~ x1 + money", frame, treat="d", target=target, **weights).fit()
            for kind in (OutcomeRegression, IPWRA)
        )
        before = weighted.balance().filter(regex="before|kind|unit").drop("propensity score")
        pd.testing.assert_frame_equal(raw.balance(), before)
        table = raw.table_one()
        pd.testing.assert_frame_equal(table.frame, weighted.table_one().frame.filter(like="before"))
        assert cells(table)["x1"] == cells(weighted.table_one())["x1"][: len(cells(table)["x1"])]
        assert "Weighted by weights." in table.notes and not re.search("before|after|effective", str(table))
    assert raw.balance(threshold=0.01)["balanced"].tolist() == (raw.balance()["diff before"].abs() <= 0.01).tolist()


def test_heads_over_several_columns_are_printed_once(frame):
    lines = str(IPWRA.from_formula("y ~ x1", frame, treat="g", reference="a").fit().table_one()).splitlines()
    assert [line.split() for line in lines if "before" in line][:1] == [["before"]]
    assert next(line for line in lines if "SMD" in line).count("SMD") == 1


def test_decimals_asked_for_are_in_every_cell(frame):
    weights = {"weights": np.arange(1, 241), "weight_type": "probability"}
    res = IPWRA.from_formula("y ~ x1 + money", frame, treat="d", **weights).fit()
    for table in (table_one(["x1", "money"], frame, by="d", digits=1), res.table_one(digits=1)):
        text = " ".join([*cells(table)["x1"], *cells(table)["money"]])
        found = re.findall(r"-?[0-9]+\.([0-9]+) \([0-9]+\.([0-9]+)\)", text)
        assert len(found) >= 4 and all(len(mean) == len(sd) == 1 for mean, sd in found)
    for row in ("x1", "money"):
        decimals = {len(text) for text in re.findall(r"\.([0-9]+)[ )]", " ".join(cells(res.table_one())[row][:2]))}
        assert len(decimals) == 1
    assert 'Columns "before" are weighted by weights only.' in " ".join(res.table_one().notes)
    with pytest.raises(OptionError, match=r"digits=1\.5"):
        res.table_one(digits=1.5)


FRAME = simulate(60)


@pytest.mark.parametrize(("given", "typed"), [
    (("~ x1 + x2 | d", FRAME), 'table_one("x1 + x2", data, by="d")'),
    (("d ~ C(x1)", FRAME), 'table_one("C(x1)", data, by="d")'),
])  # fmt: skip
def test_other_ways_to_name_the_groups(given, typed):
    with pytest.raises(CausalRiskError) as caught:
        table_one(*given)
    assert str(caught.value).endswith(f"Use `{typed}`.")


def test_the_data_may_come_first():
    two = FRAME[["x1", "d"]]
    for given in ((FRAME, ["x1"], "d"), (two, None, "d"), (two.to_dict("list"), None, "d")):
        assert str(table_one(*given)) == str(table_one(["x1"], FRAME, by="d"))

"""Survey designs from a scan against the same in memory: every estimator, target and rule, whatever the blocks."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest

from causalrisk import (
    AIPW,
    IPWRA,
    JRE,
    BootstrapError,
    DesignError,
    Hajek,
    OutcomeRegression,
    Survey,
    UnavailableError,
    scan,
)
from tests.conftest import REFERENCE, in_blocks, in_parts

pytestmark = pytest.mark.filterwarnings("ignore::causalrisk.CausalRiskWarning")

F = "y ~ x1 + x2"
TWO = pd.read_csv(REFERENCE / "survey_twopsu.csv")  # 6 strata, 2 units each whose numbers begin anew
STRATA = {"weights": "pw", "strata": "stratum", "psu": "psu", "fpc": "fpc", "nest": True}
ESTIMATORS = [IPWRA, AIPW, Hajek, OutcomeRegression, JRE]


def gaps(frame=TWO):
    """Rows that miss the outcome or have no weight: all those of a unit, and all of a stratum."""
    unit = (frame.stratum == 2) & (frame.psu == 1)
    return frame.assign(
        y=frame.y.where(~unit & (np.arange(len(frame)) % 11 > 0)),
        pw=frame.pw.where((frame.stratum != 5) & (np.arange(len(frame)) % 13 > 0), 0),
    )


def lonely(rule):
    return {"weights": "pw", "strata": "stratum", "psu": "psu", "nest": True, "lonely": rule}


def cut(frame, *edges):
    return [frame[a:b] for a, b in itertools.pairwise([0, *edges, len(frame)])]


def both(estimator, data, survey, blocks=None, fit=None, **options):
    """Fits to a scan and in memory."""
    given = {"treat": "d", "design": Survey(**survey)} | options
    fit = fit or ({"n_replicates": 20} if estimator is JRE else {})
    source = in_blocks(cut(data, 31, 31)) if blocks is None else blocks
    formula = given.pop("formula", F)
    return [estimator.from_formula(formula, rows, **given).fit(**fit) for rows in (source, data)]


def agree(ours, theirs, rtol=1e-12):
    """Every digit of a scan is that of memory, up to the order of sums."""
    size = theirs.bse.max() ** 2
    np.testing.assert_allclose(ours.params, theirs.params, rtol=rtol)
    np.testing.assert_allclose(ours.cov_params(), theirs.cov_params(), rtol=rtol, atol=rtol * size)
    np.testing.assert_allclose(ours.outcome_bse, theirs.outcome_bse, rtol=1e-9)
    pd.testing.assert_frame_equal(ours.sample_ledger, theirs.sample_ledger)
    assert (ours.nobs, ours.cov_type, ours._record.df) == (theirs.nobs, theirs.cov_type, theirs._record.df)
    assert ours._record.notes == theirs._record.notes
    mine, other = ours.model.design.survey, theirs.model.design.survey
    for name in ("strata", "lonely", "strata_name", "psu_name", "fpc_name", "subpop_name", "call", "df"):
        assert getattr(mine, name) == getattr(other, name)
    for name in ("units", "fractions"):
        np.testing.assert_array_equal(getattr(mine, name), getattr(other, name))
    np.testing.assert_array_equal(ours.model.design.arm_clusters, theirs.model.design.arm_clusters)
    heads = [str(res.summary()).split("By group")[0].splitlines() for res in (ours, theirs)]
    assert heads[0][:15] == heads[1][:15]


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("options", [{"target": "treated"}, {"subpop": "psu != 2 and x1 > -1"}], ids=str)
def test_strata_units_and_populations_are_those_of_memory(estimator, options, request):
    if estimator not in (IPWRA, OutcomeRegression):
        request.getfixturevalue("in_memory")
    agree(*both(estimator, TWO, STRATA, **options), rtol=1e-9 if estimator is JRE else 1e-12)


STRATIFIED = pd.read_csv(REFERENCE / "survey_apistrat.csv")
CLUSTERED = pd.read_csv(REFERENCE / "survey_apiclus1.csv")
LONELY = pd.read_csv(REFERENCE / "survey_lonely.csv")
NAMED = TWO.assign(
    stratum=np.array(["south", "north", "east", "west", "mid", "far"])[TWO.stratum - 1], psu=TWO.psu.astype(float)
)
ORDERED = NAMED.assign(stratum=pd.Categorical(NAMED.stratum, ["south", "north", "east", "west", "mid", "far", "none"]))
API = {"formula": "api00 ~ ell + meals", "treat": "awards"}
DESIGNS = {
    "strata of rows": (STRATIFIED, {"weights": "pw", "strata": "stype", "fpc": "fpc"}, API),
    "units alone": (CLUSTERED, {"weights": "pw", "psu": "dnum", "fpc": "fpc"}, API),
    "strata in an order": (ORDERED, STRATA, {}),
    **{f"lonely={rule}": (LONELY, lonely(rule), {}) for rule in ("remove", "certainty", "adjust", "average")},
    "trimmed, subpopulation, gaps": (gaps(), STRATA, {"trim": (0.2, 0.8), "subpop": "dom"}),
    "target frame": (TWO, STRATA, {"target": TWO[TWO.x1 > 0]}),
    "three arms": (TWO.assign(d=np.arange(len(TWO)) % 3), STRATA, {"reference": 0}),
    "an offset, no weights": (
        TWO, {"strata": "stratum", "psu": "psu", "nest": True}, {"offset": "x2", "formula": "y ~ x1"},
    ),
}  # fmt: skip


BEYOND = ("strata of rows", "lonely=adjust", "target frame", "trimmed, subpopulation, gaps")


@pytest.mark.parametrize("name", DESIGNS)
def test_designs_are_those_of_memory(name, request):
    if name not in BEYOND:
        request.getfixturevalue("in_memory")
    data, survey, options = DESIGNS[name]
    agree(*both(IPWRA, data, survey, **options))


@pytest.mark.parametrize("name", ["strata of rows", "target frame", "trimmed, subpopulation, gaps", "lonely=average"])
def test_designs_of_joint_fits_are_those_of_memory(name, request):
    if name != "strata of rows":
        request.getfixturevalue("in_memory")
    data, survey, options = DESIGNS[name]
    agree(*both(JRE, data, survey, **options), rtol=1e-8)


def test_blocks_files_and_workers_make_no_difference(tmp_path):
    data, survey, options = DESIGNS["strata in an order"]
    whole = both(AIPW, data, survey, blocks=scan([data]), **options)[0]
    agree(both(AIPW, data, survey, blocks=in_blocks(cut(data, *range(7, len(data), 7))), **options)[0], whole)
    for k, part in enumerate(cut(data, 20, 50)):
        part.to_parquet(tmp_path / f"{k}.parquet")
    files = in_parts(f"{tmp_path}/*.parquet", 30)
    agree(both(AIPW, data, survey, blocks=files, fit={"n_jobs": 2}, **options)[0], whole)


REPLICATED = TWO.join(pd.read_csv(REFERENCE / "survey_twopsu_repweights.csv").filter(regex="BRR|bootstrap"))
REPLICATED = REPLICATED.rename(columns=lambda name: name.replace("sub", "rw"))
BRR = {"weights": "pw", "replicate_weights": "BRR_*", "replicate_type": "BRR"}
REPLICATIONS = {
    "rows without an outcome": (REPLICATED.assign(y=TWO.y.where(TWO.stratum != 2)), BRR, {"target": "overlap"}),
    "trimmed": (REPLICATED, BRR, {"trim": (0.2, 0.8)}),
    "factors": (
        REPLICATED.assign(**{name: REPLICATED[name] / TWO.pw for name in REPLICATED.filter(like="rw")}),
        {
            "weights": "pw", "replicate_weights": "rwbootstrap_*", "replicate_type": "JKn", "combined": False,
            "rscales": np.arange(40) / 100,
        },
        {"treat": "arm", "reference": 0},
    ),
}  # fmt: skip


def agree_replicated(estimator, data, survey, blocks=None, **options):
    data = data.assign(arm=np.arange(len(data)) % 3)
    ours, theirs = both(estimator, data, survey, blocks=blocks, **options)
    agree(ours, theirs, rtol=1e-9 if estimator is JRE else 1e-12)
    np.testing.assert_allclose(ours.boot_params, theirs.boot_params, rtol=1e-9)
    mine, other = ours.model.design.replication, theirs.model.design.replication
    np.testing.assert_array_equal(mine.scales, other.scales)
    assert (mine.kind, mine.mse, mine.df) == (other.kind, other.mse, other.df)


@pytest.mark.parametrize("name", REPLICATIONS)
def test_replicate_weights_are_those_of_memory(name, request):
    if name != "trimmed":
        request.getfixturevalue("in_memory")
    data, survey, options = REPLICATIONS[name]
    agree_replicated(IPWRA, data, survey, **options)


@pytest.mark.usefixtures("in_memory")
def test_the_score_of_a_joint_fit_is_drawn_as_in_memory():
    """Replicate weights are for the resamples: those of the score are drawn."""
    data, survey, options = REPLICATIONS["trimmed"]
    agree_replicated(JRE, data, survey, **options)


def test_replicate_weights_that_blocks_disagree_about():
    refused(cut(REPLICATED, 50), "combined=True", BRR | {"combined": False})
    refused(cut(REPLICATED.assign(BRR_2=-REPLICATED.BRR_2), 50), "negative", BRR)
    refused(cut(REPLICATED.assign(pw=TWO.pw.where(TWO.index != 60, 0)), 50), "", BRR)
    assert "BRR_3" in refused(cut(REPLICATED.assign(BRR_3=REPLICATED.BRR_3.where(TWO.index != 60)), 50), "dropna", BRR)
    refused(cut(TWO, 50), "", BRR)
    refused(cut(TWO, 50), '`replicate_weights="name"`', BRR | {"replicate_weights": REPLICATED.filter(like="BRR_")})


def test_replicate_weights_without_an_arm_leave_the_point_estimate():
    data = REPLICATED.assign(BRR_2=REPLICATED.BRR_2.where(TWO.d == 1, 0))
    for rows in (scan(cut(data, 50)), data):
        with pytest.raises(BootstrapError, match="number 2") as caught:
            IPWRA.from_formula(F, rows, treat="d", design=Survey(**BRR)).fit()
        assert caught.value.results.bse.gt(0).all()


def test_the_rescaled_bootstrap_is_refused():
    model = IPWRA.from_formula(F, scan(cut(TWO, 50)), treat="d", design=Survey(**STRATA))
    with pytest.raises(UnavailableError, match=r"data=data.collect\(\)"):
        model.fit(n_boot=20)


def refused(blocks, typed, survey=STRATA, **options):
    """What is said of a scan, and what to type in its last line."""
    with pytest.raises(DesignError) as caught:
        IPWRA.from_formula(F, scan(blocks), treat="d", design=Survey(**survey), **options)
    assert typed in str(caught.value).splitlines()[-1]
    return str(caught.value)


@pytest.mark.parametrize("role", ["pw", "stratum", "psu", "fpc"])
def test_a_block_that_misses_where_in_the_design_its_rows_belong(role):
    text = refused(cut(TWO.assign(**{role: TWO[role].where(TWO.index != 60)}), 50), "dropna")
    assert "block 2" in text and repr(role) in text


def test_strata_that_blocks_disagree_about():
    refused(cut(TWO, 50), "nest=True", STRATA | {"nest": False})
    in_order = TWO.sort_values("stratum", ignore_index=True)
    blocks = [part.reset_index(drop=True) for _, part in in_order.groupby("stratum")]  # a stratum in each
    refused(blocks, "nest=True", STRATA | {"nest": False})
    other = TWO.assign(fpc=TWO.fpc.where((TWO.index < 50) | (TWO.stratum != TWO.stratum[50]), 99))
    assert f"stratum '{TWO.stratum[50]}'" in refused(cut(other, 50), "first stage")
    assert "1.5" in refused(cut(TWO.assign(fpc=1.5), 50), "first-stage units in the population")
    text = cut(TWO, 50)
    text[1] = text[1].assign(stratum=text[1].stratum.map("s{}".format))
    refused(text, "alike")


def test_a_lonely_unit_is_one_of_all_blocks():
    refused(cut(LONELY, 50), 'lonely="adjust"', lonely("fail"))
    apart = [part for _, part in TWO.groupby(["stratum", "psu"])]  # each block has a single unit
    agree(*both(IPWRA, pd.concat(apart, ignore_index=True), STRATA, blocks=scan(apart)))


def test_subpopulations_that_are_none():
    refused(cut(TWO.assign(dom=0), 50), "condition", subpop="dom")
    refused(cut(TWO.assign(dom=TWO.dom.where(TWO.index != 60)), 50), "dropna", subpop="dom")
    agree(*both(IPWRA, TWO.sort_values("dom", ignore_index=True), STRATA, subpop="dom"))  # a block without rows in it

"""Calls as users of Stata, R and statsmodels write them by habit: each works, or its message says what to use.

Below a call stands how it prints, or, after an exclamation mark, what its message names.
"""

from __future__ import annotations

import pickle
import re

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from sklearn.linear_model import LinearRegression, LogisticRegression

import causalrisk as cr
from causalrisk import AIPW, IPWRA, Hajek, compare, datasets, etable, pool, table_one

HABITS = r"""
IPWRA.from_formula("bweight mage medu", b, treat="mbsmoke").fit()
    ! +
IPWRA.from_formula("bweight ~ mage", b, treat="(mbsmoke mage medu, probit)").fit()
    ! treat="mbsmoke", propensity="mage + medu
IPWRA.from_formula("(bweight mage mmarried, poisson) (mbsmoke mage medu, probit)", b)
    ! from_formula("y ~ x1 + x2", data, treat=
IPWRA.from_formula("teffects ipw (bweight) (mbsmoke mage medu), atet", b, treat="mbsmoke")
    ! from_formula("y ~ x1 + x2", data, treat=
IPWRA.from_formula("bweight", b, treat="mbsmoke", propensity="mage")
    ! "bweight ~ 1"
IPWRA.from_formula("bweight ~ xi: i.prenatal + mage", b, treat="mbsmoke")
    ! i.prenatal
IPWRA.from_formula("bweight ~ mage + 1.mmarried", b, treat="mbsmoke")
    ! 1.mmarried
IPWRA.from_formula("bweight ~ mage [fw=medu]", b, treat="mbsmoke")
    ! weights="medu"
IPWRA.from_formula("bweight ~ mage if mmarried == 1, vce(robust)", b, treat="mbsmoke")
    ! data.query("mmarried == 1")
IPWRA.from_formula("lbweight ~ mage, probit", b, treat="mbsmoke")
    ! Options are not part of the formula
IPWRA.from_formula("bweight ~ mage, vce(robust)", b, treat="mbsmoke")
    ! Options are not part of the formula
IPWRA.from_formula("bweight ~ mage", b, treat="msmoke == '0 daily'")
    ! treat=data.eval("msmoke == '0 daily'")
IPWRA.from_formula("bweight ~ mage", b, treat="mbsmoke", propensity="mmarried mage fbaby, probit").fit()
    ! +
IPWRA.from_formula("bweight ~ mage if mmarried == 1", b, treat="mbsmoke").fit()
    ! data.query("mmarried == 1")
IPWRA.from_formula("bweight ~ mage", b, treat="ib1.mbsmoke").fit()
    ! mbsmoke
IPWRA.from_formula("bweight ~ mage", b, treat="mbsmoke", weights="[pw=medu]").fit()
    ! medu
fit.predict("te")
    ! res.potential_outcomes
fit.predict(b, "ps")
    ! res.potential_outcomes
fit.t_test("ATE > -300")
    ! res.t_test("ATE = -300", alternative="la
fit.pairwise(adjust="tukey")
    ! adjust="single-step"
fit.tost(-100, 100)
    ! res.equivalence_test(-10, 10)
fit.nlcom("_b[POM1]/_b[POM0]")
    ! "POM[1] / POM[0] - 1"
fit.effects_by("over(mmarried)")
    ! by="mmarried"
fit.effects_by("i.mmarried")
    ! by="mmarried"
compare("bweight ~ mage", b, treat="mbsmoke", estimators="ra ipw ipwra aipw", n_boot=49)
    4 estimators: ATE -277.06 to -275.56, 1 vs 0, n 4642
compare("bweight ~ mage", b, treat="mbsmoke", estimators=["ipw", "aipw"], n_boot=49)
    2 estimators: ATE -275.82 to -275.56, 1 vs 0, n 4642
IPWRA.from_formula("bweight ~ c.(mage medu)##i.(mmarried fbaby)", b, treat="mbsmoke")
    ! C(mage)
IPWRA.from_formula("bweight ~ (mage + medu)##(mmarried + fbaby)", b, treat="mbsmoke")
    ! #
IPWRA.from_formula("bweight ~ c.(mage medu) + i.(prenatal fbaby)", b, treat="mbsmoke")
    ! C(mage)
IPWRA.from_formula("bweight ~ mage", b.assign(mbsmoke=b.mbsmoke.where(b.mage > 15, -9)), treat="mbsmoke")
    ! Negative numbers are often codes of miss
fit.effects_by("mage > 30")
    ! by=data.eval('mage > 30')
Hajek.from_formula("mbsmoke ~ mage + medu", b, treat="mbsmoke").fit()
    ! "<outcome> ~ mage + medu"
Hajek.from_formula("bweight ~ mage", b, treat="msmoke", reference="0 daily", target="0 daily").fit()
    Hajek: ATC[1-5 daily] -233.89 (41.56), ATC[11+ daily] -309.3
AIPW.from_formula("bweight ~ mage", b, treat="mbsmoke", weights="~medu", weight_type="probability").fit()
    ! medu
AIPW.from_formula("bweight ~ mage", b, treat="mbsmoke", cluster="~mage").fit()
    ! mage
AIPW.from_formula("bweight ~ mage", b, treat="mbsmoke", trim=0.1).fit()
    ! trim=(0.1, 0.9)
AIPW.from_formula("bweight ~ mage", b, treat="mbsmoke", clip=0.025).fit()
    ! clip=(0.025, 0.975)
AIPW(b.bweight, b.mbsmoke, b[["mage", "medu"]]).fit()
    ! endog=y, exog=X, treat=d
AIPW.from_formula("bweight ~ (mage + medu)^2", b, treat="mbsmoke").fit()
    ! ^2
Hajek.from_formula("bweight ~ 1", b, treat="mbsmoke", propensity="mbsmoke ~ . - msmoke").fit()
    ! "y ~ " + " + ".join(data.columns.drop(["
AIPW.from_formula("bweight ~ . - msmoke + I(mage**2)", b, treat="mbsmoke").fit()
    ! "y ~ " + " + ".join(data.columns.drop(["
AIPW.from_formula("bweight ~ te(mage, medu, k=5)", b, treat="mbsmoke").fit()
    ! te(cr(x, df=4), cr(z, df=4), constraints
AIPW.from_formula("bweight ~ C(mage, 3)", b, treat="mbsmoke").fit()
    ! Check that term; arithmetic belongs insi
AIPW.from_formula("bweight ~ prenatal %in% c(1, 2)", b, treat="mbsmoke").fit()
    ! %in%
AIPW.from_formula("bweight ~ C(prenatal, contr.sum)", b, treat="mbsmoke").fit()
    ! C(x, Treatment)
AIPW.from_formula("bweight ~ b$mage + b$medu", b, treat="mbsmoke").fit()
    ! mage
AIPW.from_formula("bweight = mage + medu", b, treat="mbsmoke").fit()
    ! ~
AIPW.from_formula("bweight \u223c mage + medu", b, treat="mbsmoke").fit()
    ! ~
AIPW.from_formula("msmoke ~ mage", b, treat="mbsmoke").fit()
    ! Turn it into numbers first, e.g.  I(msmo
AIPW.from_formula("bweight ~ splines::ns(mage, 3)", b, treat="mbsmoke").fit()
    ! ns
AIPW.from_formula("cbind(lbweight, fbaby) ~ mage", b, treat="mbsmoke").fit()
    ! I(successes / trials)
AIPW.from_formula("lbweight ~ mage", b, treat="mbsmoke", family="binomial(link=probit)").fit()
    ! family='binomial'
fit.balance(threshold={"m": 0.1})
    ! threshold=0.1
fit.balance(by="~mmarried")
    ! by="mmarried"
fit.avg_comparisons(variables="mbsmoke", by="mmarried")
    ! res.params
AIPW.from_formula("bweight ~ i.mmarried c.mage##c.mage i.fbaby", b, treat="mbsmoke")
    ! c.mage##c.mage
AIPW.from_formula("bweight ~ i.fbaby##c.(mage medu) i.mmarried if mage > 20", b, treat="mbsmoke")
    ! C(mage)
AIPW.from_formula("bweight ~ mmarried, mage, fbaby", b, treat="mbsmoke")
    ! Options are not part of the formula
AIPW.from_formula("bweight ~ mmarried, vce(robust)", b, treat="mbsmoke")
    ! Options are not part of the formula
AIPW.from_formula("bweight ~ mmarried", b, treat="mbsmoke", propensity=fit.propensity_scores)
    ! propensity_score=
AIPW.from_formula("bweight ~ mmarried", b, treat="mbsmoke", link="probit")
    ! link='identity', or
compare([fit, fit])
    ! etable([a, b])
fit.avg_predictions(by="mbsmoke")
    ! res.params
fit.comparisons(newdata=b.head())
    ! res.params
fit.conf_int("ATE")
    ! cols=['ATE']
table_one(b, ["mage", "medu"], by="mbsmoke")
    ! covariates=['mage', 'medu'], data=data
table_one("~ mage + medu | mbsmoke", b)
    ! covariates="~ mage + medu", by="mbsmoke"
table_one("mage medu", b, by="mbsmoke")
    ! +
cr.load_cattaneo2()
    ! causalrisk.datasets.load_cattaneo2()
cr.datasets.lalonde()
    ! causalrisk.datasets.load_lalonde()
compare(fit, fit)
    ! etable([a, b])
etable([fit]).to_excel("t.xlsx")
    ! table.frame.to_excel
fit.report("r.pdf")
    ! res.report("r.html")
IPWRA.from_formula("bweight ~ relevel(factor(prenatal), ref = '1')", b, treat="mbsmoke")
    ! C(factor, Treatment(level))
IPWRA.from_formula("bweight ~ C(prenatal, Treatment('1'))", b, treat="mbsmoke")
    ! C(prenatal, Treatment(1))
IPWRA.from_formula("bweight ~ C(prenatal, Treatment(reference='1'))", b, treat="mbsmoke")
    ! C(prenatal, Treatment(reference=1))
IPWRA.from_formula("bweight ~ C(prenatal, reference=1)", b, treat="mbsmoke")
    ! C(prenatal, Treatment(1))
IPWRA.from_formula("bweight ~ cut(mage, c(0, 20, 30, 50))", b, treat="mbsmoke")
    ! c(1, 2)
IPWRA.from_formula("bweight ~ bs(mage, knots = c(20, 30), degree = 3)", b, treat="mbsmoke")
    ! c(1, 2)
IPWRA.from_formula("bweight ~ ns(mage, knots=[20, 30])", b, treat="mbsmoke")
    ! cr(mage, df=4, constraints='center')
IPWRA.from_formula("bweight ~ rcs(mage, 4)", b, treat="mbsmoke")
    ! cr(mage, df=4, constraints='center')
IPWRA.from_formula("bweight ~ rcs(mage)", b, treat="mbsmoke")
    ! cr(mage, df=4, constraints='center')
IPWRA.from_formula("factor(lbweight) ~ mage", b, treat="mbsmoke")
    ! lbweight ~
IPWRA.from_formula("C(msmoke) ~ mage", b, treat="mbsmoke")
    ! Turn it into numbers first, e.g.  I(msmo
IPWRA.from_formula("bweight ~ mage > 30 & medu > 12", b, treat="mbsmoke")
    ! I((x > 1) & (z < 2))
IPWRA.from_formula("bweight ~ np.where(mage > 30 & medu > 12, 1, 0)", b, treat="mbsmoke")
    ! I((x > 1) & (z < 2))
IPWRA.from_formula("bweight ~ mage/10", b, treat="mbsmoke")
    ! I(mage / 10)
IPWRA.from_formula("bweight/1000 ~ mage", b, treat="mbsmoke")
    ! I(bweight / 1000)
AIPW.from_formula("bweight ~ mage", b, treat="mbsmoke", trim=0.99)
    ! clip=(0.01, 0.99)
AIPW.from_formula("bweight ~ mage", b, treat="mbsmoke", clip=0.97)
    ! clip=(0.03, 0.97)
AIPW.from_formula("bweight ~ mage", b, treat="mbsmoke", strata="~mrace")
    ! design=Survey(strata=, psu=, fpc=)
AIPW.from_formula("bweight ~ mage", b, treat="mbsmoke", k_split=5)
    AIPW: bweight ~ mage, mbsmoke: 1 vs 0, n 4642
IPWRA(sm.OLS.from_formula("bweight ~ mage", b), b.mbsmoke).fit()
    ! IPWRA(y, X, d)
IPWRA().fit(b[["mage"]], b.bweight, b.mbsmoke)
    ! IPWRA(y, X, d)
IPWRA.from_formula("bweight ~ mage", b, treat="mbsmoke").fit(n_boot=1e2)
    ! n_boot=100
IPWRA.from_formula("bweight ~ mage", b, treat=["mbsmoke"])
    ! treat='mbsmoke'
IPWRA.from_formula("bweight ~ mage", b[b.mage > 20], treat=b.mbsmoke)
    ! values.loc[data.index]
fit.model.aipw()
    ! AIPW.from_formula(...).fit()
IPWRA.from_formula("bweight ~ mage", b, treat="mbsmoke").ipw_ra()
    ! AIPW.from_formula(...).fit()
IPWRA.from_formula("bweight ~ mage", "mbsmoke ~ mage", b).fit()
    ! data=pandas.read_csv("mbsmoke ~ mage")
IPWRA.from_formula("bweight ~ mage", b, treat="mbsmoke", missing="none").fit()
    ! missing="drop"
IPWRA.from_formula("lbweight ~ mage", b, treat="mbsmoke", family=sm.families.Binomial).fit()
    IPWRA: ATE 0.06518 (0.01196), 1 vs 0, n 4642
IPWRA.from_formula("lbweight ~ mage", b, treat="mbsmoke", family=sm.families.Binomial(sm.families.links.Probit())).fit()
    IPWRA: ATE 0.06517 (0.01196), 1 vs 0, n 4642
IPWRA.from_formula("bweight ~ mage", b, treat="mbsmoke", family=sm.families.Tweedie(var_power=1.5)).fit()
    IPWRA: ATE -275.76 (22.71), 1 vs 0, n 4642
IPWRA.from_formula("bweight ~ mage", b, treat="mbsmoke", family=sm.families.Tweedie(var_power=4))
    ! family=sm.families.Tweedie(var_power=1.5
IPWRA.from_formula("bweight ~ mage", b, treat="mbsmoke", family=sm.families.InverseGaussian()).fit()
    IPWRA: ATE -275.81 (22.71), 1 vs 0, n 4642
IPWRA.from_formula("fbaby ~ mage", b, treat="mbsmoke", family="inverse_gaussian").fit()
    ! family="poisson"
IPWRA.from_formula("Surv(bweight, lbweight) ~ mage", b, treat="mbsmoke")
    ! Survival outcomes are not in this packag
IPWRA.from_formula("bweight ~ mage", b, treat="mbsmoke", penalty="l1")
    ! learner="lasso"
IPWRA.from_formula("bweight ~ mage", b, treat="mbsmoke", link=sm.families.links.Log()).fit()
    IPWRA: ATE -275.77 (22.72), 1 vs 0, n 4642
IPWRA.from_formula("bweight ~ mage", b, treat="mbsmoke", propensity_link=sm.families.links.Probit()).fit()
    IPWRA: ATE -275.66 (22.73), 1 vs 0, n 4642
IPWRA.from_formula("bweight ~ mage", b, treat="mbsmoke").fit_regularized(alpha=1)
    ! model.with_options(learner="lasso").fit(
f"{of_arrays.params[0]:.2f} {of_arrays.bse[0]:.2f} {of_arrays.params[-1] == of_arrays.params['POM[1]']}"
    -243.81 23.68 True
fit.model.data.xnames, fit.model.data.ynames
    (['Intercept', 'mage', 'mmarried'], 'bweight')
fit.model.data.orig_exog.join(fit.model.data.orig_endog).shape
    (4642, 4)
fit.model.data.frame
    ! dir(model.data)
sm.stats.anova_lm(fit)
    ! dir(model.data)
fit.compare_lr_test(fit)
    ! res.wald_test("ATE = 0")
fit.model.loglike([0])
    ! model.fit().estimating_equations()
fit.summary().as_latex(label="tab:smoking").splitlines()[:4]
    ['\\begin{table}[htbp]', '\\centering', '\\caption{IPW Regre
fit.predict(exog=b.head(1)).round(1).to_numpy().tolist()
    [[3440.1, 3218.3]]
fit.get_prediction(exog=b.head(1), arm=1).se_mean.round(1).tolist()
    [28.9]
fit.model.fit(rng=np.random.RandomState(0), n_boot=49)
    IPWRA: ATE -243.81 (25.45), 1 vs 0, n 4642
fit.model.fit(vcov={"CRV1": "mage"})
    ! Use one of them
fit.model.fit(cov="HC3")
    ! cov_type="robust"
AIPW.from_formula("bweight ~ mage", b, treat="mbsmoke").fit(penalty="l1")
    ! It is not an option any more. Leave it o
fit.hypotheses(equivalence=(-1, 1))
    ! res.t_test(...)
fit.to_gt()
    ! etable([res]).to_gt
IPWRA(b.bweight, sm.add_constant(b[["mage"]]), b[["mbsmoke"]]).fit()
    IPWRA: ATE -275.77 (22.72), 1 vs 0, n 4642
IPWRA(b["bweight"], b[["mage", "msmoke"]], b["mbsmoke"]).fit()
    ! Make 0 and 1 of its levels with pd.get_d
IPWRA(b["bweight"], pd.get_dummies(b["msmoke"]), b["mbsmoke"]).fit()
    ! Add a constant, merge levels that an arm
IPWRA(b["bweight"], sm.add_constant(b[["mage"]]), b["mbsmoke"].sample(frac=1, random_state=0)).fit()
    IPWRA: ATE -275.77 (22.72), 1 vs 0, n 4642
IPWRA(b["bweight"], sm.add_constant(b[["mage"]]), "mbsmoke").fit()
    ! data['mbsmoke']
IPWRA.from_formula("bweight ~ mage", b.set_index(["mage", "medu"]), treat="mbsmoke").fit()
    ! data=data.reset_index()
fit.predict(dict(mage=25, mmarried=1))
    ! pandas.DataFrame([data])
AIPW.from_formula("bweight ~ mage", b, treat="mbsmoke", propensity=LogisticRegression())
    ! propensity_score=
IPWRA.from_formula("bweight ~ mage", b, treat="mbsmoke", target=(b.mmarried == 1)).fit()
    ! target=data[...]
IPWRA.from_formula("bweight ~ mage", b, treat="mbsmoke", target="mmarried == 1").fit()
    ! target=data.query('mmarried == 1')
IPWRA.from_formula("bweight ~ mage + mmarried", b, treat="mbsmoke", target=b[b.mmarried == 1]).fit()
    ! Simplify propensity=, or leave out the r
IPWRA.from_formula("bweight ~ mage", b, treat="mbsmoke", target=lambda d: d.mmarried == 1).fit()
    ! target=lambda e: ((e > 0.1) & (e < 0.9))
IPWRA.from_formula("bweight ~ mage + medu  # adjust for age", b, treat="mbsmoke")
    ! #
IPWRA.from_formula("bweight ~ mage + medu  # adjust", b, treat="mbsmoke")
    ! #
fit.model.with_options(estimand="ATT")
    ! family
fit.model.with_options(formula="bweight ~ medu")
    ! family
AIPW.from_formula("bweight ~ mage", b, treat="mbsmoke", learner=LinearRegression()).fit()
    AIPW: ATE -276.29 (22.64), 1 vs 0, n 4642
AIPW.from_formula("bweight ~ mage", b, treat="mbsmoke", ml_g=LinearRegression(), ml_m=LogisticRegression())
    ! propensity_score=
AIPW.from_formula("bweight ~ mage", b, treat="mbsmoke", ml_m=LogisticRegression())
    ! propensity_score=
AIPW.from_formula("bweight ~ mage", b, treat="mbsmoke", outcome_model=LinearRegression())
    AIPW: bweight ~ mage, mbsmoke: 1 vs 0, n 4642
AIPW.from_formula("bweight ~ mage", b, treat="mbsmoke", model_regression="lasso")
    AIPW: bweight ~ mage, mbsmoke: 1 vs 0, n 4642
AIPW.from_formula("bweight ~ mage", b, treat="mbsmoke", learner="smooth", n_rep=3)
    AIPW: bweight ~ mage, mbsmoke: 1 vs 0, n 4642
AIPW.from_formula("bweight ~ mage", b, treat="mbsmoke", learner="smooth", score="ATTE")
    ! target=
AIPW.from_formula("bweight ~ mage", b, treat="mbsmoke", learner="SL.ranger")
    ! learner="smooth"
AIPW.from_formula("bweight ~ mage", b, treat="mbsmoke", learner=["SL.xgboost", "SL.glmnet"])
    ! learner="smooth"
IPWRA.from_formula("bweight ~ mage", b, treat="mbsmoke").fit(ml_g=LinearRegression())
    ! from_formula(learner=...)
cr.DoubleMLIRM
    ! causalrisk.AIPW.from_formula("y ~ x1 + x
fit.evaluate_learners
    ! from_formula(..., learner="smooth").fit(
"""
LINES = HABITS.strip().splitlines()


@pytest.fixture(scope="module")
def names():
    births = datasets.load_cattaneo2()
    fitted = IPWRA.from_formula("bweight ~ mage + mmarried", births, treat="mbsmoke").fit()
    tools = {"np": np, "pd": pd, "sm": sm, "cr": cr, "compare": compare, "etable": etable, "pool": pool}
    tools |= {"LogisticRegression": LogisticRegression, "LinearRegression": LinearRegression}
    models = {"AIPW": AIPW, "IPWRA": IPWRA, "Hajek": Hajek, "table_one": table_one}
    of_arrays = IPWRA(births.bweight, sm.add_constant(births[["mage", "mmarried"]]), births.mbsmoke).fit()
    return tools | models | {"b": births, "fit": fitted, "of_arrays": of_arrays}


@pytest.mark.filterwarnings("ignore::causalrisk.DesignWarning")
@pytest.mark.parametrize(("call", "expected"), list(zip(LINES[::2], LINES[1::2], strict=True)))
def test_a_call_by_habit_works_or_its_message_says_what_to_use(names, call, expected):
    refused, named = expected.strip().startswith("! "), expected.strip().removeprefix("! ")
    try:
        said = str(eval(call, names)).splitlines()[0]
    except (ValueError, TypeError, AttributeError) as error:
        assert refused and named in str(error)
    else:
        assert said.startswith(named) and not refused


@pytest.mark.parametrize("make", ["balance", "overlap", "summary_frame", "sensitivity"])
def test_a_printed_frame_has_all_its_columns_in_80_columns(names, make):
    frame = getattr(names["fit"], make)()
    lines = repr(frame).splitlines()
    assert max(map(len, lines)) <= 80 and "..." not in repr(frame)
    assert all(any(str(column) in line for line in lines) for column in frame.columns)
    assert repr(frame.round(1)) == repr(type(frame)(frame.round(1)))
    with pd.option_context("display.max_columns", 2):
        assert "..." in repr(frame)


def test_a_frame_of_results_passes_for_a_plain_one(names):
    printed = names["fit"].balance()
    plain = pd.DataFrame(printed)
    assert type(plain) is pd.DataFrame is not type(printed)
    pd.testing.assert_frame_equal(printed, plain)
    for kept in (pickle.dumps(printed), pickle.dumps(printed, protocol=0)):
        assert type(pickle.loads(kept)) is pd.DataFrame
        pd.testing.assert_frame_equal(pickle.loads(kept), plain)


def test_a_printed_comparison_has_all_its_columns(names):
    both = compare("bweight ~ mage", names["b"], treat="mbsmoke", estimators=["Hajek", "AIPW"], n_boot=19)
    assert "..." not in repr(both.table) + repr(both.differences) and "robust se" in repr(both.table)
    with pd.option_context("display.max_columns", 0):  # as many as a terminal has room for
        assert "..." not in repr(cr.simultaneous([names["fit"]], alpha=0.1))


def test_versions_are_printed(capsys):
    cr.show_versions()
    printed = capsys.readouterr().out
    assert f"causalrisk    {cr.__version__}\n" in printed and f"pandas        {pd.__version__}\n" in printed


def test_a_notebook_that_is_printed_has_tables_in_markdown(names):
    for shown in (names["fit"], names["fit"].summary(), etable([names["fit"]])):
        assert re.search(r"^\| ATE \| +-243\.8", shown._repr_markdown_(), re.MULTILINE)


def test_a_table_for_great_tables_has_the_cells_of_the_text(names):
    pytest.importorskip("maketables")
    html = etable([names["fit"]], title="Smoking & weight").to_gt().as_raw_html()
    assert all(cell in html for cell in ("-243.81", "(23.68)", "Standard errors in", "Smoking &amp; weight"))


def test_a_treatment_set_for_a_prediction_is_warned_of(names):
    """As with g-computation elsewhere; few rows, those that are of the arm anyway, and a stated arm, are not."""
    fit, births = names["fit"], names["b"]
    for predict in (fit.predict, fit.get_prediction):
        with pytest.warns(cr.DesignWarning, match=r"the treatment 'mbsmoke' is '1' in all rows .*\nType  arm='1'"):
            predict(births.assign(mbsmoke=1))
    fit.predict(births[births.mbsmoke == 1])
    fit.predict(births.head(10).assign(mbsmoke=0))
    fit.predict(births)
    fit.predict(births.assign(mbsmoke=1), arm=1)


def test_a_target_frame_inside_the_sample_is_told_from_its_rows(names):
    births = names["b"]
    model = IPWRA.from_formula("bweight ~ mmarried", births, treat="mbsmoke", target=births[births.mmarried == 1])
    unmarried = int((births.mmarried == 0).sum())
    with pytest.raises(cr.SeparationError, match=f"tells {unmarried} of the {len(births)} rows of the sample from"):
        model.fit()

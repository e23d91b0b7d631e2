"""Calls as users of Stata, R and statsmodels write them by habit: each works, or is told what to type here.

Below a call stands what it prints as, or the last line of its message; where that goes on there are dots. What single
words are told is in `test_words.py`.
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
# Stata
IPWRA.from_formula("bweight mage medu", b, treat="mbsmoke").fit()
    Type  "bweight ~ mage + medu".
IPWRA.from_formula("bweight ~ mage", b, treat="(mbsmoke mage medu, probit)").fit()
    Type  treat="mbsmoke", propensity="mage + medu", propensity_link="probit".
IPWRA.from_formula("(bweight mage mmarried, poisson) (mbsmoke mage medu, probit)", b)
    Type  formula="bweight ~ mage + mmarried", family='poisson', treat="mbsmoke", propensity="mage + medu", propensi ...
IPWRA.from_formula("teffects ipw (bweight) (mbsmoke mage medu), atet", b, treat="mbsmoke")
    Type  formula="bweight ~ 1", treat="mbsmoke", propensity="mage + medu".
IPWRA.from_formula("bweight", b, treat="mbsmoke", propensity="mage")
    Type  "bweight ~ 1"  if it is the outcome, or  "<outcome> ~ bweight".
IPWRA.from_formula("bweight ~ xi: i.prenatal + mage", b, treat="mbsmoke")
    Type  "bweight ~ C(prenatal) + mage".
IPWRA.from_formula("bweight ~ mage + 1.mmarried", b, treat="mbsmoke")
    Type  "bweight ~ mage + I(mmarried == 1)".
IPWRA.from_formula("bweight ~ mage [fw=medu]", b, treat="mbsmoke")
    Type  formula="bweight ~ mage", weights="medu", weight_type="frequency".
IPWRA.from_formula("bweight ~ mage if mmarried == 1, vce(robust)", b, treat="mbsmoke")
    Type  data=data.query('mmarried == 1').
IPWRA.from_formula("lbweight ~ mage, probit", b, treat="mbsmoke")
    Type  formula="lbweight ~ mage", family='binomial', link='probit'.
IPWRA.from_formula("bweight ~ mage, vce(robust)", b, treat="mbsmoke")
    Type  formula="bweight ~ mage".
IPWRA.from_formula("bweight ~ mage", b, treat="msmoke == '0 daily'")
    Type  treat=data.eval("msmoke == '0 daily'").
IPWRA.from_formula("bweight ~ mage", b, treat="mbsmoke", propensity="mmarried mage fbaby, probit").fit()
    Type  propensity="mmarried + mage + fbaby", propensity_link="probit".
IPWRA.from_formula("bweight ~ mage if mmarried == 1", b, treat="mbsmoke").fit()
    Type  data=data.query('mmarried == 1').
IPWRA.from_formula("bweight ~ mage", b, treat="ib1.mbsmoke").fit()
    Did you mean 'mbsmoke'?
IPWRA.from_formula("bweight ~ mage", b, treat="mbsmoke", weights="[pw=medu]").fit()
    Did you mean 'medu'?
IPWRA.from_formula("bweight ~ mage", b, treat="mbsmoke").fit("pomeans")
    Type  cov_type=  one of 'robust', 'HC0', 'HC1', 'cluster', 'jackknife', 'HC3', 'CR3', 'bootstrap'.
fit.predict("te")
    Type  res.potential_outcomes  for the means of the sample in each arm, or  res.propensity_scores.
fit.predict(b, "ps")
    Type  res.potential_outcomes  for the means of the sample in each arm, or  res.propensity_scores.
fit.t_test("ATE > -300")
    Type  res.t_test("ATE = -300", alternative="larger").
fit.pairwise(adjust="tukey")
    Type  adjust='single-step'.
fit.tost(-100, 100)
    Type  res.equivalence_test(-10, 10)  with the limits that matter.
fit.nlcom("_b[POM1]/_b[POM0]")
    The parameters are ATE, POM[0], POM[1]. Type  "POM[1] / POM[0] - 1"  for example.
fit.effects_by("over(mmarried)")
    Type  by="mmarried".
fit.effects_by("i.mmarried")
    Type  by="mmarried".
compare("bweight ~ mage", b, treat="mbsmoke", estimators="ra ipw ipwra aipw", n_boot=49)
    Type  estimators=["OutcomeRegression", "IPW", "IPWRA", "AIPW"].
compare("bweight ~ mage", b, treat="mbsmoke", estimators=["ipw", "aipw"], n_boot=49)
    Type  estimators=["IPW", "AIPW"].
IPWRA.from_formula("bweight ~ c.(mage medu)##i.(mmarried fbaby)", b, treat="mbsmoke")
    Type  "bweight ~ (mage + medu)*(C(mmarried) + C(fbaby))".
IPWRA.from_formula("bweight ~ (mage + medu)##(mmarried + fbaby)", b, treat="mbsmoke")
    Type  "bweight ~ (mage + medu)*(mmarried + fbaby)".
IPWRA.from_formula("bweight ~ c.(mage medu) + i.(prenatal fbaby)", b, treat="mbsmoke")
    Type  "bweight ~ mage + medu + C(prenatal) + C(fbaby)".
IPWRA.from_formula("bweight ~ mage", b.assign(mbsmoke=b.mbsmoke.where(b.mage > 15, -9)), treat="mbsmoke")
    Negative numbers are often codes of missing values. Add  reference=0  (or keep two levels, e.g.  data[data["mbsm ...
fit.effects_by("mage > 30")
    Type  by=data.eval('mage > 30').
# R
Hajek.from_formula("mbsmoke ~ mage + medu", b, treat="mbsmoke").fit()
    Type  "<outcome> ~ mage + medu".
Hajek.from_formula("bweight ~ mage", b, treat="msmoke", reference="0 daily", target="0 daily").fit()
    Hajek: ATC[1-5 daily] -233.89 (41.56), ATC[11+ daily] -309.36 (36.39), ATC[6-10 daily] -281.61 (35.23), 1-5 dail ...
AIPW.from_formula("bweight ~ mage", b, treat="mbsmoke", weights="~medu", weight_type="probability").fit()
    Did you mean 'medu'?
AIPW.from_formula("bweight ~ mage", b, treat="mbsmoke", cluster="~mage").fit()
    Did you mean 'mage'?
AIPW.from_formula("bweight ~ mage", b, treat="mbsmoke", trim=0.1).fit()
    Type  trim=(0.1, 0.9).
AIPW.from_formula("bweight ~ mage", b, treat="mbsmoke", clip=0.025).fit()
    Type  clip=(0.025, 0.975).
AIPW(b.bweight, b.mbsmoke, b[["mage", "medu"]]).fit()
    Type  endog=y, exog=X, treat=d.
AIPW.from_formula("bweight ~ (mage + medu)^2", b, treat="mbsmoke").fit()
    Type  "bweight ~ (mage + medu)**2".
Hajek.from_formula("bweight ~ 1", b, treat="mbsmoke", propensity="mbsmoke ~ . - msmoke").fit()
    Type  propensity=" + ".join(data.columns.drop(["bweight", "mbsmoke", "msmoke"]))  without what else is no covari ...
AIPW.from_formula("bweight ~ . - msmoke + I(mage**2)", b, treat="mbsmoke").fit()
    Type  "bweight ~ " + " + ".join(data.columns.drop(["bweight", "mbsmoke", "msmoke"])) + " + I(mage**2)"  without  ...
AIPW.from_formula("bweight ~ te(mage, medu, k=5)", b, treat="mbsmoke").fit()
    Type  te(cr(mage, df=5), cr(medu, df=5), constraints='center').
AIPW.from_formula("bweight ~ C(mage, 3)", b, treat="mbsmoke").fit()
    Check that term; arithmetic belongs inside I(...), odd names inside Q("...").
AIPW.from_formula("bweight ~ prenatal %in% c(1, 2)", b, treat="mbsmoke").fit()
    Type  "bweight ~ prenatal.isin([1, 2])".
AIPW.from_formula("bweight ~ C(prenatal, contr.sum)", b, treat="mbsmoke").fit()
    Type  "bweight ~ C(prenatal, Sum)".
AIPW.from_formula("bweight ~ b$mage + b$medu", b, treat="mbsmoke").fit()
    Type  "bweight ~ mage + medu".
AIPW.from_formula("bweight = mage + medu", b, treat="mbsmoke").fit()
    Type  "bweight ~ mage + medu".
AIPW.from_formula("bweight \u223c mage + medu", b, treat="mbsmoke").fit()
    Type  "bweight ~ mage + medu".
AIPW.from_formula("msmoke ~ mage", b, treat="mbsmoke").fit()
    Turn it into numbers first, e.g.  I(msmoke == '0 daily') ~ mage  or  I(msmoke == '1-5 daily') ~ mage, which ...
AIPW.from_formula("bweight ~ splines::ns(mage, 3)", b, treat="mbsmoke").fit()
    Type  cr(mage, df=3, constraints='center').
AIPW.from_formula("cbind(lbweight, fbaby) ~ mage", b, treat="mbsmoke").fit()
    Type  I(lbweight / (lbweight + fbaby))  with  weights=data["lbweight"] + data["fbaby"], weight_type="frequency".
AIPW.from_formula("lbweight ~ mage", b, treat="mbsmoke", family="binomial(link=probit)").fit()
    Type  family='binomial', link='probit'.
fit.balance(threshold={"m": 0.1})
    Type  threshold=0.1.
fit.balance(by="~mmarried")
    Type  by="mmarried".
fit.avg_comparisons(variables="mbsmoke", by="mmarried")
    Type  res.params  for the effects and the potential-outcome means, POM[...], or  res.effects_by("column")  for t ...
AIPW.from_formula("bweight ~ i.mmarried c.mage##c.mage i.fbaby", b, treat="mbsmoke")
    Type  "bweight ~ C(mmarried) + mage + I(mage**2) + C(fbaby)".
AIPW.from_formula("bweight ~ i.fbaby##c.(mage medu) i.mmarried if mage > 20", b, treat="mbsmoke")
    Type  "bweight ~ C(fbaby)*(mage + medu) + C(mmarried) if mage > 20".
AIPW.from_formula("bweight ~ mmarried, mage, fbaby", b, treat="mbsmoke")
    Type  formula="bweight ~ mmarried + mage + fbaby".
AIPW.from_formula("bweight ~ mmarried, vce(robust)", b, treat="mbsmoke")
    Type  formula="bweight ~ mmarried".
AIPW.from_formula("bweight ~ mmarried", b, treat="mbsmoke", propensity=fit.propensity_scores)
    Type  propensity_score=  with the scores.
AIPW.from_formula("bweight ~ mmarried", b, treat="mbsmoke", link="probit")
    Type  link='identity', or  propensity_link='probit'  for that of the propensity score.
compare([fit, fit])
    Type  etable([res1, res2]).
fit.conf_int("ATE", alpha=0.1)
    Give that by its name, one of method=, acceleration=, cols=, or leave it out.
fit.avg_predictions(by="mbsmoke")
    Type  res.params  for the effects and the potential-outcome means, POM[...].
fit.comparisons(newdata=b.head())
    Type  res.params  for the effects and the potential-outcome means, POM[...], or  res.effects_by("column")  for t ...
fit.conf_int("ATE")
    Type  cols=['ATE'].
table_one(b, by="mbsmoke")
    Type  table_one(["x1", "x2"], data, by="d").
table_one(b, ["mage", "medu"], by="mbsmoke")
    Type  covariates=['mage', 'medu'], data=data.
table_one("~ mage + medu | mbsmoke", b)
    Type  covariates="~ mage + medu", by="mbsmoke".
table_one("mage medu", b, by="mbsmoke")
    Type  "mage + medu".
cr.load_cattaneo2()
    Type  causalrisk.datasets.load_cattaneo2().
cr.datasets.lalonde()
    Type  causalrisk.datasets.load_lalonde().
compare(fit, fit)
    Type  etable([res1, res2]).
etable([fit]).to_excel("t.xlsx")
    Type  table.frame.to_excel.
etable(fit, fit)
    Type  etable([res1, res2]).
fit.report("r.pdf")
    Type  res.report("r.html").
IPWRA.from_formula("bweight ~ relevel(factor(prenatal), ref = '1')", b, treat="mbsmoke")
    Type  C(prenatal, Treatment('1')).
IPWRA.from_formula("bweight ~ C(prenatal, Treatment('1'))", b, treat="mbsmoke")
    Type  C(prenatal, Treatment(1)).
IPWRA.from_formula("bweight ~ C(prenatal, Treatment(reference='1'))", b, treat="mbsmoke")
    Type  C(prenatal, Treatment(reference=1)).
IPWRA.from_formula("bweight ~ C(prenatal, reference=1)", b, treat="mbsmoke")
    Type  "bweight ~ C(prenatal, Treatment(1))".
IPWRA.from_formula("bweight ~ cut(mage, c(0, 20, 30, 50))", b, treat="mbsmoke")
    Type  "bweight ~ pd.cut(mage, [0, 20, 30, 50])".
IPWRA.from_formula("bweight ~ bs(mage, knots = c(20, 30), degree = 3)", b, treat="mbsmoke")
    Type  "bweight ~ bs(mage, knots = [20, 30], degree = 3)".
IPWRA.from_formula("bweight ~ ns(mage, knots=[20, 30])", b, treat="mbsmoke")
    Type  cr(mage, knots=[20, 30], constraints='center').
IPWRA.from_formula("bweight ~ rcs(mage, 4)", b, treat="mbsmoke")
    Type  cr(mage, df=3, constraints='center').
IPWRA.from_formula("bweight ~ rcs(mage)", b, treat="mbsmoke")
    Type  cr(mage, df=4, constraints='center').
IPWRA.from_formula("factor(lbweight) ~ mage", b, treat="mbsmoke")
    Type  "lbweight ~ mage".
IPWRA.from_formula("C(msmoke) ~ mage", b, treat="mbsmoke")
    Turn it into numbers first, e.g.  I(msmoke == '0 daily') ~ mage  or  I(msmoke == '1-5 daily') ~ mage, which ...
IPWRA.from_formula("bweight ~ mage > 30 & medu > 12", b, treat="mbsmoke")
    Type  "bweight ~ I((mage > 30) & (medu > 12))".
IPWRA.from_formula("bweight ~ np.where(mage > 30 & medu > 12, 1, 0)", b, treat="mbsmoke")
    Type  "bweight ~ np.where((mage > 30) & (medu > 12), 1, 0)".
IPWRA.from_formula("bweight ~ mage/10", b, treat="mbsmoke")
    Type  I(mage / 10).
IPWRA.from_formula("bweight/1000 ~ mage", b, treat="mbsmoke")
    Type  I(bweight / 1000).
AIPW.from_formula("bweight ~ mage", b, treat="mbsmoke", trim=0.99)
    Weights are not capped. Type  clip=(0.01, 0.99)  to set scores to the limits, or  trim=(0.01, 0.99)  to leave ro ...
AIPW.from_formula("bweight ~ mage", b, treat="mbsmoke", clip=0.97)
    Type  clip=(0.03, 0.97).
AIPW.from_formula("bweight ~ mage", b, treat="mbsmoke", strata="~mrace")
    Type  design=Survey(strata="~mrace").
AIPW.from_formula("bweight ~ mage", b, treat="mbsmoke", k_split=5)
    Type  n_folds=5.
# statsmodels
IPWRA(sm.OLS.from_formula("bweight ~ mage", b), b.mbsmoke).fit()
    Type  IPWRA(y, X, d), or  IPWRA.from_formula("y ~ x1 + x2", data, treat="d").
IPWRA().fit(b[["mage"]], b.bweight, b.mbsmoke)
    Type  IPWRA(y, X, d), or  IPWRA.from_formula("y ~ x1 + x2", data, treat="d").
IPWRA(b.bweight, sm.add_constant(b[["mage"]]), b.mbsmoke).fit(b[["mage"]], b.bweight)
    Type  IPWRA(y, X, d).fit().
IPWRA.from_formula("bweight ~ mage", b, treat="mbsmoke").fit(n_boot=1e2)
    Type  n_boot=100.
IPWRA.from_formula("bweight ~ mage", b, treat=["mbsmoke"])
    Type  treat='mbsmoke'.
IPWRA.from_formula("bweight ~ mage", b[b.mage > 20], treat=b.mbsmoke)
    Type  values.loc[data.index]  for those of the rows of the data.
fit.model.aipw()
    Type  AIPW.from_formula(...).fit().
IPWRA.from_formula("bweight ~ mage", b, treat="mbsmoke").ipw_ra()
    Type  IPWRA.from_formula(...).fit().
IPWRA.from_formula("bweight ~ mage", "mbsmoke ~ mage", b).fit()
    Type  IPWRA.from_formula("y ~ x1 + x2", data, treat="d", propensity="x1 + x2").
IPWRA.from_formula("bweight ~ mage", b, treat="mbsmoke", missing="none").fit()
    Type  missing="drop"  to leave out rows with missing values and count them, or  missing="raise"  to refuse them.
IPWRA.from_formula("lbweight ~ mage", b, treat="mbsmoke", family=sm.families.Binomial).fit()
    IPWRA: ATE 0.06518 (0.01196), 1 vs 0, n 4642
IPWRA.from_formula("lbweight ~ mage", b, treat="mbsmoke", family=sm.families.Binomial(sm.families.links.Probit())).fit()
    IPWRA: ATE 0.06517 (0.01196), 1 vs 0, n 4642
IPWRA.from_formula("bweight ~ mage", b, treat="mbsmoke", family=sm.families.Tweedie(var_power=1.5)).fit()
    IPWRA: ATE -275.76 (22.71), 1 vs 0, n 4642
IPWRA.from_formula("bweight ~ mage", b, treat="mbsmoke", family=sm.families.Tweedie(var_power=4))
    Type  family=sm.families.Tweedie(var_power=1.5).
IPWRA.from_formula("bweight ~ mage", b, treat="mbsmoke", family=sm.families.InverseGaussian()).fit()
    IPWRA: ATE -275.81 (22.71), 1 vs 0, n 4642
IPWRA.from_formula("fbaby ~ mage", b, treat="mbsmoke", family="inverse_gaussian").fit()
    Type  family="poisson"  for a logarithmic link that allows zeros.
IPWRA.from_formula("Surv(bweight, lbweight) ~ mage", b, treat="mbsmoke")
    That is not in this package; lifelines and zEpid have survival outcomes.
IPWRA.from_formula("bweight ~ mage", b, treat="mbsmoke", penalty="l1")
    Type  learner="lasso".
IPWRA.from_formula("bweight ~ mage", b, treat="mbsmoke", link=sm.families.links.Log()).fit()
    Type  link='log'.
IPWRA.from_formula("bweight ~ mage", b, treat="mbsmoke", propensity_link=sm.families.links.Probit()).fit()
    Type  propensity_link='probit'.
IPWRA.from_formula("bweight ~ mage", b, treat="mbsmoke").fit_regularized(alpha=1)
    Type  model.with_options(learner="lasso").fit().
f"{of_arrays.params[0]:.2f} {of_arrays.bse[0]:.2f} {of_arrays.params[-1] == of_arrays.params['POM[1]']}"
    -243.81 23.68 True
fit.model.data.xnames, fit.model.data.ynames
    (['Intercept', 'mage', 'mmarried'], 'bweight')
fit.model.data.orig_exog.join(fit.model.data.orig_endog).shape
    (4642, 4)
fit.model.data.frame
    The frame is not kept. Type  model.data.orig_exog.
sm.stats.anova_lm(fit)
    Type  model.formula,  or  model.fit().wald_test(...)  in the place of an analysis of variance.
fit.compare_lr_test(fit)
    There is no likelihood to compare. Type  res.wald_test(...)  for restrictions, or  causalrisk.etable([res1, res2 ...
fit.model.loglike([0])
    Several models are estimated together, by equations and not by one likelihood. Type  model.fit().estimating_equa ...
fit.summary().as_latex(label="tab:smoking").splitlines()[:4]
    ['\\begin{table}[htbp]', '\\centering', '\\caption{IPW Regression Adjustment (IPWRA) Results}', '\\label ...
fit.predict(exog=b.head(1)).round(1).to_numpy().tolist()
    [[3440.1, 3218.3]]
fit.get_prediction(exog=b.head(1), arm=1).se_mean.round(1).tolist()
    [28.9]
fit.model.fit(rng=np.random.RandomState(0), n_boot=49)
    IPWRA: ATE -243.81 (25.45), 1 vs 0, n 4642
fit.model.fit(vcov={"CRV1": "mage"})
    Type  from_formula(..., cluster="mage").fit().
fit.model.fit(cov="HC3")
    Type  cov_type="HC3".
AIPW.from_formula("bweight ~ mage", b, treat="mbsmoke").fit(penalty="l1")
    Type  from_formula(..., learner="lasso").fit().
fit.hypotheses(equivalence=(-1, 1))
    Type  res.t_test(...), or  res.equivalence_test(-10, 10)  with the limits that matter.
fit.to_gt()
    Type  causalrisk.etable([res]).to_gt().
IPWRA(b.bweight, sm.add_constant(b[["mage"]]), b[["mbsmoke"]]).fit()
    IPWRA: ATE -275.77 (22.72), 1 vs 0, n 4642
IPWRA(b["bweight"], b[["mage", "msmoke"]], b["mbsmoke"]).fit()
    Make 0 and 1 of its levels with pd.get_dummies, or use a formula, which does.
IPWRA(b["bweight"], pd.get_dummies(b["msmoke"]), b["mbsmoke"]).fit()
    Add a constant, merge levels that an arm lacks, or leave out the terms that say which arm a row is in.
IPWRA(b["bweight"], sm.add_constant(b[["mage"]]), b["mbsmoke"].sample(frac=1, random_state=0)).fit()
    IPWRA: ATE -275.77 (22.72), 1 vs 0, n 4642
IPWRA(b["bweight"], sm.add_constant(b[["mage"]]), "mbsmoke").fit()
    Arrays have no names. Type  data['mbsmoke']  for its values.
IPWRA.from_formula("bweight ~ mage", b.set_index(["mage", "medu"]), treat="mbsmoke").fit()
    Type  data=data.reset_index().
fit.predict(dict(mage=25, mmarried=1))
    Type  pandas.DataFrame([data])  for one row.
# Python
AIPW.from_formula("bweight ~ mage", b, treat="mbsmoke", propensity=LogisticRegression())
    Type  propensity_score=  with the classifier.
IPWRA.from_formula("bweight ~ mage", b, treat="mbsmoke", target=(b.mmarried == 1)).fit()
    Type  target=data[...]  with the condition.
IPWRA.from_formula("bweight ~ mage", b, treat="mbsmoke", target="mmarried == 1").fit()
    Type  target=data.query('mmarried == 1')  for rows like those.
IPWRA.from_formula("bweight ~ mage + mmarried", b, treat="mbsmoke", target=b[b.mmarried == 1]).fit()
    Simplify propensity=, or leave out the rows of the data that have no like in the frame.
IPWRA.from_formula("bweight ~ mage", b, treat="mbsmoke", target=lambda d: d.mmarried == 1).fit()
    Type  target=lambda e: ((e > 0.1) & (e < 0.9)) * 1.0  for example.
IPWRA.from_formula("bweight ~ mage + medu  # adjust for age", b, treat="mbsmoke")
    Type  "bweight ~ mage + medu".
IPWRA.from_formula("bweight ~ mage + medu  # adjust", b, treat="mbsmoke")
    Type  "bweight ~ mage + medu"  if it begins a comment, or  "bweight ~ mage + C(medu):C(adjust)"  for Stata's int ...
fit.model.with_options(estimand="ATT")
    Type  target="ATT"  (one of 'all', 'treated', 'control', 'overlap', 'matching', 'entropy').
fit.model.with_options(formula="bweight ~ medu")
    It belongs to the data: make a new model with from_formula(...).
# DoubleML, EconML, SuperLearner
AIPW.from_formula("bweight ~ mage", b, treat="mbsmoke", learner=LinearRegression()).fit()
    AIPW: ATE -276.29 (22.64), 1 vs 0, n 4642
AIPW.from_formula("bweight ~ mage", b, treat="mbsmoke", ml_g=LinearRegression(), ml_m=LogisticRegression())
    Type  learner=LinearRegression().
AIPW.from_formula("bweight ~ mage", b, treat="mbsmoke", ml_m=LogisticRegression())
    Type  propensity_score=LogisticRegression().
AIPW.from_formula("bweight ~ mage", b, treat="mbsmoke", outcome_model=LinearRegression())
    Type  learner=LinearRegression().
AIPW.from_formula("bweight ~ mage", b, treat="mbsmoke", model_regression="lasso")
    Type  learner="lasso".
AIPW.from_formula("bweight ~ mage", b, treat="mbsmoke", learner="smooth", n_rep=3)
    Type  learner="smooth", n_repeats=3.
AIPW.from_formula("bweight ~ mage", b, treat="mbsmoke", learner="smooth", score="ATTE")
    Type  target="treated".
AIPW.from_formula("bweight ~ mage", b, treat="mbsmoke", learner="SL.ranger")
    Type  learner="random-forest".
AIPW.from_formula("bweight ~ mage", b, treat="mbsmoke", learner=["SL.xgboost", "SL.glmnet"])
    Type  learner="hist-gradient-boosting".
IPWRA.from_formula("bweight ~ mage", b, treat="mbsmoke").fit(ml_g=LinearRegression())
    Type  from_formula(..., learner=LinearRegression()).fit().
cr.DoubleMLIRM
    Type  causalrisk.AIPW.from_formula("y ~ x1 + x2", data, treat="d", learner="smooth").
fit.evaluate_learners
    Type  res.learner_fit.
"""
LINES = [line for line in HABITS.strip().splitlines() if not line.startswith("# ")]


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
def test_a_call_by_habit_works_or_is_told_what_to_type(names, call, expected):
    try:
        said = str(eval(call, names)).splitlines()[0]
    except (ValueError, TypeError, AttributeError) as error:
        said = str(error).splitlines()[-1]
    start, dots, _ = expected.strip().partition(" ...")
    assert said.startswith(start) if dots else said == start


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
    pd.testing.assert_frame_equal(plain, printed)
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

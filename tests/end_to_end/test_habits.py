"""Calls as users of Stata, R and statsmodels write them by habit: each works, or is told what to type here.

Below a call stands what it prints as, or the last line of its message; where that goes on there are dots.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from sklearn.linear_model import LogisticRegression

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
IPWRA.from_formula("bweight ~ mage", b, treat="mbsmoke", omodel="flogit", tmodel="probit")
    Type  family='binomial'.
IPWRA.from_formula("bweight ~ mage", b, treat="mbsmoke", tmodel="hetprobit")
    Type  propensity_link=  one of 'logit', 'probit', 'cloglog'.
IPWRA.from_formula("bweight ~ mage", b, treat="mbsmoke", tmodel=["mage"])
    Type  propensity=['mage'].
IPWRA.from_formula("bweight ~ mage", b, treat="mbsmoke", tlevel="1")
    Type  target="1"  for the effect on its rows, or  treated="1"  for the level that is treated.
IPWRA.from_formula("bweight ~ mage", b, treat="mbsmoke", subset="mage > 20")
    Type  data=data.query("mage > 20").
IPWRA.from_formula("bweight ~ mage", b, treat="mbsmoke", svy=True)
    Type  weights="w", weight_type="probability", cluster="psu"  for what is here.
IPWRA.from_formula("bweight ~ mage", b, treat="mbsmoke", propensity="mmarried mage fbaby, probit").fit()
    Type  propensity="mmarried + mage + fbaby", propensity_link="probit".
IPWRA.from_formula("bweight ~ mage if mmarried == 1", b, treat="mbsmoke").fit()
    Type  data=data.query('mmarried == 1').
IPWRA.from_formula("bweight ~ mage", b, treat="ib1.mbsmoke").fit()
    Did you mean 'mbsmoke'?
IPWRA.from_formula("bweight ~ mage", b, treat="mbsmoke", stat="atet").fit()
    Type  target="atet"  (one of 'all', 'treated', 'control', 'overlap', 'matching', 'entropy').
IPWRA.from_formula("bweight ~ mage", b, treat="mbsmoke", weights="[pw=medu]").fit()
    Did you mean 'medu'?
IPWRA.from_formula("bweight ~ mage", b, treat="mbsmoke", pstolerance=1e-4).fit()
    Poor overlap is warned of, and res.overlap() has its numbers. Leave it out.
Hajek.from_formula("bweight ~ mage", b, treat="mbsmoke", neighbor=1, caliper=0.05, common=True).fit()
    That is not in this package; R's MatchIt matches.
Hajek.from_formula("bweight ~ mage", b, treat="mbsmoke", propensity_link="hetprobit").fit()
    Type  propensity_link=  one of them.
IPWRA.from_formula("lbweight ~ mage", b, treat="mbsmoke", family="probit").fit()
    Type  family='binomial', link='probit'.
IPWRA.from_formula("lbweight ~ mage", b, treat="mbsmoke", family="fracreg").fit()
    Type  family='binomial'.
IPWRA.from_formula("bweight ~ mage", b, treat="mbsmoke", psu="mage", strata="mmarried").fit()
    Type  cluster="mage".
IPWRA.from_formula("bweight ~ mage", b, treat="mbsmoke").fit(vce="bootstrap, reps(50)")
    Type  n_boot=50.
IPWRA.from_formula("bweight ~ mage", b, treat="mbsmoke").fit("pomeans")
    Type  cov_type=  one of 'robust', 'HC0', 'HC1', 'cluster', 'bootstrap'.
IPWRA.from_formula("bweight ~ mage", b, treat="mbsmoke", effect="pomeans").fit()
    Type  effect='difference'.
IPWRA.from_formula("bweight ~ mage", b, treat="mbsmoke").fit(vce="cluster mage")
    Type  from_formula(..., cluster="mage").fit().
fit.predict("te")
    Type  res.potential_outcomes  for the means of the sample in each arm, or  res.propensity_scores.
fit.predict(b, "ps")
    Type  res.potential_outcomes  for the means of the sample in each arm, or  res.propensity_scores.
fit.predict(statistic="ps")
    Type  res.potential_outcomes  for the means of each row in each arm, or  res.propensity_scores.
fit.tebalance_summarize()
    Type  res.balance().
fit.contrast("r.mbsmoke")
    Type  res.pairwise().
fit.nlcom("_b[POM1]/_b[POM0]")
    The parameters are ATE, POM[0], POM[1]. Type  "POM[1] / POM[0] - 1"  for example.
fit.estat("summarize")
    Type  res.glance().
fit.summary(aequations=True)
    Type  coefficients=True.
fit.effects_by("over(mmarried)")
    Type  by="mmarried".
fit.effects_by("i.mmarried")
    Type  by="mmarried".
fit.e("b")
    Type  res.propensity_scores,  or  res.params  for Stata's e(b).
fit.estimates_store("m1")
    Type  res.save("m1.pickle").
compare("bweight ~ mage", b, treat="mbsmoke", estimators="ra ipw ipwra aipw", n_boot=49)
    Type  estimators=["OutcomeRegression", "IPW", "IPWRA", "AIPW"].
compare("bweight ~ mage", b, treat="mbsmoke", estimators=["ipw", "aipw"], n_boot=49)
    Type  estimators=["IPW", "AIPW"].
fit.esttab(se=True)
    Type  causalrisk.etable([res]).
IPWRA.from_formula("bweight ~ c.(mage medu)##i.(mmarried fbaby)", b, treat="mbsmoke")
    Type  "bweight ~ (mage + medu)*(C(mmarried) + C(fbaby))".
IPWRA.from_formula("bweight ~ (mage + medu)##(mmarried + fbaby)", b, treat="mbsmoke")
    Type  "bweight ~ (mage + medu)*(mmarried + fbaby)".
IPWRA.from_formula("bweight ~ c.(mage medu) + i.(prenatal fbaby)", b, treat="mbsmoke")
    Type  "bweight ~ mage + medu + C(prenatal) + C(fbaby)".
IPWRA.from_formula("bweight ~ ln(mage) + medu", b, treat="mbsmoke")
    Type  np.log(mage).
IPWRA.from_formula("bweight ~ mage", b, treat="mbsmoke", stat="pomeans")
    Type  res.params  after the fit.
IPWRA.from_formula("bweight ~ mage", b, treat="mbsmoke", pomeans=True)
    Type  res.params  after the fit.
IPWRA.from_formula("bweight ~ mage", b, treat="mbsmoke", target="pomeans").fit()
    The potential-outcome means are in res.params of every fit. Leave it out.
IPWRA.from_formula("bweight ~ mage", b, treat="mbsmoke").fit(aequations=True)
    Type  res.summary(coefficients=True)  after the fit.
IPWRA.from_formula("bweight ~ mage", b, treat="mbsmoke", iff="mage >= 20 & fbaby == 1")
    Type  data=data.query("mage >= 20 & fbaby == 1").
AIPW.from_formula("bweight ~ mage", b, treat="mbsmoke", wnls=True)
    AIPW fits its outcome models by likelihood, IPWRA and JRE fit theirs under the weights. Leave it out.
IPWRA.from_formula("bweight ~ mage", b.assign(mbsmoke=b.mbsmoke.where(b.mage > 15, -9)), treat="mbsmoke")
    Negative numbers are often codes of missing values. Add  reference=0  (or keep two levels, e.g.  data[data["mbsm ...
fit.tebalance("density")
    Type  res.balance(), or  res.plot_overlap()  for how the scores are spread.
cr.estimates_table([fit, fit], se=True)
    Type  causalrisk.etable([res1, res2]).
fit.effects_by("mage > 30")
    Type  by=data.eval('mage > 30').
# R
Hajek.from_formula("mbsmoke ~ mage + medu", b, treat="mbsmoke").fit()
    Type  "<outcome> ~ mage + medu".
Hajek.from_formula("bweight ~ mage", b, treat="mbsmoke", method="ebal").fit()
    Type  propensity_loss="calibrated".
Hajek.from_formula("bweight ~ mage", b, treat="mbsmoke", stabilize=True).fit()
    It multiplies all weights of an arm by one number; the effect stays. Leave it out.
Hajek.from_formula("bweight ~ mage", b, treat="mbsmoke", s_weights="medu").fit()
    Type  weights="medu", weight_type="probability".
Hajek.from_formula("bweight ~ mage", b, treat="mbsmoke", moments=2, int=True).fit()
    Type  propensity="x1 + I(x1**2) + x1:x2".
Hajek.from_formula("bweight ~ mage", b, treat="msmoke", reference="0 daily", target="0 daily").fit()
    Hajek: ATC[1-5 daily] -233.89 (41.56), ATC[11+ daily] -309.36 (36.39), ATC[6-10 daily] -281.61 (35.23), 1-5 dail ...
Hajek.from_formula("bweight ~ mage", b, treat="mbsmoke", distance="glm", discard="both").fit()
    The propensity score is a logit anyhow. Leave it out.
AIPW.from_formula("bweight ~ mage", b, treat="mbsmoke", weights="~medu", weight_type="probability").fit()
    Did you mean 'medu'?
AIPW.from_formula("bweight ~ mage", b, treat="mbsmoke", cluster="~mage").fit()
    Did you mean 'mage'?
AIPW.from_formula("bweight ~ mage", b, treat="mbsmoke", design="svydesign").fit()
    Type  weights="w", weight_type="probability", cluster="psu"  for what is here.
AIPW.from_formula("bweight ~ mage", b, treat="mbsmoke", effect="lnor").fit()
    Type  effect='odds_ratio'.
AIPW.from_formula("bweight ~ mage", b, treat="mbsmoke", trim=0.1).fit()
    Type  trim=(0.1, 0.9).
AIPW.from_formula("bweight ~ mage", b, treat="mbsmoke", gbound=0.025).fit()
    Type  clip=(0.025, 0.975).
AIPW.from_formula("bweight ~ mage", b, treat="mbsmoke", clip=0.025).fit()
    Type  clip=(0.025, 0.975).
AIPW(b.bweight, b.mbsmoke, b[["mage", "medu"]]).fit()
    Type  endog=y, exog=X, treat=d.
AIPW(Y=b.bweight, A=b.mbsmoke, W=b[["mage", "medu"]]).fit()
    Type  AIPW(y, X, d).
AIPW.from_formula("Y ~ A + W", b, treat="A", gform="A ~ W").fit()
    Type  propensity="A ~ W".
AIPW.from_formula("bweight ~ mage", b, treat="mbsmoke", Q_SL_library=["SL.glm"]).fit()
    Type  propensity_score=LogisticRegression().
AIPW.from_formula("bweight ~ (mage + medu)^2", b, treat="mbsmoke").fit()
    Type  "bweight ~ (mage + medu)**2".
Hajek.from_formula("bweight ~ 1", b, treat="mbsmoke", propensity="mbsmoke ~ . - msmoke").fit()
    Type  propensity=" + ".join(data.columns.drop(["bweight", "mbsmoke", "msmoke"]))  without what else is no covari ...
AIPW.from_formula("bweight ~ . - msmoke + I(mage**2)", b, treat="mbsmoke").fit()
    Type  "bweight ~ " + " + ".join(data.columns.drop(["bweight", "mbsmoke", "msmoke"])) + " + I(mage**2)"  without  ...
AIPW.from_formula("bweight ~ te(mage, medu, k=5)", b, treat="mbsmoke").fit()
    Type  te(cr(mage, df=5), cr(medu, df=5), constraints='center').
AIPW.from_formula("bweight ~ bs(mage)", b, treat="mbsmoke").fit()
    Type  bs(mage, df=3).
AIPW.from_formula("bweight ~ C(mage, 3)", b, treat="mbsmoke").fit()
    Check that term; arithmetic belongs inside I(...), odd names inside Q("...").
AIPW.from_formula("bweight ~ prenatal %in% c(1, 2)", b, treat="mbsmoke").fit()
    Type  "bweight ~ prenatal.isin([1, 2])".
AIPW.from_formula("bweight ~ C(prenatal, contr.sum)", b, treat="mbsmoke").fit()
    Type  "bweight ~ C(prenatal, Sum)".
AIPW.from_formula("bweight ~ mage", b, treat="mbsmoke", target="ATOS").fit()
    Type  trim="crump"  for the rows of the optimal subset.
AIPW.from_formula("bweight ~ b$mage + b$medu", b, treat="mbsmoke").fit()
    Type  "bweight ~ mage + medu".
AIPW.from_formula("bweight = mage + medu", b, treat="mbsmoke").fit()
    Type  "bweight ~ mage + medu".
AIPW.from_formula("bweight \u223c mage + medu", b, treat="mbsmoke").fit()
    Type  "bweight ~ mage + medu".
AIPW.from_formula("msmoke ~ mage", b, treat="mbsmoke").fit()
    Turn it into numbers first, e.g.  I(msmoke == '0 daily') ~ mage  or  I(msmoke == '1-5 daily') ~ mage, which ...
Hajek.from_formula("bweight ~ mage", b, treat="mbsmoke", weight="overlap").fit()
    Type  target="overlap".
AIPW.from_formula("bweight ~ splines::ns(mage, 3)", b, treat="mbsmoke").fit()
    Type  cr(mage, df=3, constraints='center').
AIPW.from_formula("cbind(lbweight, fbaby) ~ mage", b, treat="mbsmoke").fit()
    Type  I(lbweight / (lbweight + fbaby))  with  weights=data["lbweight"] + data["fbaby"], weight_type="frequency".
AIPW.from_formula("lbweight ~ mage", b, treat="mbsmoke", family="binomial(link=probit)").fit()
    Type  family='binomial', link='probit'.
fit.balance(un=True)
    Both are in the table, before and after weighting. Leave it out.
fit.balance(stats=["m", "v"])
    Differences, variance ratios and KS are in the table. Leave it out.
fit.balance(thresholds={"m": 0.1})
    Type  threshold=0.1.
fit.balance(addl="~ fage")
    Type  also="~ fage".
fit.balance(poly=2)
    Type  interactions=True.
fit.balance(threshold={"m": 0.1})
    Type  threshold=0.1.
fit.balance(by="~mmarried")
    Type  by="mmarried".
fit.match_data()
    Rows are weighted, not matched. Type  res.importance_weights.
fit.avg_comparisons(variables="mbsmoke", by="mmarried")
    Type  res.params  for the effects and the potential-outcome means, POM[...], or  res.effects_by("column")  for t ...
fit.augment(b)
    Type  data.assign(score=res.propensity_scores, weight=res.importance_weights).
fit.confint("ATE", level=0.9)
    Type  res.conf_int(alpha=0.1)  for 90%, or  res.conf_int(cols=["ATE"])  for one of them.
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
AIPW.from_formula("bweight ~ mmarried", b, treat="mbsmoke", estimand="RR")
    Type  effect="ratio".
AIPW.from_formula("bweight ~ mmarried", b, treat="mbsmoke").fit(trim=0.99)
    Type  from_formula(..., trim=(0.01, 0.99)).fit()  to leave rows out by their score, or  from_formula(..., clip=( ...
compare([fit, fit])
    Type  etable([res1, res2]).
fit.teoverlap()
    Type  res.plot_overlap().
fit.balance_plot()
    Type  res.plot_balance().
fit.to_csv("out.csv")
    Type  res.tidy().
fit.conf_int("ATE", alpha=0.1)
    Give that by its name, one of method=, acceleration=, cols=, or leave it out.
fit.conf_int(method="perc")
    Type  method='percentile'.
fit.avg_predictions(by="mbsmoke")
    Type  res.params  for the effects and the potential-outcome means, POM[...].
fit.comparisons(newdata=b.head())
    Type  res.params  for the effects and the potential-outcome means, POM[...], or  res.effects_by("column")  for t ...
fit.conf_int("ATE")
    Type  cols=['ATE'].
fit.tidy(exponentiate=True)
    Type  res.model.with_options(effect="ratio").fit().
fit.summary(type="RR")
    Type  res.model.with_options(effect="ratio").fit().
fit.predict(b.head(), type="response")
    Everything is on the scale of the outcome. Leave it out.
table_one(b, by="mbsmoke")
    Type  table_one(["x1", "x2"], data, by="d").
table_one(b, ["mage", "medu"], by="mbsmoke")
    Type  covariates=['mage', 'medu'], data=data.
table_one("~ mage + medu | mbsmoke", b)
    Type  covariates="~ mage + medu", by="mbsmoke".
table_one("mage medu", b, by="mbsmoke")
    Type  "mage + medu".
table_one(["mage"], b, by="mbsmoke", pval=True)
    There are no p-values: they measure the sample size. Leave it out.
table_one(strata="mbsmoke", data=b, vars=["mage"])
    Type  by="mbsmoke".
pool([fit, fit], dfcom=100)
    Type  df_complete=100.
cr.modelsummary({"a": fit})
    Type  causalrisk.etable([res1, res2]).
cr.matchit("mbsmoke ~ mage", b)
    That is not in this package; R's MatchIt matches.
cr.load_cattaneo2()
    Type  causalrisk.datasets.load_cattaneo2().
cr.datasets.lalonde()
    Type  causalrisk.datasets.load_lalonde().
compare(fit, fit)
    Type  etable([res1, res2]).
etable([fit], below="t")
    Type  below='z'.
etable([fit], fmt="%.1f", output="markdown")
    Numbers have the digits of their standard errors. Leave it out.
etable([fit]).to_excel("t.xlsx")
    Type  table.frame.to_excel.
etable(fit, fit)
    Type  etable([res1, res2]).
etable([fit], se="hetero")
    Type  below="se"  for where they stand.
etable([fit], stars={"*": 0.05})
    Type  stars=True.
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
    For strata as covariates type  C(mrace)  in both formulas.
AIPW.from_formula("bweight ~ mage", b, treat="mbsmoke", k_split=5)
    Type  n_folds=5.
Hajek.from_formula("bweight ~ mage", b, treat="mbsmoke", distance="probit")
    Type  propensity_link="probit".
fit.model.fit(vcov="HC2")
    Type  cov_type="HC1".
fit.model.update(". ~ . + fage")
    Another formula is another model: from_formula(...).
fit.conf_int(type="perc")
    Type  method="percentile".
fit.plot_balance(abs=True)
    Differences are drawn without their signs; res.balance() has these. Leave it out.
fit.plot_balance(stars="raw")
    Differences of proportions have their star anyhow. Leave it out.
# statsmodels
IPWRA(sm.OLS.from_formula("bweight ~ mage", b), b.mbsmoke).fit()
    Type  IPWRA(y, X, d), or  IPWRA.from_formula("y ~ x1 + x2", data, treat="d").
IPWRA(b.bweight, sm.add_constant(b[["mage"]]), b.mbsmoke, results_select=sm.Probit.from_formula("mbsmoke ~ mage", b))
    The arrays of the propensity model are exog_propensity=; a formula goes to from_formula.
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
IPWRA.from_formula("bweight ~ mage", b, treat="mbsmoke").fit(effect_group=1)
    Type  from_formula(..., target=1).fit().
IPWRA.from_formula("bweight ~ mage", "mbsmoke ~ mage", b).fit()
    Type  IPWRA.from_formula("y ~ x1 + x2", data, treat="d", propensity="x1 + x2").
IPWRA.from_formula("bweight ~ mage", b, treat="mbsmoke", drop_cols=["mage"]).fit()
    Leave the terms out of the formula.
IPWRA.from_formula("bweight ~ mage", b, treat="mbsmoke", missing="none").fit()
    Type  missing="drop"  to leave out rows with missing values and count them, or  missing="raise"  to refuse them.
IPWRA.from_formula("lbweight ~ mage", b, treat="mbsmoke", family=sm.families.Binomial).fit()
    IPWRA: ATE 0.06518 (0.01196), 1 vs 0, n 4642
IPWRA.from_formula("lbweight ~ mage", b, treat="mbsmoke", family=sm.families.Binomial(sm.families.links.Probit())).fit()
    IPWRA: ATE 0.06517 (0.01196), 1 vs 0, n 4642
IPWRA.from_formula("bweight ~ mage", b, treat="mbsmoke", family=sm.families.Tweedie(var_power=1.5)).fit()
    Type  family=  one of them.
IPWRA.from_formula("bweight ~ mage", b, treat="mbsmoke", link=sm.families.links.Log()).fit()
    Type  link='log'.
IPWRA.from_formula("bweight ~ mage", b, treat="mbsmoke", propensity_link=sm.families.links.Probit()).fit()
    Type  propensity_link='probit'.
IPWRA.from_formula("bweight ~ mage", b, treat="mbsmoke").fit(start_params=np.zeros(4))
    The search finds its start. Leave it out.
IPWRA.from_formula("bweight ~ mage", b, treat="mbsmoke").fit(cov_type="HAC", cov_kwds={"maxlags": 1})
    Rows are independent, or dependent within clusters; there are no series of time. Leave it out.
IPWRA.from_formula("bweight ~ mage", b, treat="mbsmoke").fit_regularized(alpha=1)
    Type  dir(model)  for all there are.
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
IPWRA(b["bweight"], sm.add_constant(b[["mage"]]), b["mbsmoke"], hasconst=True).fit()
    No constant is added, and a missing one is warned of. Leave it out.
IPWRA.from_formula("bweight ~ mage", b.set_index(["mage", "medu"]), treat="mbsmoke").fit()
    Type  data=data.reset_index().
fit.model.fit(method="bfgs")
    Each model has its own search; JRE alone has several, JRE.from_formula(...).fit(method=...). Leave it out.
fit.cov_params(r_matrix=[1, 0, 0])
    Type  res.t_test([1, 0, 0])  for linear combinations.
fit.wald_test("ATE = 0", use_f=False, scalar=True)
    Tests are normal and chi-squared. Leave it out.
fit.t_test("ATE = 0", use_t=True)
    Tests are normal and chi-squared. Leave it out.
fit.predict(dict(mage=25, mmarried=1))
    Type  pandas.DataFrame([data])  for one row.
fit.predict(b.head(), transform=False)
    Rows are coded by the formula. Leave it out.
fit.remove_data()
    Results compute from their data. Type  res.tidy()  for the numbers alone.
fit.save("fit.pickle", remove_data=True)
    Type  res.tidy()  for the numbers alone.
fit.bootstrap(nrep=50)
    Type  res.model.fit(cov_type="bootstrap").
fit.mse_resid
    Several models are estimated together, and no likelihood or R squared is theirs. Type  res.calibration()  for ho ...
# Python
fit.plot_ps()
    Type  res.plot_overlap().
fit.plot_overlap(bins=30)
    The number of bars is fixed. Leave it out.
fit.plot_overlap(figsize=(6, 4))
    Type  ax=plt.subplots(figsize=(6, 4))[1].
fit.predict(b.head(), treat=1)
    Type  arm=1.
AIPW.from_formula("bweight ~ mage", b, treat="mbsmoke", model_propensity=LogisticRegression(), cv=3, random_state=0)
    Type  propensity_score=  with the classifier.
AIPW.from_formula("bweight ~ mage", b, treat="mbsmoke", propensity=LogisticRegression())
    Type  propensity_score=  with the classifier.
AIPW.from_formula("bweight ~ mage", b, treat="mbsmoke", cv=3)
    Type  n_folds=3.
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
IPWRA.load("fit.pickle")
    Type  causalrisk.load("fit.pickle").
cr.CausalResults.load("fit.pickle")
    Type  causalrisk.load("fit.pickle").
IPWRA.from_dataframe(b, "bweight")
    Type  IPWRA.from_formula("y ~ x1 + x2", data, treat="d").
fit.model.fit(estimand="ATT")
    Type  from_formula(..., target="ATT").fit().
fit.model.with_options(estimand="ATT")
    Type  target="ATT"  (one of 'all', 'treated', 'control', 'overlap', 'matching', 'entropy').
fit.model.with_options(formula="bweight ~ medu")
    It belongs to the data: make a new model with from_formula(...).
"""
LINES = [line for line in HABITS.strip().splitlines() if not line.startswith("# ")]


@pytest.fixture(scope="module")
def names():
    births = datasets.load_cattaneo2()
    fitted = IPWRA.from_formula("bweight ~ mage + mmarried", births, treat="mbsmoke").fit()
    tools = {"np": np, "pd": pd, "sm": sm, "cr": cr, "compare": compare, "etable": etable, "pool": pool}
    tools |= {"LogisticRegression": LogisticRegression}
    models = {"AIPW": AIPW, "IPWRA": IPWRA, "Hajek": Hajek, "table_one": table_one}
    return tools | models | {"b": births, "fit": fitted}


@pytest.mark.filterwarnings("ignore::causalrisk.DesignWarning")
@pytest.mark.parametrize(("call", "expected"), list(zip(LINES[::2], LINES[1::2], strict=True)))
def test_a_call_by_habit_works_or_is_told_what_to_type(names, call, expected):
    try:
        said = str(eval(call, names)).splitlines()[0]
    except (ValueError, TypeError, AttributeError) as error:
        said = str(error).splitlines()[-1]
    start, dots, _ = expected.strip().partition(" ...")
    assert said.startswith(start) if dots else said == start


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

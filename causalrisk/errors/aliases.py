"""Names and values of options in other packages. They are accepted if they have the same meaning here.

Each table maps a name or value of this package to its words in other packages, separated by blanks. `ANSWERS` maps
words without a counterpart to a sentence that says what to use.
"""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Iterable, Mapping
from typing import Any

MATCHING = "Use `Matching`, with replacement. It has `n_neighbors=`, `exact=`, `caliper=` and `bias_adjust=`."
LATE = 'LATE.from_formula("y ~ x", data, treat="d", instrument="z")'
INSTRUMENT = f"Use `causalrisk.{LATE}`."
SURVIVAL = "Survival outcomes are not supported here. R's riskRegression and adjustedCurves support them."
MEANS = "Leave it out: `res.params` of every fit has the potential-outcome means."
UNITS = "Effects of single units are not available here. Use `res.effects_by` for groups, or EconML or grf."

WEIGHTS = {  # words for weights, by `weight_type`
    "frequency": "freq_weights fweights fweight frequency_weights",
    "probability": "sample_weight sample_weights s_weights sampling_weights pweights pweight weightsname",
}
NAMES: dict[str, dict[str, str]] = {
    "model": {
        "treat": "treatment treatment_name treatment_col treat_col treat_name zname d D A",
        "propensity": "ps_formula propensity_formula treatment_formula gform ps_model propensity_model",
        "propensity_score": "ps pscore propensity_scores ml_m model_propensity model_t",
        "propensity_link": "tmodel",
        "target": "estimand population stat focal",
        "family": "omodel",
        "cluster": "clusters cluster_var cluster_cols clustervar clustervars",
        "weights": " ".join(WEIGHTS.values()),
        "observed": "missing_model cens_formula response_model ipmw",
        "learner": "ml_g ml_l Q_SL_library SL_library model_regression model_outcome model_y outcome_model",
        "n_folds": "cv n_splits nfolds kfolds k_folds k_split xfolds V",
        "n_repeats": "n_rep mc_iters",
        "reference": "control_level ref base baseline control",
        "treated": "treated_level treatment_level tlevel",
        "effect": "measure scale contrast comparison estimate_type",
        "quantiles": "quantile tau taus probs",
        "trim": "trimming",
        "clip": "ps_bounds bounds gbound truncate",
        "missing": "na_action dropna na_rm",
        "n_neighbors": "nneighbor M ratio",
        "metric": "distance",
        "bias_adjust": "biasadj BiasAdjust",
    },
    "fit": {
        "rng": "seed random_state rseed",
        "n_boot": "reps n_bootstrap n_bootstraps bootstrap_reps nboot n_resamples biters B R",
        "cov_type": "vce vcov cov se_type",
        "n_jobs": "n_workers workers num_threads cores",
        "progress": "verbose",
        "shrinkage": "anchor",
    },
    "run_study": {"n_sims": "reps n_samples", "rng": "seed random_state", "design": "designs", "estimators": "models"},
    "compare": {"estimators": "models estimator methods"},
    "event_study": {
        "begins": "gname gvar cohort cohort_name first_treat first_treated treatment_time treat_time",
        "time": "tname timevar time_name period year t",
        "unit": "idname id ivar unit_name panel_id entity i",
        "controls": "control_group comparison control",
        "base": "base_period", "estimator": "est_method",
    },
    "Survey": {
        "psu": "id ids cluster clusters", "strata": "stratum", "weights": "weight pweight pweights pw",
        "lonely": "lonely_psu singleunit", "replicate_weights": "repweights rep_weights", "replicate_type": "type",
    },
    "DiD": {"before": "pre", "unit": "id idname ivar entity", "time": "tname timevar period year t"},
    "table_one": {
        "by": "strata groupby group treat treatment", "covariates": "vars columns variables", "median": "nonnormal",
    },
    "etable": {"below": "ci confint", "results": "estimators models fits"},
    "method": {  # of results, studies and tables, where they have the option
        "alpha": "level conf_level ci", "data": "newdata X exog", "arm": "treatment", "coefficients": "coef",
        "threshold": "thresholds", "also": "addl", "n_permutations": "reps nperm n_perm", "rng": "seed random_state",
        "names": "model_names headers", "rename": "coef_map coef_rename", "df_complete": "dfcom",
    },
}  # fmt: skip

VALUES: dict[str, dict[str, str]] = {
    "effect": {
        "odds_ratio": "or odds-ratio oddsratio", "ratio": "rr risk_ratio risk-ratio", "percent": "percentage lift",
        "difference": "rd risk_difference", "quantile": "qte quantiles",
    },
    "cov_type": {
        "robust": "sandwich hc", "HC0": "hc0", "HC1": "hc1 stata", "HC3": "hc3", "CR3": "cr3", "bootstrap": "boot",
        "cluster": "clustered cr0", "jackknife": "jack jk loo leave_one_out",
    },
    "bootstrap": {"pairs": "rows nonparametric", "bayesian": "bayes", "multiplier": "score"},
    "propensity_loss": {"calibrated": "ipt", "ml": "mle glm"},
    "propensity_link": {"logit": "logistic", "probit": "normal"},
    "weight_type": {
        "frequency": "freq freq_weights fw fweight fweights",
        "probability": "prob pw pweight pweights sampling survey",
    },
    "family": {"gaussian": "ols linear", "binomial": "logit binary fractional fracreg", "poisson": "count"},
    "learner": {
        "smooth": "splines spline gam", "lasso": "glmnet sl.glmnet",
        "random-forest": "random_forest randomforest forest rf ranger",
        "hist-gradient-boosting": "hist_gradient_boosting histgradientboosting boosting gradient_boosting",
    },
    "metric": {"propensity": "glm logit ps pscore"},
    "adjust": {
        "fdr_bh": "bh fdr benjamini-hochberg", "single-step": "single_step",
        "holm": "", "bonferroni": "", "hochberg": "", "simes-hochberg": "",
    },
    "controls": {"never": "nevertreated never_treated", "not yet": "notyettreated not_yet_treated notyet not_yet"},
    "lonely": {"adjust": "centered", "average": "scaled", "certainty": "remove removed"},
    "alternative": {"larger": "greater", "smaller": "less", "two-sided": "two_sided twosided"},
    "by": {"exposure": "dynamic event event_time relative", "time": "calendar", "group": "cohort", "all": "overall"},
    "method": {"percentile": "perc", "normal": "wald", "studentized": "stud"},
    "below": {"z": "t tstat", "se": "std_error", "p": "pvalue", "ci": "confint"},
}  # fmt: skip

COLUMNS = ("cluster", "weights", "offset", "exposure", "strata", "psu", "fpc")  # R writes "~column"

# Further tables that apply to a call, after its own. Calls that are not listed have "method".
FURTHER = {"model": ["fit"], "fit": ["model"], "event_study": ["model", "fit"], "compare": ["model", "fit"]}

ANSWERS: dict[str, dict[str, str]] = {
    "model": {
        "pomeans pomean": MEANS,
        "atet att weight=att score=atte": 'Use `target="treated"`.',
        "subset if_": 'Use `data.query("...")` to select rows. For surveys, use `subpop=`.',
        "strata fpc psu ids svydesign survey": "Use `design=Survey(strata=)`; in trials, `C(s)` in the formulas.",
        "time tname unit id idname panel post": 'Use `did=DiD(time="year", unit="id")` or `cluster="id"`.',
        "instrument instruments iv z": INSTRUMENT,
        "time_effects entity_effects fixed_effects absorb fe": "For fixed effects, use `C(group)` in the formulas.",
        "stabilize stabilized": "Leave it out: stabilised weights give the same effect.",
        "score": 'Use `target="treated"` for the ATTE, or `propensity_score=` for known propensity scores.',
        "covariates controls confounders x X W": 'Write the covariates in the formula: `"y ~ x1 + x2"`.',
        "outcome y Y yname xformla": 'Write outcome and covariates in the formula: `"y ~ x1 + x2"`.',
        "by subgroup": 'Use `res.effects_by("group")` after the fit.',
        "nearest replace method=nearest": MATCHING,
        "method=glm": 'Leave it out for a logit, or use `propensity_link="probit"`.',
        "method=cbps method=ebal method=ipt": 'Use `propensity_loss="calibrated"`, which balances covariates.',
        "estimator estimators model method": "Use `AIPW.from_formula(...)`, for example, or `event_study(estimator=)`.",
        "aequations alpha level conf_level": "Use `res.summary(alpha=, coefficients=)` or `res.conf_int(alpha=)`.",
    },
    "fit": {
        "groups": 'Clusters belong to the model: `from_formula(..., cluster="column")`.',
        "maxiter tol start_params optimizer solver disp": "Leave it out: fits run to convergence.",
        "robust se": 'Use `cov_type="robust"`.',
        "shrinkage anchor join_score share objective spread replicates n_replicates method": (
            "Leave it out: it is an option of `JRE` only."
        ),
    },
    "event_study": {
        "treat d treatment dname": "Use `begins=` with the column of the first treated period of each unit.",
        "n_boot bootstrap bstrap biters cband rng": "Leave it out: simultaneous intervals do not need resamples.",
        "alp alpha level": "Use `study.effects(alpha=)`.",
    },
    "compare": {"cov_type cov_kwds": "Leave it out: `compare` uses the bootstrap. For clusters, use `cluster=`."},
    "power": {"n": "Use `power(run_study(..., n=[200, 500]))`: sample sizes are an option of the study."},
    "DiD": {"post": "Use `time=` with a column of two periods.", "gname gvar": "Use `event_study(..., begins=)`."},
    "method": {  # of results, studies and tables
        "exponentiate transform": 'Use `model.with_options(effect="ratio").fit()`.',
        "output file filename": 'Use `table.save("table.docx")` or `table.as_latex()`.',
        "coefs coef_omit gof_omit gof_map se": 'Use `keep=`, `drop=`, `statistics=["nobs"]` or `below="se"`.',
    },
    "cov_type": {
        "nonrobust iid oim opg hac newey-west": 'Standard errors are robust, but not HAC. Use `cov_type="robust"`.',
        "hc2 hc4 cr2 crv3": 'It needs a single regression, but several are fitted. Use `cov_type="jackknife"`.',
        "cr1 crv1": "Use `small_sample=True` with clusters.",
        "*": 'Use `cov_type="jackknife"`. For clusters, use `from_formula(..., cluster="column")`.',
    },
    "target": {"late": INSTRUMENT, "cate": UNITS, "pomeans": MEANS},
    "propensity_loss": {"cbps ebal entropy": 'Use `propensity_loss="calibrated"`: for ATT and ATC, it is the same.'},
    "propensity_score": {
        "random-forest hist-gradient-boosting lasso": "Use a classifier such as `RandomForestClassifier()`.",
        "logit probit": 'Use `propensity_link="probit"` for a probit. The default is a logit.',
    },
    "bootstrap": {"*": 'Use `n_boot=999`, or `cov_type="bootstrap"`.'},
    "weight_type": {"aweight aweights analytic": 'Use `weight_type="probability"`.'},
    "learner": {
        "xgboost xgb lightgbm gbm": 'Use `learner="hist-gradient-boosting"`, or a regressor of that package.',
        "ridge elasticnet linear": 'Use `learner="lasso"`, or a regressor such as `RidgeCV()`.',
    },
    "family": {
        "cox survival weibull hazard": SURVIVAL,
        "probit": 'Use `family="binomial", link="probit"`.',
        "negativebinomial nbinomial nbreg negbin nb": "Use `family=sm.families.NegativeBinomial(alpha=1.0)`.",
    },
    "adjust": {"sidak scheffe tukey dunnett": 'Use `adjust="single-step"`.'},
    "results": {
        "llf aic bic rsquared rsquared_adj prsquared ssr fvalue df_model": (
            "Several models are estimated together, so there is no single likelihood. See `res.outcome_params`."
        ),
        "compare_lr_test compare_f_test lr_test anova f_test": 'Use `res.wald_test("ATE = 0")`.',
        "margins get_margeff avg_comparisons comparisons avg_predictions pomeans slopes": (
            'Use `res.params` for effects and means, or `res.effects_by("x")` for effects by group.'
        ),
        "fittedvalues fitted": "Use `res.predict()`.",
        "lincom hypotheses": "Use `res.t_test(...)` or `res.nlcom(...)`.",
        "ate ate_ att atc ato ATE ATT ATC ATO": "Use `res.effect`, or `model.with_options(target=...).fit()`.",
        "to_latex as_latex to_html to_word to_docx": 'Use `res.summary().as_latex()` or `.save("table.docx")`.',
        "to_csv to_excel to_dict to_json to_markdown": "Use `res.tidy()`, a data frame.",
        "fit get_robustcov_results HC0_se HC1_se HC3_se": 'Use `model.fit(cov_type="HC1")`, for example.',
        "bootstrap": "Use `model.fit(n_boot=999)`.",
        "plot_effects forest_plot coefplot plot_params": "Use `res.plot_effects_by()`, or `compare(...).plot()`.",
        "rosenbaum_bounds": "Use `causalrisk.rosenbaum_bounds(treated, control)` with the outcomes of the pairs.",
        "with_options": "Use `model.with_options(...).fit()`.",
    },
    "study": {
        "aggte aggregate dynamic event simple overall": 'Use `study.effects("exposure")`, `"group"` or `"simple"`.',
        "att att_gt coef bse pvalues conf_int": "Use `study.params`, or `study.effects(None)` for a table.",
        "vcov cov": "Use `study.cov_params()`.",
        "to_latex as_latex to_html to_word to_docx": 'Use `study.summary().as_latex()` or `.save("table.docx")`.',
    },
    "test": {"effect params bse tvalues conf_int nobs": "Use the results of the fit: `res.params`, for example."},
    "package": {
        "modelsummary esttab outreg2 stargazer summary_col": "Use `causalrisk.etable([res1, res2])`.",
        "bal_tab cobalt love_plot": "Use `res.balance()` and `res.plot_balance()`.",
        "svydesign svyset": "Use `causalrisk.Survey(...)`.",
        "teffects TreatmentEffect": "Use `OutcomeRegression`, `IPW`, `IPWRA` or `AIPW`: `.from_formula(...).fit()`.",
        "weightit WeightIt PSweight CBPS ebal": 'Use `causalrisk.IPW.from_formula(..., propensity="x1 + x2")`.',
        "DoubleML DoubleMLIRM DoubleMLData DRLearner LinearDML": "Use `AIPW` with `learner=`, or `JRE`.",
        "att_gt csdid hdidregress CallawaySantAnna": "Use `causalrisk.event_study(begins=, time=, unit=)`.",
        "did drdid DRDID": 'Use `AIPW` with `did=causalrisk.DiD(before="y0")`.',
        "IV2SLS ivreg ivregress": INSTRUMENT,
        "CausalForestDML causal_forest": UNITS,
        "OLS GLM ols ra RA GFormula RegressionAdjustment": "Use `OutcomeRegression`, a regression in each group.",
        "psmatch PSM MatchIt matchit": 'Use `Matching`, with `metric="propensity"` for the propensity score.',
        "DoublyRobust DR": "Use `AIPW` or `IPWRA`.",
    },
}

TESTS = "t_test wald_test nlcom equivalence_test lincom hypotheses compare_lr_test compare_f_test lr_test anova f_test"
ANSWERS["late"] = {TESTS: "Use `res.pvalues`, or see whether `res.conf_int()` contains the value."} | ANSWERS["results"]
ANSWERS["pooled"] = {
    TESTS: 'Use `res.nlcom("ATE = 0")`, which uses the pooled variance.',
    "fit bootstrap get_robustcov_results HC0_se HC1_se HC3_se with_options ate ate_ att atc ato": (
        'Use `res.effect`, or pool other fits: `pool([model.fit(cov_type="HC1") for model in models])`.'
    ),
} | ANSWERS["results"]

ATTRIBUTES: dict[str, str] = {  # attributes of results that have another name here
    "params": "coef coef_ coefficients estimate estimates",
    "effect": "effect_",
    "bse": "se std_errors std_error std_err stderr",
    "tvalues": "zvalues zstats t_values",
    "pvalues": "pvalue p_values pval",
    "conf_int": "confint ci conf_interval ate_interval",
    "cov_params": "vcov cov",
    "nobs": "n n_obs N",
    "summary": "summary2",
    "importance_weights": "weights ipw_weights",
    "propensity_scores": "propensity propensity_score ps pscore",
    "wald_test": "wald test",
    "balance": "smd bal_tab tebalance tebalance_summarize balance_table",
    "plot_balance": "love_plot plot_love loveplot",
    "plot_overlap": "plot_propensity plot_ps plot_weights teoverlap",
    "sensitivity": "evalue e_value evalues",
    "effects_by": "cate gate heterogeneity",
    "permutation_test": "ritest permute randomization_test fisher_test",
    "learner_fit": "nuisance_loss evaluate_learners",
}


def by_word(table: Mapping[str, str]) -> dict[str, str]:
    """Invert a table of alternative words: return a mapping from each word to the name in this package."""
    return {word: name for name, words in table.items() for word in words.split()}


def answer(place: str, word: str) -> str:
    """Return the advice on a word of another package; empty if there is none."""
    return next((text for words, text in ANSWERS.get(place, {}).items() if word in words.split()), "")


def nearest(word: object, names: Iterable[str], most: int, likeness: float = 0.6) -> list[str]:
    """Return at most `most` names with a similarity of at least `likeness` to a word, ignoring case."""
    folded = {name.casefold(): name for name in names}
    return [folded[found] for found in difflib.get_close_matches(str(word).casefold(), folded, most, likeness)]


def near(word: str, names: Iterable[str]) -> str:
    """Return a text such as "Did you mean `a` or `b`?" with the most similar names; empty if no name is similar."""
    found = nearest(word, names, 2)
    return f"Did you mean {' or '.join(f'`{name}`' for name in found)}?" if found else ""


def clusters_in(value: Any) -> str:
    """Return the option `cluster=` for a `cov_type` such as Stata's "cluster firm" or R's "~firm". Empty for others."""
    kind, *names = (re.findall(r"~|\w+", value) if isinstance(value, str) else []) or [""]
    if kind not in ("cl", "cluster", "~") or not names:
        return ""
    return f'cluster="{names[0]}"' if len(names) == 1 else f"cluster={names}"


def attribute(place: str, what: str, word: str, names: Iterable[str]) -> str:
    """Return the message for an attribute that does not exist."""
    advice = answer(place, word) or near(word, [n for n in names if n[:1] != "_"]) or f"See `dir({what})`."
    return f"{what} has no attribute `{word}`.\n{advice}"


def value_meant(option: str, value: Any) -> Any:
    """Replace another package's word for an option's value by this package's; return other values unchanged."""
    if isinstance(value, list | tuple):
        return type(value)(value_meant(option, each) for each in value)
    if type(value).__module__.endswith("families.links"):  # of statsmodels
        return type(value).__name__.lower()
    if not isinstance(value, str):
        return value
    if option in COLUMNS and value.startswith("~"):
        return value.lstrip("~ ")
    known = VALUES.get(option, {})
    return ({name.casefold(): name for name in known} | by_word(known)).get(value.casefold(), value)


def tables_of(place: str) -> list[str]:
    """Return the keys under which a call's names and answers are listed in the tables; the first has priority."""
    return [place, *FURTHER.get(place, ["method"])]


def options_text(defaults: Mapping[str, Any]) -> str:
    """Return a sentence with the names of a call's options, without its main argument."""
    names = [f"`{name}=`" for name in defaults]
    if next(iter(defaults.values()), None) is inspect.Parameter.empty:
        del names[0]
    return f"The options are {', '.join(names)}." if names else "There are no options."


def unknown_option(place: str, word: str, names: Mapping[str, Any], value: Any = None) -> str:
    """Return the message for an option that a call does not have."""
    tables, elsewhere = tables_of(place), {"model": "from_formula(...).fit", "fit": "from_formula"}.get(place)
    words = [f"{word}={value.casefold()}", word] if isinstance(value, str) else [word]
    advice = next((found for table in tables for each in words if (found := answer(table, each))), "")
    named = (name for name, others in NAMES.get(tables[1], {}).items() if word in (name, *others.split()))
    if elsewhere and (option := next(named, None)):
        clusters = clusters_in(value) if option == "cov_type" else ""
        advice = f"Use `{clusters or f'{elsewhere}({option}=...)'}`."
    return f"unknown option `{word}`.\n{advice or near(word, names) or options_text(names)}"

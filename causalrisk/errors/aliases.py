"""Names and values of options in other packages: read where they mean the same here, answered where they do not.

Every table maps what is typed here to the words for it elsewhere, separated by blanks; `ANSWERS` maps words that have
no counterpart of the same meaning to a sentence that says what to use.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

COMING_FROM = "docs/howto/coming_from_stata_r_statsmodels.md"
MATCHING = "Use `Matching.from_formula(..., n_neighbors=1, exact=, caliper=, bias_adjust=)`."
INSTRUMENT = "Instruments are not in this package; linearmodels and DoubleML have them."
SURVIVAL = "Survival outcomes are not in this package; R's riskRegression and adjustedCurves have them."
UNITS = "Effects of single units are not in this package (EconML and grf have them); see `res.effects_by`."

NAMES: dict[str, dict[str, str]] = {
    "model": {
        "treat": "treatment treatment_name treat_name zname d D A",
        "propensity": "ps_formula propensity_formula treatment_formula gform ps_model propensity_model tmodel",
        "propensity_score": "ps pscore propensity_scores",
        "target": "estimand population focal",
        "cluster": "clusters cluster_var cluster_cols clustervar clustervars",
        "weights": "freq_weights fweights fweight frequency_weights sample_weight sample_weights s_weights "
        "sampling_weights pweights pweight survey_weights",
        "offset": "log_exposure offsets",
        "exposure": "person_time person_years time_at_risk",
        "observed": "missing_model cens_formula response_model ipmw",
        "learner": "ml_g ml_l Q_SL_library SL_library model_regression model_outcome omodel outcome_model",
        "n_folds": "cv n_splits nfolds kfolds k_folds k_split xfolds V",
        "n_repeats": "n_rep",
        "reference": "control_level ref base baseline control",
        "treated": "treated_level treatment_level tlevel",
        "effect": "measure scale contrast estimate_type",
        "quantiles": "quantile tau taus probs",
        "trim": "trimming",
        "clip": "ps_bounds bounds",
        "missing": "na_action",
    },
    "fit": {
        "rng": "seed random_state rseed",
        "n_boot": "reps n_bootstrap n_bootstraps bootstrap_reps nboot n_resamples biters B R",
        "cov_type": "vce vcov se_type",
        "n_jobs": "n_workers workers num_threads cores",
        "progress": "verbose",
    },
    "run_study": {"n_sims": "reps n_samples", "rng": "seed random_state", "design": "designs", "estimators": "models"},
    "compare": {"estimators": "models estimator methods"},
    "event_study": {
        "begins": "gname gvar cohort cohort_name first_treat first_treated treatment_time treat_time",
        "time": "tname timevar time_name period year t",
        "unit": "idname id ivar unit_name panel_id entity i",
        "controls": "control_group",
        "weights": "weightsname",
        "cluster": "clustervars clustervar",
    },
}

VALUES: dict[str, dict[str, str]] = {
    "effect": {
        "odds_ratio": "or odds-ratio oddsratio", "ratio": "rr risk_ratio risk-ratio", "percent": "percentage lift",
        "difference": "rd risk_difference", "quantile": "qte quantiles",
    },
    "cov_type": {
        "robust": "sandwich hc", "bootstrap": "boot", "cluster": "clustered", "jackknife": "jack jk loo leave_one_out",
    },
    "bootstrap": {"pairs": "rows nonparametric", "bayesian": "bayes", "multiplier": "score"},
    "multiplier": {"rademacher": "rad", "webb": "six_point", "mammen": "two_point"},
    "propensity_loss": {"calibrated": "cbps ebal ipt entropy", "ml": "mle glm"},
    "propensity_link": {"logit": "logistic", "probit": "normal"},
    "weight_type": {
        "frequency": "freq freq_weights fw fweight fweights",
        "probability": "prob pw pweight pweights sampling survey",
    },
    "family": {
        "gaussian": "ols linear", "binomial": "logit probit binary fractional fracreg", "poisson": "count",
    },
    "learner": {
        "smooth": "splines spline gam", "random-forest": "random_forest randomforest forest rf",
        "hist-gradient-boosting": "hist_gradient_boosting histgradientboosting boosting gradient_boosting",
    },
    "learner_use": {"terms": "features", "replace": "outcome_model", "stack": "ensemble"},
    "at_exposure": {"observed": "asobserved"},
    "controls": {
        "never": "nevertreated never_treated", "not yet": "notyettreated not_yet_treated notyet not_yet",
    },
    "lonely": {"adjust": "centered", "average": "scaled", "certainty": "removed"},
    "alternative": {"larger": "greater", "smaller": "less", "two-sided": "two_sided twosided"},
    "by": {"exposure": "dynamic event event_time relative", "time": "calendar", "group": "cohort", "all": "overall"},
    "method": {"percentile": "perc", "normal": "wald", "studentized": "stud"},
    "below": {"z": "t tstat", "se": "std_error", "p": "pvalue", "ci": "confint"},
}  # fmt: skip

PLACES = {  # the tables of a call, the first counts most
    "model": ["model"],
    "fit": ["fit"],
    "event_study": ["event_study", "model"],
    "compare": ["compare", "model", "fit"],
}

ALSO: dict[str, tuple[str, str]] = {  # a word that says a second option too
    **dict.fromkeys(NAMES["model"]["weights"].split()[:4], ("weight_type", "frequency")),
    **dict.fromkeys(NAMES["model"]["weights"].split()[4:], ("weight_type", "probability")),
    "weightsname": ("weight_type", "probability"),
    "probit": ("link", "probit"),
}

ANSWERS: dict[str, dict[str, str]] = {
    "model": {
        "pomeans pomean": "The potential-outcome means are estimated with every effect: `res.params`.",
        "atet att": 'Use `target="treated"`.',
        "subset iff if_": 'Choose the rows in the data: `data.query("...")`; `subpop=` is for surveys.',
        "weight aweight iweight var_weights": 'Use `weights=` with `weight_type="frequency"` or `"probability"`.',
        "strata stratum fpc psu ids": "Use `design=Survey(strata=)`; strata of a trial are `C(s)` in the formulas.",
        "svydesign svy survey survey_design rep_weights repweights replicate_weights": "Use `design=Survey(...)`.",
        "before pre pre_outcome lagged_outcome": 'Use `did=DiD(before="y0")`.',
        "time tname timevar time_var unit id idname ivar entity panel": "Use `did=DiD(time=, unit=)`, or `cluster=`.",
        "instrument instruments iv z": INSTRUMENT,
        "time_effects entity_effects fixed_effects absorb fe": "Fixed effects are `C(group)` in the formulas.",
        "ps_trim discard common": "Use `trim=(0.1, 0.9)` to leave rows out, or `clip=(0.01, 0.99)`.",
        "gbound g_bound min_propensity trimming_threshold clipping_threshold ps_processor_config": "Use `clip=`.",
        "stabilize stabilized": "Stabilised weights give the same effect. Leave it out.",
        "normalize_ipw": "The weights of Hajek and IPWRA are normalised, those of AIPW are not. Leave it out.",
        "moments int poly": 'Powers and products are terms of the formula: `propensity="x1 + I(x1**2) + x1:x2"`.',
        "ml_m g_SL_library": "Use `propensity_score=` with a classifier such as `LogisticRegression()`.",
        "score": 'Use `target=` for the population (ATTE: `target="treated"`), `propensity_score=` for known scores.',
        "covariates controls confounders common_causes x X W": 'Covariates are in the formula, `"y ~ x1 + x2"`.',
        "outcome y Y yname": 'The outcome is in the formula: `from_formula("y ~ x1 + x2", data, treat="d")`.',
        "by subgroup subgroups": 'Use `res.effects_by("group")` after the fit.',
        "censoring ipcw delta Delta attrition": 'Use `observed=` with a formula such as `"x1 + x2"`.',
        "ratio nearest neighbor nneighbor biasadj replace distance": MATCHING,
        "dose dosage": "A treatment has levels here; causal-curve and R's causaldrf have continuous doses.",
        "estimator method": "The estimator is the class: `IPWRA.from_formula(...)`, `AIPW.from_formula(...)`.",
        "aequations alpha level": "Use `res.summary(alpha=, coefficients=)` after the fit.",
        "penalty": 'Use `learner="lasso"` for penalised regression.',
    },
    "fit": {
        "groups": 'Clusters belong to the model: `from_formula(..., cluster="column")`.',
        "maxiter tol start_params optimizer solver": "The optimisers run to convergence. Leave it out.",
        "effect_group pomeans pomean": 'Use `from_formula(..., target="treated")`; `res.params` has the arm means.',
        "aequations alpha level conf_level": "Use `res.summary(alpha=, coefficients=)` or `res.conf_int(alpha=)`.",
        "robust cov se": 'Use `cov_type="robust"`.',
        "boot bootstrapped": 'Use `cov_type="bootstrap"` or `n_boot=999`.',
        "n_starts memory bootstrap_replicates": "It is not an option any more. Leave it out.",
        "shrinkage anchor join_score share objective penalty spread": "It is an option of `JRE` alone.",
        "replicates n_replicates method": "It is an option of `JRE` alone.",
    },
    "event_study": {
        "yname xformla": 'Outcome and covariates are in the formula, `event_study("y ~ x1", data, ...)`.',
        "est_method method estMethod": 'Use `estimator="AIPW"`, `"Hajek"` or `"OutcomeRegression"`.',
        "anticipation": "Let `begins=` hold the first period in which units may react.",
        "base base_period long2 reference": "The change is since the last period before the group began. Leave it out.",
        "panel allow_unbalanced_panel": "Every unit needs a row in every period.",
        "treat treated d treatment dname": "Use `begins=` with the first period of treatment of each unit.",
        "did before": "Periods and units are options here: `begins=`, `time=`, `unit=`.",
        "target effect reference levels quantiles subpop n_repeats": "Effects are of the treated. Leave it out.",
        "n_boot bootstrap multiplier resamples bstrap boot cband rng seed n_jobs max_failed": "Use `cov_type=`.",
        "alp alpha level": "Use `study.effects(alpha=)`.",
    },
    "compare": {
        "cov_type cov_kwds": 'The table has bootstrap and robust standard errors; clusters are `cluster="column"`.',
    },
    "cov_type": {
        "nonrobust hac": "Standard errors of an effect are always robust; HAC covariances are not supported.",
        "hc2 hc4 cr2": 'Use `"jackknife"`: leverages of one regression ignore the other equations.',
        "cr1": "Use `small_sample=True` with clusters.",
    },
    "target": {"late": INSTRUMENT, "cate": UNITS, "pomeans": "`res.params` has the potential-outcome means."},
    "family": {
        "cox survival weibull hazard": SURVIVAL,
        "multinomial mlogit ordinal ologit oprobit": "R's WeightIt has ordinal and multinomial outcomes.",
    },
    "adjust": {
        "scheffe sidak tukey tukeyhsd dunnett maxt mvt single_step": 'Use `adjust="single-step"`.',
        "bh fdr benjamini-hochberg": 'Use `adjust="fdr_bh"`.',
    },
    "results": {
        "resid fittedvalues": "`res.predict()` has the fitted mean in each treatment group.",
        "llf aic bic rsquared rsquared_adj prsquared deviance scale ssr fvalue df_model mle_retvals": (
            "Several models are estimated together, without one likelihood; see `res.outcome_params`."
        ),
        "compare_lr_test compare_f_test lr_test anova f_test joint_test": 'Use `res.wald_test("ATE = 0")`.',
        "margins get_margeff marginal_effects avg_comparisons comparisons avg_predictions pomeans means": (
            '`res.params` has effects and potential-outcome means; `res.effects_by("x")` has effects by group.'
        ),
        "lincom hypotheses": "Use `res.t_test(...)` or `res.nlcom(...)`.",
        "tost noninferiority equivalence": "Use `res.equivalence_test(-10, 10)` with the limits that matter.",
        "tukey dunnett pwcompare pairs t_test_pairwise emmeans multipletests": "Use `res.pairwise(adjust=)`.",
        "ate ate_ att atc ato": "Use `res.effect`, or `res.model.with_options(target=)` for another population.",
        "to_latex as_latex to_html as_html": "Use `res.summary().as_latex()` or `res.summary().as_html()`.",
        "to_csv to_excel to_dict to_markdown": "Use `res.tidy()`, a data frame.",
        "to_gt gt great_tables": "Use `causalrisk.etable([res]).to_gt()`.",
        "outreg2 esttab etable modelsummary stargazer estimates_table": "Use `causalrisk.etable([res])`.",
        "remove_data": "Results compute from their data; `res.tidy()` has the numbers alone.",
        "plot": "Use `res.plot_diagnostics()`, `res.plot_balance()` or `res.plot_overlap()`.",
        "fit refit bootstrap get_robustcov_results": "Use `res.model.fit(cov_type=)`.",
        "augment": "Use `data.assign(score=res.propensity_scores, weight=res.importance_weights)`.",
    },
    "model attribute": {
        "ra ipw aipw aipw_wls ipwra ipw_ra": "An estimator is a class: `AIPW.from_formula(...).fit()`.",
        "score loglike hessian information": "Use `model.fit().estimating_equations()`.",
        "fit_regularized": 'Use `model.with_options(learner="lasso").fit()`.',
    },
    "study": {
        "att att_gt estimates coef": "Use `study.params`, or `study.effects(None)` for a table.",
        "aggte aggregate dynamic event simple overall": 'Use `study.effects("exposure")`, `"group"` or `"time"`.',
        "bse tvalues pvalues conf_int tidy table": "Use `study.effects(None)` for every group and period.",
        "balance overlap plot_balance sensitivity predict": "Use `study.fits[group, time]`, one of the fits.",
    },
    "package": {
        "modelsummary esttab estout outreg2 stargazer summary_col texreg": "Use `causalrisk.etable([res1, res2])`.",
        "TableOne tableone CreateTableOne table1 tbl_summary": 'Use `causalrisk.table_one(["x1"], data, by="d")`.',
        "bal_tab cobalt love_plot": "Use `res.balance()` and `res.plot_balance()`.",
        "weightit WeightIt twang PSweight CBPS ebal": 'Use `causalrisk.IPW.from_formula(..., propensity="x1 + x2")`.',
        "matchit MatchIt psmatch psmatch2 nnmatch Match matching": MATCHING,
        "DoubleML DoubleMLIRM IRM DoubleMLData DRLearner LinearDML DoubleMLPLR telasso": "Use `AIPW` with `learner=`.",
        "att_gt csdid hdidregress staggered": 'Use `causalrisk.event_study("y ~ x", data, begins=, time=, unit=)`.',
        "did drdid DRDID Did DiffInDiff": 'Use `causalrisk.AIPW.from_formula(..., did=causalrisk.DiD(before="y0"))`.',
        "CausalForestDML causal_forest SLearner TLearner XLearner": UNITS,
        "SuperLearner sl3": 'Use `causalrisk.JRE.from_formula(..., learner=["smooth", "lasso"])`.',
        "OLS GLM ols": "Use `causalrisk.OutcomeRegression`, a regression in each treatment group.",
    },
}

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
    "importance_weights": "weights ipw_weights get_weights",
    "propensity_scores": "propensity propensity_score ps pscore predict_proba",
    "wald_test": "wald test",
    "balance": "smd bal_tab tebalance balance_table",
    "plot_balance": "love_plot plot_love loveplot",
    "plot_overlap": "plot_propensity plot_ps plot_weights teoverlap",
    "overlap": "ess effective_n",
    "sensitivity": "evalue e_value evalues",
    "effects_by": "cate gate",
    "permutation_test": "ritest permute randomization_test fisher_test",
    "learner_fit": "nuisance_loss evaluate_learners",
    "boot_params": "boot",
    "glance": "estat",
}


def _by_word(table: Mapping[str, str]) -> dict[str, str]:
    return {word: name for name, words in table.items() for word in words.split()}


def answer(place: str, word: str) -> str:
    """Return the sentence on a word of another package; empty where there is none."""
    return next((text for words, text in ANSWERS.get(place, {}).items() if word in words.split()), "")


def near(word: str, names: Iterable[str]) -> str:
    """Return a question with the two nearest names; empty where none is near."""
    folded = {name.casefold(): name for name in names}
    close = [folded[found] for found in difflib.get_close_matches(word.casefold(), folded, 2, 0.6)]
    return f"Did you mean {' or '.join(f'`{name}`' for name in close)}?" if close else ""


def attribute(place: str, what: str, word: str, names: Iterable[str]) -> str:
    """Return the message for an attribute that does not exist."""
    advice = answer(place, word) or near(word, [n for n in names if n[:1] != "_"]) or f"See `dir({what})`."
    return f"{what} has no attribute `{word}`.\n{advice}"


def value_meant(option: str, value: Any) -> Any:
    """Return the value of an option that another package's word means; any other value as it is."""
    if isinstance(value, list | tuple):
        return type(value)(value_meant(option, each) for each in value)
    if type(value).__module__.endswith("families.links"):  # of statsmodels
        return type(value).__name__.lower()
    return _by_word(VALUES.get(option, {})).get(value.casefold(), value) if isinstance(value, str) else value


def read(place: str, given: Mapping[str, Any], defaults: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the options of a call under their names and values here.

    Parameters
    ----------
    place : {"model", "fit", "event_study", "compare"}
        The call.
    given : mapping
        The options that were given, those that were left out maybe with their defaults.
    defaults : mapping
        The options that the call has, with their defaults.

    Returns
    -------
    options : dict
        The options, words of other packages replaced.
    notes : tuple of str
        A sentence for each replacement.

    Raises
    ------
    TypeError
        If an option has no meaning here, or is given twice.
    """
    notes: list[str] = []
    words = {word: name for table in PLACES[place] for word, name in _by_word(NAMES[table]).items() if name in defaults}
    found = {name: value for name, value in given.items() if name in defaults}
    for word in [word for word in given if word not in found]:
        if word not in words:
            raise TypeError(unknown_option(place, word, defaults))
        name, value = words[word], given[word]
        now = found.get(name)
        if now is not None and not (isinstance(now, str | int) and now == defaults[name]):
            raise TypeError(f"`{word}` is another name of `{name}`, and both were given.\nLeave one of them out.")
        found[name] = value
        notes.append(f"`{word}` was read as `{name}`.")
        if word in ALSO:
            _say_also(f"`{word}`", *ALSO[word], found, defaults)
    for name, value in list(found.items()):
        meant = value_meant(name, value)
        if meant is not value and not (isinstance(value, list | tuple) and list(meant) == list(value)):
            found[name] = meant
            notes.append(f"`{name}={value!r}` was read as `{name}={meant!r}`.")
            if isinstance(value, str) and value.casefold() in ALSO:
                _say_also(f"`{name}={value!r}`", *ALSO[value.casefold()], found, defaults)
    return found, tuple(notes)


def _say_also(what: str, name: str, value: str, found: dict[str, Any], defaults: Mapping[str, Any]) -> None:
    """Set an option that a word says too; refuse another value of it."""
    given = found.get(name)
    if given not in (None, defaults.get(name)) and value_meant(name, given) != value:
        raise TypeError(f"{what} says `{name}={value!r}`, and `{name}={given!r}` was given.\nLeave one of them out.")
    found[name] = value


def unknown_option(place: str, word: str, names: Iterable[str]) -> str:
    """Return the message for an option that a call does not have."""
    advice = next((found for table in PLACES[place] if (found := answer(table, word))), "")
    elsewhere = {"model": "fit", "fit": "model"}.get(place, "")
    if elsewhere and not advice and (word in NAMES[elsewhere] or word in _by_word(NAMES[elsewhere])):
        option = _by_word(NAMES[elsewhere]).get(word, word)
        advice = f"Use `{'from_formula(...).fit' if elsewhere == 'fit' else 'from_formula'}({option}=...)`."
    if not advice and elsewhere:
        advice = answer(elsewhere, word)
    advice = advice or near(word, names) or f"The options are {', '.join(f'`{name}`' for name in names)}."
    return f"unknown option `{word}`.\n{advice} Options of other packages: {COMING_FROM}."

"""References that the report and the methods paragraph cite, by first author and year."""

REFERENCES = {
    "binder_1983": (
        "Binder, D. A. (1983). On the variances of asymptotically normal estimators from complex surveys. "
        "International Statistical Review 51, 279-292."
    ),
    "callaway_2021": (
        "Callaway, B. and Sant'Anna, P. H. C. (2021). Difference-in-differences with multiple time periods. Journal "
        "of Econometrics 225, 200-230."
    ),
    "cameron_2011": (
        "Cameron, A. C., Gelbach, J. B. and Miller, D. L. (2011). Robust inference with multiway clustering. Journal "
        "of Business and Economic Statistics 29, 238-249."
    ),
    "chernozhukov_2018": (
        "Chernozhukov, V. et al. (2018). Double/debiased machine learning for treatment and structural parameters. "
        "Econometrics Journal 21, C1-C68."
    ),
    "chernozhukov_2022": (
        "Chernozhukov, V., Cinelli, C., Newey, W., Sharma, A. and Syrgkanis, V. (2022). Long story short: omitted "
        "variable bias in causal machine learning. NBER working paper 30302."
    ),
    "crump_2009": (
        "Crump, R. K., Hotz, V. J., Imbens, G. W. and Mitnik, O. A. (2009). Dealing with limited overlap in "
        "estimation of average treatment effects. Biometrika 96, 187-199."
    ),
    "efron_1981": (
        "Efron, B. and Stein, C. (1981). The jackknife estimate of variance. Annals of Statistics 9, 586-596."
    ),
    "efron_1993": "Efron, B. and Tibshirani, R. J. (1993). An Introduction to the Bootstrap. Chapman & Hall.",
    "firpo_2007": (
        "Firpo, S. (2007). Efficient semiparametric estimation of quantile treatment effects. Econometrica 75, 259-276."
    ),
    "groenwold_2012": (
        "Groenwold, R. H. H., White, I. R., Donders, A. R. T., Carpenter, J. R., Altman, D. G. and Moons, K. G. M. "
        "(2012). Missing covariate data in clinical research: when and when not to use the missing-indicator method "
        "for analysis. CMAJ 184, 1265-1269."
    ),
    "hajek_1971": (
        "Hajek, J. (1971). Comment on a paper by D. Basu. In Foundations of Statistical Inference, 236. Holt, "
        "Rinehart and Winston."
    ),
    "imai_2014": (
        "Imai, K. and Ratkovic, M. (2014). Covariate balancing propensity score. Journal of the Royal Statistical "
        "Society B 76, 243-263."
    ),
    "kline_2012": (
        "Kline, P. and Santos, A. (2012). A score based approach to wild bootstrap inference. Journal of Econometric "
        "Methods 1, 23-41."
    ),
    "li_2013": (
        "Li, L. and Greene, T. (2013). A weighting analogue to pair matching in propensity score analysis. "
        "International Journal of Biostatistics 9, 215-234."
    ),
    "li_2018": (
        "Li, F., Morgan, K. L. and Zaslavsky, A. M. (2018). Balancing covariates via propensity score weighting. "
        "Journal of the American Statistical Association 113, 390-400."
    ),
    "lumley_2010": "Lumley, T. (2010). Complex Surveys: A Guide to Analysis Using R. Wiley.",
    "robins_1994": (
        "Robins, J. M., Rotnitzky, A. and Zhao, L. P. (1994). Estimation of regression coefficients when some "
        "regressors are not always observed. Journal of the American Statistical Association 89, 846-866."
    ),
    "robins_1995": (
        "Robins, J. M., Rotnitzky, A. and Zhao, L. P. (1995). Analysis of semiparametric regression models for "
        "repeated outcomes in the presence of missing data. Journal of the American Statistical Association 90, "
        "106-121."
    ),
    "rosenbaum_1983": (
        "Rosenbaum, P. R. and Rubin, D. B. (1983). The central role of the propensity score in observational studies "
        "for causal effects. Biometrika 70, 41-55."
    ),
    "rubin_1981": "Rubin, D. B. (1981). The Bayesian bootstrap. Annals of Statistics 9, 130-134.",
    "santanna_2020": (
        "Sant'Anna, P. H. C. and Zhao, J. (2020). Doubly robust difference-in-differences estimators. Journal of "
        "Econometrics 219, 101-122."
    ),
    "stefanski_2002": (
        "Stefanski, L. A. and Boos, D. D. (2002). The calculus of M-estimation. The American Statistician 56, 29-38."
    ),
    "tan_2020": (
        "Tan, Z. (2020). Regularized calibrated estimation of propensity scores with model misspecification and high-"
        "dimensional data. Biometrika 107, 137-158."
    ),
    "vanderweele_2017": (
        "VanderWeele, T. J. and Ding, P. (2017). Sensitivity analysis in observational research: introducing the "
        "E-value. Annals of Internal Medicine 167, 268-274."
    ),
    "wooldridge_2007": (
        "Wooldridge, J. M. (2007). Inverse probability weighted estimation for general missing data problems. Journal"
        " of Econometrics 141, 1281-1301."
    ),
    "yang_2016": (
        "Yang, S., Imbens, G. W., Cui, Z., Faries, D. E. and Kadziola, Z. (2016). Propensity score matching and "
        "subclassification in observational studies with multi-level treatments. Biometrics 72, 1055-1065."
    ),
    "zhang_2025": (
        "Zhang, A. (2025). Causal Inference as Distribution Adaptation: Optimizing ATE Risk under Propensity "
        "Uncertainty. arXiv:2512.18083."
    ),
    "zhou_2020": (
        "Zhou, Y., Matsouaka, R. A. and Thomas, L. (2020). Propensity score weighting under limited overlap and model"
        " misspecification. Statistical Methods in Medical Research 29, 3721-3756."
    ),
}

"""The words of the two pages of evidence, between the tables of `tests.studies.evidence`.

Braces stand for numbers, which `tests.studies.evidence_pages` takes from the stored tables.
"""

PAGE = """# Evidence

Where the joint robust estimator (JRE) does better than IPWRA, and where worse. Losses first.

## What was compared

JRE with its defaults (but {replicates} propensity replicates instead of 200) and IPWRA, on the same samples. They are
drawn from [populations](../reference/api/simulation.md) whose effect is known. Both models have main effects only, as
an analyst might specify. The table has JRE's mean squared error divided by IPWRA's. **Below 1 JRE is better.** The
Monte Carlo error is in parentheses.

![One row per population, losses on top. Markers are sample sizes of 200, 500 and 1000.](evidence.svg)

*Bars reach two Monte Carlo errors to either side; the axis is logarithmic.*

{gains}

"Wrong" says which of the analyst's models is misspecified, and what it misses.

## Losses

- **LaLonde's kind of data**: discrete covariates, many zeros, heavy tails, poor overlap. JRE is no remedy for poor
  overlap.
- **A binary outcome fitted by linear models**, at n = 200.
- **Both models correct** (`linear`, `linear_strong`, `heavy_tails`), or a wave that no line can follow (`wiggly`):
  between {right_low} and {right_high}.
- Rerun with 800 to 3,000 samples, the cells above 1.03 give 1.026 to 1.034.

## Gains

If the outcome model misses a curve, JRE's mean squared error is {wrong_low} to {wrong_high} times IPWRA's. The
geometric mean over {six} is {means} at n = 200, 500 and 1000. The paper's headline is 0.85, the dotted line. Part of
the gain is in the choice of populations: these six were chosen because a model is wrong.

## Only the outcome model correct

Here the propensity model misses a square, the outcome model is correct, and effects differ. Ratios from
{scores_samples} samples ([biases](../development/evidence_notebook.md#double-robustness)):

{scores}

## Coverage

The last two columns of the first table are the share of 95% intervals that contain the effect at n = 500. The intervals
are normal, from {n_boot} resamples of rows (`bootstrap="pairs"`). They ignore the bias of two wrong models
(`kang_schafer`, `doubly_wrong`).

## Real data

The truth is unknown, so only precision can be compared. The last column has JRE's bootstrap standard error divided by
IPWRA's, on the same resamples of rows. JRE has 200 replicates. The formulas are from the
[textbooks](../tutorials/textbooks.md).

{real}

Nothing gained, nothing lost.

## What this does not say

Simulated populations are not yours. Simulate around [your own fit](../howto/simulate.md#your-own-population), or
[compare](../howto/compare.md) the estimators on your data. [JRE next to other estimators](everybody.md) has AIPW, TMLE
and more, also on populations of other papers.

{made}
"""

NOTEBOOK = """# Notebook of the evidence

What [the page of evidence](../explanation/evidence.md) leaves out. The same command makes both.

## Kang and Schafer's problem itself

The mean of an outcome that is observed only for the treated; the truth is 210. n = 200, both models wrong,
{mean_samples} samples. The last column has what Kang and Schafer (2007) printed. JRE has 200 replicates here.

{mean}

## Double robustness

Bias with its Monte Carlo error, then root mean squared error, {scores_samples} samples. Effects differ, the outcome
model is correct, and the propensity model misses a square (`python -m tests.studies.study_robust`). With `share=0`
JRE is not doubly robust.

{scores_biases}

The four cells, each model correct or wrong: n = 1000, {cells_samples} samples of `"doubly_wrong"` with `curvature=0.5`.

{cells}

## Benchmarks that others made

Root mean squared error over IPWRA's on the same samples, with main effects in both models, losses of JRE on top. The
command is `python -m tests.studies.study_outside --data FOLDER`. Another page says
[how the samples are made](benchmarks.md#benchmarks-that-others-made). EB is entropy balancing, which has no solution on
PSID.

{outside}

{made}
"""

WRONG = {
    "strong": "outcome: a square",
    "weak_overlap": "outcome: a square",
    "doubly_wrong": "both: a square",
    "kang_schafer": "both: functions",
    "ten_covariates": "outcome: a square",
    "wiggly": "outcome: a wave",
    "linear": "nothing",
    "linear_strong": "nothing",
    "randomized": "outcome; a trial",
    "quadratic": "outcome: a square",
    "interaction": "outcome: a product",
    "binary_outcome": "outcome: binary",
    "heavy_tails": "nothing",
    "rare_treatment": "outcome: a square",
    "lalonde_like": "outcome; poor overlap",
    "forty_covariates": "outcome: a square",
}

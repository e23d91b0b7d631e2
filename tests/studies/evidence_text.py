"""The words of the two pages of evidence, between the tables of `tests.studies.evidence`.

Braces stand for numbers, which `tests.studies.evidence_pages` takes from the stored tables.
"""

PAGE = """# Evidence

Where the joint robust estimator (JRE) does better than IPWRA, and where worse. Losses first.

## What was compared

JRE as it is by default, but with {replicates} propensity replicates in place of 200, and IPWRA, on the same samples.
The samples are drawn from [populations](../reference/api/simulation.md) whose effect is known, and the models are what
an analyst would type: main effects. What counts is the mean squared error of JRE over that of IPWRA. **Below 1 JRE is
better.** A number in parentheses is the Monte Carlo error of the one before it: two of them either way are what chance
may do.

![Mean squared error of JRE over that of IPWRA, a row for each population, the losses on top. Markers are sample sizes
of 200, 500 and 1000.](evidence.svg)

*Bars reach two Monte Carlo errors to either side; the axis is logarithmic.*

{gains}

"Wrong" says which of the analyst's models is wrong, and what it misses.

## Losses

- **LaLonde's kind of data** (discrete covariates, many zeros, heavy tails, poor overlap): {lalonde}. JRE is no
  remedy for poor overlap.
- **A binary outcome fitted by lines**: {binary}.
- **Both models right** (`linear`, `linear_strong`, `heavy_tails`), or a wave that no line can follow (`wiggly`):
  between {right_low} and {right_high}.
- [More samples](../reference/measurements.md#more-samples-of-three-cells) of cells above 1.03 give 1.026 to 1.034.

## Gains

Where the outcome model misses a curve, JRE has from {wrong_low} to {wrong_high} of IPWRA's mean squared error. The
geometric mean over {six} is {means} at n = 200, 500 and 1000. The paper's headline is 0.85, the dotted line. Part of
the gain is in the choice of populations: these six were chosen because a model is wrong.

## Only the outcome model right

JRE is right in large samples if either model is. Ratios where the propensity model misses a square, the outcome model
is right and effects differ, {scores_samples} samples
([biases](../reference/evidence_notebook.md#double-robustness)):

{scores}

The last had 1.744 at n = 2000 before the robust variance [raised the shrinkage](jre.md#the-shrinkage).

## Coverage

The last two columns are the share of 95% intervals (normal, from {n_boot} resamples of rows, `bootstrap="pairs"`) that
hold the effect at n = 500. Where the propensity
model is right it is {ipwra_low} to {ipwra_high} for IPWRA and {jre_low} to {jre_high} for JRE. Where both models are
wrong (`kang_schafer`, `doubly_wrong`) intervals know nothing of the bias: {jre_kang} and {jre_doubly} for JRE,
{ipwra_kang} and {ipwra_doubly} for IPWRA.

## Real data

The truth is unknown, so only precision can be compared: the bootstrap standard error of JRE over that of IPWRA, on the
same resamples of rows, with JRE's 200 replicates and the formulas of the
[lessons](../tutorials/published_numbers.md).

{real}

Between {real_low} and {real_high}: nothing gained, nothing lost.

## What this does not say

Simulated populations are not yours. Simulate around [your own fit](../howto/simulate.md), or
[compare](../howto/compare.md) the estimators on your data. Nothing here concerns unrecorded confounders. The
[notebook](../reference/evidence_notebook.md) has every estimator, coverage at n = 200 and settings, the
[measurements](../reference/measurements.md) real data and learners.

{made}
"""

NOTEBOOK = """# Notebook of the evidence

What was measured beside [the page of evidence](../explanation/evidence.md), and what was tried. Made by the same
command. No cell stands on both pages with two values: where JRE has been measured there with more samples it is left
out here.

## Every estimator

Mean squared error relative to IPWRA at n = 500, {others_samples} samples:

{ratios}

n times the mean squared error over the semiparametric efficiency bound of the design. The bound is what an estimator
can reach in large samples that knows nothing about the shape of the outcome's mean. A parametric regression knows
its shape; where that is right it may do better, as outcome regression does in `linear_strong`. Where models are
wrong the bias decides, and the numbers grow with n.

{bounds}

## Kang and Schafer's problem itself

The mean of an outcome that is seen only for the treated, n = 200, both models wrong, {mean_samples} samples. The
true mean is 210. With the outcome set to 0 where it is not seen, the effect is that mean. Kang and Schafer (2007)
printed the bias and the root mean squared error of ordinary least squares. JRE has its 200 replicates here.

{mean}

## Double robustness

Bias with its Monte Carlo error, and root mean squared error, {scores_samples} samples of three populations with
effects that differ; the outcome model is right and the propensity model misses a square
(`python -m tests.studies.study_robust`, JRE with {replicates} replicates). `share=0` is the objective without the
subtraction that makes JRE doubly robust.

{scores_biases}

The four cells, each model right or wrong: n = 1000, {cells_samples} samples of
`designs.DoublyWrong(curvature=0.5)`.

{cells}

## Benchmarks that others made

Root mean squared error over that of IPWRA on the same samples, main effects in both models, the losses of JRE on top
(`python -m tests.studies.study_outside --data FOLDER`;
[how the samples are made](benchmarks.md#benchmarks-that-others-made)). EB are weights of least entropy that balance the
covariates; on PSID there are none. A number in parentheses is the Monte Carlo error.

{outside}

The same for the mean absolute error, in which single samples count for less:

{outside_absolute}

## Coverage of the 95% interval

Normal intervals from the bootstrap ({n_boot} resamples of rows), {covered} samples a row; SE / SD is the mean standard
error over the standard deviation of the estimates. JRE's standard error allows for the choice of the anchor.

{coverage}

## Settings of the objective

By a prototype apart from the package (`tests.studies.study_defaults`), {settings_samples} samples of n = 200 a
design: the mean squared error of each setting over that of the default on the same samples. With so few samples
differences below 0.1 are noise.

{settings}

The share of intervals that hold the effect differs from the default's by {coverage_apart} at most.

- **Spread.** Replicates of full spread lose where overlap is poor (`lalonde_like`) and fail with forty covariates;
  half the spread does neither. 0.35 is as good as 0.5 on most designs.
- **Caution.** Half a standard error of caution gains what a whole one does or more; one and a half gives away a part
  of the gain.
- **No fixed anchor is right.** 0.3 gains most where models are wrong and loses on `lalonde_like` and `heavy_tails`;
  3 is safe and gains half.

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

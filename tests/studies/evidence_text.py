"""The words of docs/explanation/evidence.md, between the tables of `tests.studies.evidence`."""

HEAD = """# Evidence

Where the joint robust estimator wins and where it loses, on samples from populations whose effect is known. The page is
written by one command, given at its end, and every number in parentheses is a Monte Carlo error. Populations, true
effects and efficiency bounds are in `causalrisk.simulation.designs`; `causalrisk.simulation.run_study` runs any of it
again, on your own designs too, and `causalrisk.simulation.plasmode(res)` on your own data."""

GAIN = """## Mean squared error relative to IPWRA

Below 1 JRE is better. Both estimators see the same samples, and the models that an analyst would type: main effects.
The first six designs are wrong on purpose: the outcome model misses a square (`strong` and `weak_overlap` with the
propensity model right, `ten_covariates` with six covariates that do nothing), both models miss the same square
(`doubly_wrong`), both use functions of the covariates that matter (`kang_schafer`), or the outcome model misses a wave
(`wiggly`). In `linear` and `linear_strong` both models are right, and there is nothing to gain; `randomized` is a
trial. `lalonde_like` has discrete covariates, many zeros and heavy tails. The paper's headline is up to 15% less, 0.85.

![Mean squared error of JRE over that of IPWRA](evidence.svg)"""

MEAN = """## Kang and Schafer's problem itself

The mean of an outcome that is seen only for the treated, n = 200, both models wrong. The true mean is 210. With the
outcome set to 0 where it is not seen, the effect is that mean. Kang and Schafer (2007) printed the bias and the root
mean squared error of ordinary least squares."""

OTHERS = (
    """## Every estimator

Mean squared error relative to IPWRA at n = 500:""",
    """n times the mean squared error over the semiparametric efficiency bound of the design, which no regular estimator
beats in large samples when its models are right:""",
)

COVERAGE = """## Coverage of the 95% interval

n = 500, standard errors by the bootstrap for both."""

TRIED = """## What was tried

See the notes on the defaults in the repository's history."""

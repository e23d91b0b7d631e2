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

Normal intervals from the bootstrap for both, 500 samples a row. JRE's standard error allows for the choice of the
anchor. Where both models are wrong (`kang_schafer`, `doubly_wrong`) neither interval knows of the bias."""

TRIED = (
    """## What was tried

Settings of the objective, by a prototype apart from the package (`tests.studies.study_defaults`): mean squared error
over that of IPWRA, 60 samples a design.""",
    """Coverage of the 95% interval whose standard error is that of the influence function held out:""",
    """What this and larger runs of it say:

- **Spread.** Replicates of full spread lose where overlap is poor (`lalonde_like`) and fail with forty covariates;
  half the spread does neither. 0.35 is as good as 0.5 on most designs.
- **Caution.** With each unit left out exactly, half a standard error of caution gains what a whole one does or more;
  one and a half gives away a part of the gain. A single Newton step with leverage understated the variance of small
  anchors on `lalonde_like` samples by up to a half.
- **No fixed anchor is right.** 0.3 gains most where models are wrong and loses on `lalonde_like` and `heavy_tails`;
  3 is safe and gains half.""",
)

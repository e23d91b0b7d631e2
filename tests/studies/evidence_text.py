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

TRIED = (
    """## What was tried

Settings of the joint objective, by a prototype apart from the package (`tests.studies.study_defaults`, which explains
the names): mean squared error over that of IPWRA. `erm, n2` is `objective="erm"`, the literal reading of the paper.""",
    """Coverage of the 95% interval whose standard error is that of the influence function held out:""",
    """What this and larger runs of it say:

- **The penalty on the net bias under replicates of full spread costs precision where overlap is poor.** `erm, n2` and,
  less, `mse 0.3, 10n` lose to IPWRA on `lalonde_like` samples. The spread enters with the wrong sign: estimating the
  propensity score by maximum likelihood lowers the variance of the effect. The default takes half of it.
- **No fixed anchor is right.** Small anchors gain most where models are wrong (0.3 times IPWRA's mean squared error
  on `kang_schafer`) and lose up to 10% where both are right and overlap is poor. Choosing the anchor by the variance
  of the influence function held out, a rung below the first taken only if it is better by a standard error, keeps both:
  no clear loss on the designs that are right, and most of the gain on the others.
- **One Newton step with leverage is enough** to hold a row out. Five-fold cross-validation chose as well, but depends
  on a random split and costs five fits. Without the leverage (Takeuchi's criterion) small anchors are chosen too
  often: losses of 5 to 8% on `linear_strong` at n = 200.
- **Did not help,** in trials with the prototype apart from the tables above: adding the expected risk over the
  replicates to what is held out (a geometric mean of 0.76 over the wrong designs at n = 200, where it is 0.68 without);
  the square of the mean net bias over replicates (in 200 samples of `lalonde_like` at
  n = 200, with the anchor held out, 2.5 times IPWRA's mean squared error, Monte Carlo error 1.2: a few replicates with
  extreme weights decide); replicates of the sample and the propensity score together, whose net biases have the right
  covariance but which need thousands of replicates; anchors chosen
  without the margin of a standard error (2 to 4% losses); projecting the influence function inside the objective
  (gains a little at n = 200 and loses on `lalonde_like` at n = 500; the bootstrap standard error on `cattaneo2` is
  1.05 times IPWRA's, and 1.03 without it).""",
)

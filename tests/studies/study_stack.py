"""Rules for the weights of a stack: `python -m tests.studies.study_stack --data FOLDER --sims 20 --stored 10`.

On the benchmarks of `study_learners` JRE is fitted once for each sample and learner. Its fits (the formula, predictions
as terms, predictions alone) are then averaged by other weights too, from their effects and the covariance of their
influence functions. Printed are the errors over those of IPWRA on the same samples.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # one thread a process; must be set before numpy loads
os.environ.setdefault("OMP_NUM_THREADS", "1")

from functools import partial

import numpy as np

from causalrisk import JRE
from causalrisk.estimators.stack import least_variance_weights
from tests.studies.study_learners import TAILS, averages, trees, with_resampled_errors
from tests.studies.study_outside import parser_of, run_benchmarks, wide

LEARNERS = {"boosting": [trees()], "smooth": ["smooth"], "both": [trees(), "smooth"]}
LAST = {}  # fits of the sample at hand


def variance_counted(times, covariance):
    """Weights that minimise w' (S + (times - 1) diag S) w."""
    halved = covariance + np.diag(np.diag(covariance)) * (times / 2 - 1)
    return least_variance_weights(halved)  # which counts each variance twice


def only(kept, covariance):
    """The package's weights of some of the fits, in the order that a stack of one learner has."""
    found, chosen = np.zeros(len(covariance)), np.flatnonzero(kept(np.arange(len(covariance))))
    found[chosen] = least_variance_weights(covariance[np.ix_(chosen, chosen)])
    return found


RULES = {  # covariance of the effects -> weights, which are made to add up to one
    "each variance twice": partial(variance_counted, 2),
    "each once": partial(variance_counted, 1),
    "five times": partial(variance_counted, 5),
    "1 / SE^4": lambda covariance: np.diag(covariance) ** -2.0,
    "the least SE": lambda covariance: np.diag(covariance) == np.diag(covariance).min(),
    "equal": lambda covariance: np.ones(len(covariance)),
    "no formula": partial(only, lambda number: number > 0),
    "no terms": partial(only, lambda number: number % 2 == 0),
    "nothing alone": partial(only, lambda number: (number == 0) | (number % 2 == 1)),
}


def averaged(trial, learner, rule, n_replicates):
    """Estimate by a rule; the fit of a sample serves all rules."""
    if LAST.get("trial") is not trial:
        LAST.clear()
        LAST["trial"] = trial
    if learner not in LAST:
        model = trial.model(JRE, learner=LEARNERS[learner])
        stack = model.fit(cov_type="robust", n_replicates=n_replicates, rng=trial.seed)._record.stack
        LAST[learner] = np.array([record.estimate.params[0] for record in stack.records]), stack.covariances
    effects, covariance = LAST[learner]
    weights = np.asarray(RULES[rule](covariance), dtype=float)
    return float(weights @ effects / weights.sum()), np.nan


def main():
    """Print the tables."""
    args = parser_of(__doc__).parse_args()
    groups = {"usual": {"IPWRA": "IPWRA"}} | {
        learner: {
            f"{learner}, {rule}": partial(averaged, learner=learner, rule=rule, n_replicates=args.n_replicates)
            for rule in RULES
        }
        for learner in LEARNERS
    }
    table = with_resampled_errors(run_benchmarks(groups, args))
    if args.table:
        table.to_csv(args.table, index=False, float_format="%.6g")
    print(f"Errors over those of IPWRA, JRE with {args.n_replicates} replicates\n")
    print(wide(table, "rmse_ratio").T.to_string())
    print(f"\nOver the benchmarks, {TAILS} by its mean absolute error\n{averages(table).round(3).to_string()}")


if __name__ == "__main__":
    main()

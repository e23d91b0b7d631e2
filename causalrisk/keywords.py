"""Keywords of other libraries and versions, and what to type here instead."""

from __future__ import annotations

import dataclasses

from causalrisk.options import JREOptions

_OF_JRE = "It is an option of causalrisk.JRE(...).fit only."
FIT_INSTEAD = {
    "cov_kwds": 'Clusters are given to the model: from_formula(..., cluster="column"); fit(cov_type="cluster").',
    "use_t": "p-values and intervals are normal; use_t is always False. Leave it out.",
    "disp": "fit prints nothing; progress=True shows the bootstrap.",
    "maxiter": "The optimisers run to convergence; res.converged and res.optimize_result tell. Leave it out.",
    "seed": "Type  rng=0.",
    "reps": "Type  n_boot=.",
    "n_bootstrap": "Type  n_boot=.",
    "vce": 'Type  cov_type="robust", "cluster" or "bootstrap".',
    "random_state": "Type  rng=0.",
}
FIT_SEPARATE = FIT_INSTEAD | {
    field.name: f"{_OF_JRE}\nType  causalrisk.JRE.from_formula(...).fit({field.name}=...)."
    for field in dataclasses.fields(JREOptions)
}
MODEL_INSTEAD = {
    "treatment": "Type  treat=.",
    "groups": "Clusters: type  cluster=.",
    "estimand": 'Type  target="all", "treated", "control" or "overlap".',
    "subset": "Give the rows themselves: data=data[...].",
    "eval_env": "Variables are taken from data=, or from where from_formula is called. Leave it out.",
    "seed": "Give it to fit: fit(rng=0).",
    "rng": "Give it to fit: fit(rng=0).",
    "cov_type": 'Give it to fit: fit(cov_type="robust").',
    "n_boot": "Give it to fit: fit(n_boot=999).",
}
DATA_OPTIONS = ("treat", "propensity", "treated", "reference", "levels", "weights", "weight_type", "cluster")
NEW_MODEL = "It belongs to the data: make a new model with from_formula(...)."

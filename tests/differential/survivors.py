"""Changes of the source that `tests.differential.mutants` tries and nothing can notice, each with the reason."""

from __future__ import annotations

NO_ROWS = "Only of a resample without rows of the target: its tilt is zero in every row that counts, and it has failed."
NOT_LAST = "The axis is the last or not the last."
READER = "Both have as many entries; `strict` is there for the reader."
UNKNOWN = "NumPy takes any negative length for the one that it is to find."

# module: {(the line, what becomes what): why}
EXPLAINED: dict[str, dict[tuple[str, str], str]] = {
    "causalrisk/estimators/separate.py": {
        (
            "derivatives=tuple(mean.derivatives(arm) for mean, arm in zip(arms, rows.arms, strict=True)),",
            "True  ->  False",
        ): READER,
    },
    "causalrisk/estimators/weights.py": {
        ("return tilt[:, None] / np.where(mean > 0, mean, 1.0)", "1.0  ->  2.0"): NO_ROWS,
    },
    "causalrisk/estimators/refit.py": {
        ("every = zip(rows.outcome, training, rows.full.theta, strict=True)", "True  ->  False"): READER,
    },
    "causalrisk/estimators/specification.py": {
        ("return shifted(self.q @ self.theta, self.sample.mean_offset, axis=-2)", "-2  ->  +2"): NOT_LAST,
        ("return shifted(self.q @ self.theta, self.sample.mean_offset, axis=-2)", "2  ->  3"): NOT_LAST,
    },
    "causalrisk/propensity/weights.py": {
        ("return np.where(values > 0, values, 1.0)", "1.0  ->  2.0"): NO_ROWS,
        ("return (self.columns.T @ mass).reshape(-1, mass.shape[2])", "1  ->  2"): UNKNOWN,
    },
    "causalrisk/estimators/joint/anchor.py": {
        ("climb = Climb(trainer, criteria[0], dict(zip(anchors, found, strict=True)))", "0  ->  1"): (
            "The criteria of a ladder differ in alpha alone."
        ),
        ("climb = Climb(trainer, criteria[0], dict(zip(anchors, found, strict=True)))", "True  ->  False"): READER,
        ("std_errors=solutions[0].criterion.rms_residual * np.sqrt(variances)[order],", "0  ->  1"): (
            "The root mean square is that of the start, the same for all."
        ),
        (
            "together = max(KEPT // (8 * rows.sample.n * (found[0].theta.size + 1)), 1)",
            "found[0].theta.size + 1  ->  found[0].theta.size - 1",
        ): "How many share a pass: of time and memory alone.",
        ("for solution, products in zip(some, weight_products(some, rows), strict=True):", "True  ->  False"): READER,
    },
    "causalrisk/estimators/joint/influence.py": {
        ("none = np.zeros((1, 0))", "1  ->  2"): "It has no entries.",
    },
    "causalrisk/inference/fitted_models.py": {
        (
            "blocks = zip(record.design.labels, outcome_coefficients(record), strict=True)",
            "True  ->  False",
        ): READER,
    },
    "causalrisk/diagnostics/scores.py": {
        (
            "return np.asarray(inverse_sum(scores) <= cut) if len(scores) > 2 else inside(scores[1:], *limits_at(cut))",
            "inverse_sum(scores) <= cut  ->  inverse_sum(scores) < cut",
        ): "No row costs exactly twice a mean of costs.",
    },
    "causalrisk/estimators/joint/objective.py": {
        ("values = -times_replicated[..., -1].T.reshape(len(contrasts), count, -1)", "1  ->  2"): UNKNOWN,
    },
}

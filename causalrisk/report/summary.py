"""The regression-style summary of a fit: which numbers go where. How they are laid out is `render`'s."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from math import floor, log10

import numpy as np
from scipy.special import ndtr

from causalrisk.coefficients import Coefficients, Estimates
from causalrisk.diagnostics.overlap import LARGE_WEIGHT
from causalrisk.inference.intervals import normal_interval
from causalrisk.joint import JointEstimate
from causalrisk.ledger import Reason
from causalrisk.linalg import Array
from causalrisk.options import PENALTY_NAMES
from causalrisk.record import FitRecord, JointRecord
from causalrisk.report.numbers import column_format, format_p, format_share
from causalrisk.report.render import ResultSummary, TableContent, build_summary

Rows = tuple[tuple[str, ...], ...]
ROUNDING = 1e-13
LONG_NAME = 16  # of an effect, in characters
WIDTHS = (0, 10, 10, 9, 8, 11, 11)
NOTE_JOINT = (
    "JRE lets the arms' biases cancel: read the {estimand}. Each POM is shown net of the common bias (the effect is "
    "the same either way). Unit-level effects and outcome coefficients are not interpretable; take them from res.start."
)
NOTE_BIASES = (
    "The bias columns are means and RMS over the propensity replicates: a bias the arms share does no harm, only the "
    "net one enters the effect. They are fitted in this sample and say nothing of unmeasured confounders or missing "
    "overlap."
)
NOTE_AS_IPWRA = (
    "No way to let the biases cancel was clearly more precise than IPWRA's own fit, judged by rows held out "
    "(res.anchor_path), so JRE kept that fit."
)


def z_and_p(values: Array, se: Array, null: Array | float = 0.0) -> tuple[Array, Array]:
    """Return z statistics against the null and two-sided p-values; NaN where the standard error is zero to rounding."""
    rounded = rounded_se(values, se)
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.where(rounded > 0, (values - null) / rounded, np.nan)
    return z, 2 * ndtr(-np.abs(z))


def rounded_se(values: Array, se: Array) -> Array:
    """Return the standard errors, zero where they are below the rounding error of the estimates."""
    return np.where(se <= ROUNDING * np.abs(values).max(initial=0), 0.0, se)


def summarize(
    record: FitRecord,
    estimates: Estimates,
    *,
    alpha: float,
    title: str | None,
    yname: str | None,
    coefficients: Coefficients | None,
    beside: Coefficients | None,
) -> ResultSummary:
    """Compose the summary of a fit.

    Parameters
    ----------
    record : FitRecord
        The fit.
    estimates : Estimates
        Effects and arm means, named.
    alpha : float
        Significance level of the intervals.
    title, yname : str or None
        Heading and outcome name in place of the usual ones.
    coefficients : Coefficients or None
        Coefficients to print, if any.
    beside : Coefficients or None
        For a joint fit the IPWRA coefficients that stand beside its own.

    Returns
    -------
    ResultSummary
        The summary.
    """
    outcome = yname or record.design.endog_name
    tables = [
        TableContent(rows=_head(record, outcome), aligns="lrlr", title=title or record.spec.title),
        _estimates_table(estimates, outcome, alpha),
        _arms_table(record),
    ]
    if coefficients is not None and beside is not None:
        tables += _side_by_side(record, coefficients, beside)
    elif coefficients is not None:
        tables += _coefficient_tables(record, coefficients, alpha)
    return build_summary(tables, _notes(record))


def covariance_name(record: FitRecord) -> str:
    """Return the printed name of the kind of standard errors."""
    if record.cov_type == "bootstrap":
        return f"bootstrap ({'given' if record.given_resamples else record.bootstrap})"
    return {"cluster": "robust (cluster)"}.get(record.cov_type, record.cov_type)


def _head(record: FitRecord, outcome: str) -> Rows:
    design, joint = record.design, record.joint
    left = [
        ("Dep. Variable:", outcome),
        ("Treatment:", design.treat_name),
        ("Model:", record.spec.name),
        ("Target:", target_text(record)),
        ("Outcome model:", "constants" if record.spec.constants else record.sample.family.label),
    ]
    right = [
        ("No. Observations:", f"{design.nobs}"),
        ("Rows dropped:", f"{len(design.in_sample) - design.n}"),
    ]
    inference = [
        ("Propensity:", propensity_text(record)),
        ("Std. errors:", covariance_name(record)),
    ]
    if record.boot is not None:
        used = int((record.boot.reasons == Reason.OK).sum())
        inference.append(("Resamples:", f"{used} of {len(record.boot.reasons)} used"))
    if record.boot is not None or joint is not None:
        inference.append(("Seed:", f"{record.seed.entropy}"))
    if joint is None:
        right += inference
    else:
        left += inference
        right += _joint_head(record, joint)
    right.append(("Converged:", "yes" if has_converged(record) else "NO"))
    if record.options.effect != "difference":
        left.append(("Effect:", record.options.effect.replace("_", " ")))
    if record.trimmed:
        right.append(("Trimmed:", record.trimmed))
    if record.options.clip is not None and record.propensity is not None:
        right.append(("Clipped:", clip_text(record)))
    if design.weight_type is not None:
        left.append(("Weights:", f"{design.weights_name} ({design.weight_type})"))
    if design.cluster is not None:
        left.append(("Clusters:", f"{design.cluster_name} ({int(design.cluster.max()) + 1})"))
    return tuple((*a, *b) for a, b in zip_longest(left, right, fillvalue=("", "")))


def _joint_head(record: FitRecord, joint: JointRecord) -> list[tuple[str, str]]:
    options, fit = joint.options, joint.fit
    named = options.penalty if options.penalty in PENALTY_NAMES else None
    return [
        ("Objective:", options.objective),
        ("Penalty:", f"{named} = {joint.criterion.penalty:.3g}" if named else f"{joint.criterion.penalty:.4g}"),
        ("Replicates:", f"{joint.replicates.count} of {len(joint.replicates.reasons)} used"),
        ("RMS net bias:", f"{np.sqrt(fit.expected_risk):#.3g}"),
        ("  same, IPWRA:", f"{np.sqrt(fit.start_risk):#.3g}"),
        _choice_or_error(record, joint),
    ]


def _choice_or_error(record: FitRecord, joint: JointRecord) -> tuple[str, str]:
    """Return the anchor where it was chosen, for it uses no replicates; else the error their number leaves."""
    if joint.path is not None:
        return "Anchor:", "none, as IPWRA" if np.isinf(joint.anchor) else f"{joint.anchor:g}, chosen"
    mc_se, se = float(joint.fit.mc_se[0]), float(np.sqrt(record.covariance[0, 0]))
    share = f" ({mc_se / se:.0%} of SE)" if se > 0 and np.isfinite(mc_se) else ""
    return "Monte Carlo SE:", f"{mc_se:#.3g}{share}" if np.isfinite(mc_se) else "not known (B = 1)"


def has_converged(record: FitRecord) -> bool:
    """Whether the propensity model and, for a joint fit, the joint objective converged."""
    propensity = record.propensity is None or record.propensity.converged
    return propensity and (record.joint is None or bool(record.joint.fit.result.success))


def target_text(record: FitRecord) -> str:
    """Return the target and its estimand."""
    if record.frame is not None:
        return f"data frame, {len(record.frame.index)} rows"
    return f"{record.options.target_name} ({record.estimand.removesuffix(record.options.scale.label)})"


def propensity_text(record: FitRecord) -> str:
    """Return what the propensity scores are."""
    if record.propensity is None:
        return "none"
    if record.design.score is not None:
        return f"known ({record.design.score_name or 'given'})"
    options = record.options
    if options.propensity_score is not None:
        return f"{type(options.propensity_score).__name__}, {options.n_folds} folds"
    link = options.propensity_link if record.design.n_arms == 2 else "multinomial logit"
    return f"calibrated {link}" if options.propensity_loss == "calibrated" else link


def clip_text(record: FitRecord) -> str:
    """Return the limits of clipped scores and how many observations they touch."""
    low, high = record.options.clip
    if record.propensity is None:
        return ""
    clipped = record.sample.restore(record.propensity.clipped)
    return f"{int(record.design.units[clipped].sum())} to [{low:g}, {high:g}]"


def _limits(alpha: float) -> tuple[str, str]:
    return f"[{alpha / 2:.4g}", f"{1 - alpha / 2:.4g}]"


def _estimates_table(estimates: Estimates, corner: str, alpha: float) -> TableContent:
    spec = column_format(rounded_se(estimates.values, estimates.se), estimates.values)
    z, p = z_and_p(estimates.values, estimates.se, estimates.null)
    limits = normal_interval(estimates.values, estimates.se, alpha)
    rows = []
    for k, name in enumerate(estimates.names):
        low, high = (format(v, spec) for v in limits[k])
        cells = (format(estimates.values[k], spec), format(estimates.se[k], spec), f"{z[k]:.2f}", format_p(p[k]))
        rows.append((name, *cells, low, high))
    header = ((corner, "estimate", "std err", "z", "P>|z|", *_limits(alpha)),)
    return TableContent(rows=tuple(rows), header=header, widths=WIDTHS)


def _arms_table(record: FitRecord) -> TableContent:
    labels, overlap = record.design.labels, record.overlap
    if record.propensity is None or not record.spec.uses_propensity:
        counts = tuple((label, f"{arm.n}") for label, arm in zip(labels, overlap, strict=True))
        return TableContent(rows=counts, header=(("By arm", "n"),), widths=(0, 11))
    largest = [f"{arm.largest:.2f}" if arm.largest < LARGE_WEIGHT else f"{arm.largest:.3g}" for arm in overlap]
    spread = [
        (f"{a.n}", f"{a.effective_n:.1f}", w, format_share(a.top_share)) for a, w in zip(overlap, largest, strict=True)
    ]
    first, second = ("", "", "effective", "largest", "weight in"), ("By arm", "n", "n", "weight", "top 1%")
    if record.joint is None:
        rows = tuple((label, *cells) for label, cells in zip(labels, spread, strict=True))
        return TableContent(rows=rows, header=(first, second), widths=(0, 11, 12, 10, 11))
    biases = _bias_cells(record.joint.fit, record.joint.criterion.unit)
    cells = [*spread, *[("", "", "", "")] * (len(labels) - 1)]
    nets = [f"net ({name})" if len(name) < LONG_NAME else "net" for name in record.effect_names]
    joint_rows = tuple((n, *c, *b) for n, c, b in zip((*labels, *nets), cells, biases, strict=True))
    header = ((*first, "bias", "bias", "IPWRA's"), (*second, "mean", "RMS", "RMS"))
    return TableContent(rows=joint_rows, header=header, widths=(0, 9, 10, 8, 10, 9, 9, 9))


def _bias_cells(fit: JointEstimate, unit: float) -> list[tuple[str, str, str]]:
    """Mean and RMS bias over the replicates, and IPWRA's RMS, per arm and net."""
    net, start_net = fit.net_bias
    bias, start = np.vstack([fit.bias, net]), np.vstack([fit.start_bias, start_net])
    numbers = np.column_stack([bias.mean(axis=1), np.sqrt((bias**2).mean(axis=1)), np.sqrt((start**2).mean(axis=1))])
    noise = ROUNDING * max(unit, float(np.abs(fit.estimate.params).max()))  # where a bias is zero by construction
    numbers[np.abs(numbers) <= noise] = 0.0
    smallest = numbers[:, 1:][numbers[:, 1:] > 0].min(initial=1.0)
    digits = max(2 - floor(log10(smallest)), 2)  # three digits of the smallest RMS
    spec = f"z.{digits}f" if digits <= 5 else ".2e"
    return [(format(a, spec), format(b, spec), format(c, spec)) for a, b, c in numbers]


def _coefficient_tables(record: FitRecord, coefficients: Coefficients, alpha: float) -> list[TableContent]:
    labels = record.design.labels
    blocks = zip(coefficients.outcome, labels, strict=True)
    tables = [_estimates_table(block, f"outcome, {label}", alpha) for block, label in blocks]
    if coefficients.propensity is not None:
        tables.append(_estimates_table(coefficients.propensity, "propensity", alpha))
    return tables


def _side_by_side(record: FitRecord, joint: Coefficients, start: Coefficients) -> list[TableContent]:
    tables = []
    for own, usual, label in zip(joint.outcome, start.outcome, record.design.labels, strict=True):
        spec = column_format(usual.se, np.concatenate([usual.values, own.values]))
        numbers = zip(own.names, own.values, usual.values, usual.se, strict=True)
        rows = tuple((n, format(a, spec), format(b, spec), format(c, spec)) for n, a, b, c in numbers)
        header = ((f"outcome, {label}", "JRE", "IPWRA", "its std err"),)
        tables.append(TableContent(rows=rows, header=header, widths=(0, 16, 16, 16)))
    return tables


def _notes(record: FitRecord) -> list[str]:
    design = record.design
    notes = [f"{_effect_text(record)}, averaged over {_target_rows_text(record)}. {_interval_text(record)}"]
    if design.formula is not None:
        models = f"Outcome: {design.formula}"
        if record.propensity is not None and design.score is None:
            models += f"   Propensity: {design.propensity_formula}"
        notes.append(models)
    if any(str(level) != label for level, label in zip(design.levels, design.labels, strict=True)):
        coded = zip(design.labels, design.levels, strict=True)
        notes.append("Arms: " + ", ".join(f"{label} is {design.treat_name} = {level}" for label, level in coded) + ".")
    notes += _ledger_notes(record)
    notes += _score_notes(record)
    if record.joint is not None:
        kept = record.joint.path is not None and np.isinf(record.joint.anchor)
        about = NOTE_AS_IPWRA if kept else NOTE_JOINT.format(estimand=record.estimand)
        notes.append(f"{about} {NOTE_BIASES}")
    notes += [note.replace("\n", " ") for note in record.notes]
    return notes


def _effect_text(record: FitRecord) -> str:
    """Say which function of the arm means the effects are."""
    pairs = list(zip(record.effect_names, record.design.labels[1:], strict=True))
    if len(pairs) > 1:
        pairs = [(f"{record.estimand}[level]", "level")]
    name, label = pairs[0]
    return f"{name} = {record.options.scale.formula(f'POM[{label}]', f'POM[{record.design.labels[0]}]')}"


def _target_rows_text(record: FitRecord) -> str:
    """Say over which rows the arm means are averages."""
    design, options = record.design, record.options
    if record.frame is not None:
        return f"the {len(record.frame.index)} rows of the target frame"  # which count alike, whatever weights= is
    name = f"{design.unit_name}s"
    rows = {
        "all": f"all {design.nobs} {name}",
        "treated": f"the {design.counts[1]} {name} of {design.labels[1]}",
        "control": f"the {design.counts[0]} {name} of {design.labels[0]}",
        "overlap": f"{design.nobs} {name} tilted to where the arms overlap",
    }.get(options.target_name, f"{design.nobs} {name} tilted by a function of the propensity score")
    return f"{rows} under their weights" if design.weight_type == "probability" else rows


def _interval_text(record: FitRecord) -> str:
    """Say what intervals and tests are made of."""
    se = {"bootstrap": "bootstrap", "cluster": "cluster-robust", "HC1": "robust (HC1)"}.get(record.cov_type, "robust")
    null = record.options.scale.null
    text = f"Intervals are normal, from the {se} standard error."
    if null:
        text += f" z and P test {record.estimand} = {null:g}."
    if record.options.effect != "difference":
        text += ' They are symmetric on this scale; conf_int(method="percentile") after a bootstrap need not be.'
    return text


def _score_notes(record: FitRecord) -> list[str]:
    """Say what the standard errors do not know of propensity scores from elsewhere."""
    if record.propensity is None or record.propensity.weighting.model.n_coefficients:
        return []
    if record.design.score is not None:
        return ["The propensity scores are taken as known: standard errors hold no uncertainty of theirs."]
    if record.cov_type == "bootstrap":
        return ["The propensity scores are cross-fitted; each resample fits the classifier again."]
    if record.spec.corrected and record.target.separable:
        return ["The propensity scores are cross-fitted; the standard error takes them as known, which AIPW allows."]
    return [
        "The propensity scores are cross-fitted, and the standard error takes them as known, which only AIPW for a "
        'target that does not depend on them allows. Type  fit(cov_type="bootstrap").'
    ]


def _ledger_notes(record: FitRecord) -> Sequence[str]:
    """One note that says which rows were dropped for what."""
    ledger = record.design.sample_ledger
    dropped = len(record.design.in_sample) - record.design.n
    if not dropped:
        return []
    used_in = ledger["formula"].where(ledger["formula"].isin(["trim", "weights"]) & ledger["dropped"].gt(0), "")
    counts = ledger.groupby([used_in, "variable"], sort=False)["missing"].max()
    reasons = ", ".join(
        f"{name} in {count} rows" if used_in in ("weights", "trim") else f"{name} missing in {count}"
        for (used_in, name), count in counts.items()
    )
    overlap = " (a row may miss several)" if counts.sum() > dropped else ""
    return [f"{dropped} rows dropped from both models: {reasons}{overlap}. See res.sample_ledger."]

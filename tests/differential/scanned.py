"""Fits to a scan against fits of the same rows in memory."""

from __future__ import annotations

import re
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import causalrisk as cr
from tests.differential import cases
from tests.differential.cases import Case, Data
from tests.differential.fits import apart, coded, labelled, model_of, objective, seen
from tests.differential.storage import arranged, scanned

CLOSE = 1e-6  # of a standard error, or relative
SPREAD = 0.5


def check(case: Case) -> tuple[str, str]:
    """Fit a case both ways and compare; what became of it, and what was seen."""
    data = cases.data_of(case)
    data = Data(arranged(case, data.frame), data.elsewhere, data.names)
    with tempfile.TemporaryDirectory() as folder:
        source = scanned(case, coded(case, data.frame, data), Path(folder))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            memory, blocks = fitted(case, data), fitted(case, data, source)
        raw = [w for w in caught if not issubclass(w.category, cr.CausalRiskWarning)]
        if raw:
            return "wrong", f"a warning that is not the package's: {raw[0].message}"
        refused = [isinstance(one, Exception) for one in (memory, blocks)]
        texts = [f"{type(one).__name__}: {str(one).splitlines()[0]}" for one in (memory, blocks)]
        if not any(refused):
            found = seen(differences(case, data, memory, blocks))
            if found and not (memory.converged and blocks.converged):
                return "not converged", "; ".join(found)
            return ("wrong", "; ".join(found)) if found else ("agreed", "")
        same = str(memory) == str(blocks) or not isinstance(memory, cr.SeparationError) or "outcome model" in texts[0]
        if all(refused) and type(memory) is type(blocks) and isinstance(memory, cr.CausalRiskError) and same:
            return "refused", texts[0]
        kinds = ["fitted" if not bad else text for bad, text in zip(refused, texts, strict=True)]
        return "wrong", f"refused by one: memory {kinds[0]}, scan {kinds[1]}"


def fitted(case: Case, data: Data, source: Any = None, **more: Any) -> Any:
    """Results of a case in memory, or of a scan; or the error."""
    cov_type = None if case.survey else "cluster" if case.clusters else "HC1" if case.small_sample else "robust"
    options: dict[str, Any] = {"cov_type": cov_type, "small_sample": case.small_sample, "rng": case.seed} | more
    if case.estimator == "JRE":
        options |= objective(case) | {"n_replicates": case.replicates, "spread": SPREAD}
    if case.resamples:
        options |= {
            "cov_type": "bootstrap", "bootstrap": case.resamples, "n_boot": case.draws, "max_failed": 0.99,
            "small_sample": False,
        }  # fmt: skip
    if source is not None:
        options["n_jobs"] = case.workers
    try:
        model = model_of(case, data, source=source)
        return model.fit(**options)
    except Exception as error:  # both ways have to end alike
        return error


def differences(case: Case, data: Data, memory: Any, blocks: Any) -> Iterator[str]:
    """Yield what a scan has otherwise than memory."""
    se = memory.bse.to_numpy()
    yield labelled("effects and means", blocks.params, memory.params, se, CLOSE)
    scale = np.sqrt(np.outer(se**2, se**2))
    yield apart("covariance", blocks.cov_params(), memory.cov_params(), scale, CLOSE)
    yield "" if blocks.nobs == memory.nobs else f"nobs: {blocks.nobs}, in memory {memory.nobs}"
    mine, theirs = ((one.cov_type, one._record.df) for one in (blocks, memory))
    yield "" if mine == theirs else f"kind of the errors and degrees of freedom: {mine}, in memory {theirs}"
    if not blocks.sample_ledger.equals(memory.sample_ledger):
        yield f"ledger: {blocks.sample_ledger.to_dict('list')}, in memory {memory.sample_ledger.to_dict('list')}"
    mine, theirs = ([rounded(note) for note in one._record.notes] for one in (blocks, memory))
    yield "" if mine == theirs else f"notes: {mine}, in memory {theirs}"
    size = memory.outcome_bse.to_numpy().max()
    yield labelled("outcome coefficients", blocks.outcome_params, memory.outcome_params, size, 10 * CLOSE)
    yield labelled("outcome standard errors", blocks.outcome_bse, memory.outcome_bse, size, 10 * CLOSE)
    if case.estimator != "JRE":
        rows = data.frame.dropna().head(5)
        yield labelled("predictions", blocks.predict(rows), memory.predict(rows), se[-1], CLOSE)
    if memory._record.estimate.gamma.size and memory._record.spec.uses_propensity:
        size = memory.propensity_bse.to_numpy()
        found, expected = blocks.propensity_params, memory.propensity_params
        yield labelled("propensity coefficients", found, expected, size, 10 * CLOSE)
        yield labelled("propensity standard errors", blocks.propensity_bse, memory.propensity_bse, size, 10 * CLOSE)
    if memory._record.spec.uses_propensity:
        yield labelled("overlap", blocks.overlap(), memory.overlap(), 1.0, CLOSE)
        more = {"interactions": True} if case.seed % 4 == 0 else {}
        yield labelled("balance", blocks.balance(means=True, **more), memory.balance(means=True, **more), 1.0, CLOSE)
    if case.resamples:
        yield from resamples(memory, blocks)
    if case.estimator == "JRE":
        yield from joint(memory, blocks)


def rounded(note: str) -> str:
    """A note, its numbers of more than four digits to two digits."""
    return re.sub(r"\d{5,}", lambda number: f"{float(number[0]):.1e}", note)


def resamples(memory: Any, blocks: Any) -> Iterator[str]:
    """Compare each resample."""
    if not blocks.boot_ledger.equals(memory.boot_ledger):
        yield f"resamples used: {list(blocks.boot_ledger.used)}, in memory {list(memory.boot_ledger.used)}"
    spread = memory.boot_params.std().to_numpy() + 1e-300
    yield labelled("resamples", blocks.boot_params, memory.boot_params, spread.max(), CLOSE)


def joint(memory: Any, blocks: Any) -> Iterator[str]:
    """Compare what the joint estimator has beside its estimate."""
    size = memory.start.bse.to_numpy()
    yield labelled("start", blocks.start.params, memory.start.params, size, CLOSE)
    yield labelled("errors of the start", blocks.start.bse, memory.start.bse, size, CLOSE)
    yield labelled("bias", blocks.replicate_bias, memory.replicate_bias, size.max(), CLOSE)
    yield apart("expected risk", blocks.expected_ate_risk, memory.expected_ate_risk, memory.expected_ate_risk, CLOSE)

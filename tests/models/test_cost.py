"""What a fit is told to take: exact for work that is linear in rows and resamples, and of the fit that is asked for."""

from __future__ import annotations

import numpy as np
import pytest

import causalrisk as cr
from causalrisk.models import cost
from tests.conftest import RHS, in_blocks, simulate


@pytest.mark.parametrize(("rows", "n_boot"), [(5_000_000, 999), (5_000_000, 0), (5_000_000, 50), (900, 999), (900, 2)])
def test_work_that_is_linear_is_told_exactly(monkeypatch, rows, n_boot):
    """Seconds a + b n + (c + d n) B; fits move the clock, as does making a sample, which is no part of a fit."""
    now, done = [0.0], []

    def seconds(n, count):
        return 0.5 + 1e-6 * n + (1e-3 + 2e-7 * n) * count

    def sample(n):
        def fit(count):
            done.append((n, count))
            now[0] += seconds(n, count)

        now[0] += 7.0
        return fit

    monkeypatch.setattr(cost.time, "process_time", lambda: now[0])
    found = cost.cost_of(sample, rows, n_boot, rows)
    assert found.seconds == pytest.approx(seconds(rows, n_boot))
    assert max(n for n, _ in done) == found.sample <= rows and max(count for _, count in done) <= n_boot


def test_memory_is_that_of_the_arrays_of_a_fit_and_not_of_its_sample():
    def sample(n):
        own = bytearray(16 * n)
        return lambda count: bytearray(len(own) // 2)

    found = cost.cost_of(sample, 5_000_000, 0, 5_000_000)
    assert found.bytes == pytest.approx(4e7, rel=0.01)


def test_the_fits_are_those_that_are_asked_for(monkeypatch):
    frame = simulate(200).assign(w=1.0)
    model = cr.JRE.from_formula(f"y ~ {RHS}", frame, treat="d", weights="w", weight_type="probability")
    told = model.cost(n_replicates=20, n_boot=40)
    assert (told.rows, told.sample, told.n_boot) == (200, 200, 40) and told.seconds > 0 and told.bytes > 200 * 8
    assert model.cost(cov_type="robust", n_replicates=20).n_boot == 0
    assert "200 rows and 40 resamples" in str(told)
    with pytest.raises(TypeError, match="n_bots"):
        model.cost(n_bots=3)


def test_memory_beyond_a_block_does_not_grow():
    found = cost.cost_of(lambda n: lambda count: bytearray(8 * n), 5_000_000, 0, 1_000_000)
    assert found.bytes == pytest.approx(8e6, rel=0.01)


def test_of_a_scan_it_is_told_from_samples_of_the_kept_rows(monkeypatch):
    monkeypatch.setattr(cost, "SAMPLE", 100)
    frame = simulate(300)
    told = cr.IPWRA.from_formula(f"y ~ {RHS}", in_blocks([frame]), treat="d").cost()
    assert (told.rows, told.sample, told.n_boot) == (300, 200, 0) and told.seconds > 0 and told.bytes > 0
    unkept = cr.IPWRA.from_formula(f"y ~ {RHS}", cr.scan([frame], keep="nothing"), treat="d")
    with pytest.raises(cr.UnavailableError, match=r'read again in each pass.*\nType  keep="auto"'):
        unkept.cost()


def test_a_sample_of_a_scan_is_that_of_the_rows_in_memory():
    frame = simulate(300)
    keep = np.arange(300) % 3 > 0
    models = [cr.IPWRA.from_formula(f"y ~ {RHS}", data, treat="d") for data in (frame, in_blocks([frame]))]
    kept, scanned = (model._of(model.design.subset(keep, "a sample"), model.options).fit() for model in models)
    assert kept.nobs == scanned.nobs == 200
    assert scanned.effect == pytest.approx(kept.effect, rel=1e-14) != models[0].fit().effect

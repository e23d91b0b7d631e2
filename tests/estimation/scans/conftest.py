"""Rows beyond memory: few as they are, those of tests here are worked on as Dask arrays."""

import dask
import pytest

FEW = "causalrisk.estimation.sample.FEW"


@pytest.fixture(autouse=True)
def beyond_memory(monkeypatch):
    """A scan of any size is beyond memory.

    One thread and tasks that are not fused have least to do; other ways change no digit: `test_workers.py`.
    """
    monkeypatch.setattr(FEW, 0)
    with dask.config.set({"scheduler": "synchronous", "optimization.fuse.active": False}):
        yield


@pytest.fixture
def in_memory(beyond_memory, monkeypatch):
    """A small scan is worked on in memory, as usual."""
    monkeypatch.setattr(FEW, 2**23)

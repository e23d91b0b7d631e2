"""Threads of BLAS: one within a fit, as many as before after it, whatever ended it."""

from __future__ import annotations

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

import causalrisk as cr
from causalrisk.runtime import one_blas_thread
from tests.conftest import simulate


def blas_threads():
    return {each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"}


@pytest.fixture(autouse=True)
def two_threads():
    np.linalg.norm(np.ones(2))
    with threadpool_limits(2, user_api="blas"):
        assert blas_threads() == {2}
        yield


SEEN: set[int] = set()  # threads that learners were fitted with


class Watched:
    """Learner that notes the threads it is fitted with, and may fail."""

    def __init__(self, error=None):
        self.error = error

    def fit(self, X, y):
        SEEN.update(blas_threads())
        if self.error is not None:
            raise self.error
        return self

    def predict(self, X):
        return X[:, 0]


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_a_fit_has_one_thread_and_gives_the_others_back(n_jobs):
    SEEN.clear()
    cr.AIPW.from_formula("y ~ x1", simulate(200, seed=1), treat="d", learner=Watched()).fit(n_jobs=n_jobs)
    assert (SEEN, blas_threads()) == ({1}, {2})


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_gives_them_back(error):
    SEEN.clear()
    model = cr.AIPW.from_formula("y ~ x1", simulate(200, seed=1), treat="d", learner=Watched(error()))
    with pytest.raises(error):
        model.fit()
    assert (SEEN, blas_threads()) == ({1}, {2})


def test_blocks_end_in_any_order():
    one, other = one_blas_thread(), one_blas_thread()
    one.__enter__()
    other.__enter__()
    one.__exit__(None, None, None)
    assert blas_threads() == {1}
    other.__exit__(None, None, None)
    assert blas_threads() == {2}

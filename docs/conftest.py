"""Examples of the pages: figures that they show are closed, as tests open no window."""

import pytest


@pytest.fixture(autouse=True)
def close_shown_figures(monkeypatch):
    """Let ``plt.show`` close all figures."""
    import matplotlib.pyplot as plt  # not to be waited for where tests are only collected

    monkeypatch.setattr(plt, "show", lambda: plt.close("all"))

"""Examples of the pages: figures that they show are closed, as tests open no window."""

import matplotlib.pyplot as plt
import pytest


@pytest.fixture(autouse=True)
def close_shown_figures(monkeypatch):
    """Let ``plt.show`` close all figures."""
    monkeypatch.setattr(plt, "show", lambda: plt.close("all"))

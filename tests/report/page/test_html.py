"""Figures within the page of a report."""

from __future__ import annotations

import pytest
from matplotlib.figure import Figure

from causalrisk.report.page.html import figure_html


@pytest.mark.parametrize(("points", "formats"), [(100, ["svg"]), (50_000, ["png"])])
def test_many_points_become_a_bitmap_and_are_not_written_one_by_one(monkeypatch, points, formats):
    written, save = [], Figure.savefig

    def noted(figure, stream, **options):
        written.append(options["format"])
        save(figure, stream, **options)

    monkeypatch.setattr(Figure, "savefig", noted)
    page = figure_html(lambda ax: ax.plot(range(points), "o"), "alternative", "caption")
    assert written == formats and f"data:image/{formats[0]}" in page

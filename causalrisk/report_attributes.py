"""`report()`: one page with everything a reader needs to judge a fit."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from pathlib import Path

from causalrisk.errors import OptionError
from causalrisk.inference.intervals import check_alpha
from causalrisk.options import listed
from causalrisk.report.html import blank_figure, page
from causalrisk.report_parts import ASSUMPTIONS, contents, front, parts_of


class ReportAttributes:
    """The report of a fit."""

    def report(
        self,
        path: str | os.PathLike[str] = "report.html",
        title: str | None = None,
        alpha: float = 0.05,
        assumptions: Mapping[str, str] | None = None,
    ) -> Path:
        """Write one self-contained page: estimate, diagnostics with their reading, assumptions, how to repeat it.

        Parameters
        ----------
        path : str or path, default "report.html"
            Where to write; a file that exists is replaced.
        title : str, optional
            Heading.
        alpha : float, default 0.05
            Significance level of the intervals.
        assumptions : mapping, optional
            What you say for "unconfoundedness", "no_post_treatment" and "no_interference", the assumptions that no
            data can check. Those you leave out stand in the page as questions still to be answered.

        Returns
        -------
        Path
            The file. Figures are within it; it loads nothing when it opens, and the same fit gives the same bytes.

        Raises
        ------
        UnavailableError
            If matplotlib is not installed.
        OptionError
            If an assumption is not one of the three.
        """
        check_alpha(alpha)
        stated = _checked(assumptions or {})
        blank_figure()  # without matplotlib nothing is computed
        heading = title or f"Report: {self!r}"
        parts = parts_of(self, alpha, stated)
        body = [*front(self, heading, alpha, parts, len(stated)), contents(parts), *(part.html() for part in parts)]
        target = Path(path)
        target.write_text(page(heading, body), encoding="utf-8")
        return target


def _checked(assumptions: Mapping[str, str]) -> dict[str, str]:
    """Refuse unknown assumptions; leave out empty ones."""
    for name in assumptions:
        if name not in ASSUMPTIONS:
            close = difflib.get_close_matches(str(name), ASSUMPTIONS, 1, 0.3) or list(ASSUMPTIONS)
            raise OptionError(
                f"assumptions: {name!r} is not known; expected any of {listed(tuple(ASSUMPTIONS))}.\n"
                f'Type  assumptions={{"{close[0]}": "..."}}.'
            )
    return {name: text for name, text in assumptions.items() if str(text).strip()}

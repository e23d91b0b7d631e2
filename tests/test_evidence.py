"""The command that writes the evidence page, on the smallest grid."""

from __future__ import annotations

import pytest

from tests.studies import evidence


def test_tables_are_markdown():
    assert evidence.markdown([["a", "1"]], ["x", "y"]) == "| x | y |\n| --- | --- |\n| a | 1 |"
    assert evidence.number(0.5, 0.0123, 3) == "0.500 (0.012)"


@pytest.mark.slow
def test_command_writes_the_page_and_its_figure(tmp_path, monkeypatch):
    monkeypatch.setattr(evidence, "QUICK", evidence.Grid(3, 3, 3, 3, 3, 20, 3, 30))
    monkeypatch.setattr("sys.argv", ["evidence", "--quick", "--out", str(tmp_path), "--store", str(tmp_path / "s")])
    evidence.main()
    page = (tmp_path / "evidence.md").read_text("utf-8")
    for words in (
        "geometric mean of these six",
        "| lalonde_like |",
        "-0.51 / 3.38",
        "evidence.svg",
        "--quick --jobs 1",
    ):
        assert words in page
    assert (tmp_path / "evidence.svg").stat().st_size > 10_000
    evidence.main()  # from the store, the same to the last digit
    assert (tmp_path / "evidence.md").read_text("utf-8") == page

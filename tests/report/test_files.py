"""Word and HTML files of tables, read back; they need maketables."""

from __future__ import annotations

import sys

import pytest

from causalrisk import IPWRA, UnavailableError, etable
from tests.conftest import simulate


@pytest.fixture(scope="module")
def res():
    return IPWRA.from_formula("y ~ x1 + x2", simulate(200, seed=2), treat="d").fit()


def word(table, path):
    docx = pytest.importorskip("docx")
    pytest.importorskip("maketables")
    return docx.Document(str(table.save(path / "table.docx")))


def texts(grid):
    return [[cell.text for cell in row.cells] for row in grid.rows]


def test_a_table_in_word(res, tmp_path):
    table = etable([res, res], title="A title")
    document = word(table, tmp_path)
    (grid,) = document.tables
    shown = [row[1:] for row in texts(grid)]
    assert shown[0] == ["(1)", "(2)"]
    assert shown[2:-1] == [row[1:] for row in table.tables[0].body]
    assert [row[0] for row in texts(grid)][2:-1] == [row[0] for row in table.tables[0].body]
    assert set(texts(grid)[-1]) == {"Notes: Standard errors in parentheses."}
    assert document.paragraphs[0].text.endswith("A title: y")
    assert 'w:fldCharType="begin" w:dirty="true"' in document.paragraphs[0]._p.xml  # Word numbers it when it opens


def test_wide_tables_in_word_are_in_landscape_format(res, tmp_path):
    for count in (2, 7):
        page = word(etable([res] * count), tmp_path).sections[0]
        assert (page.page_width > page.page_height) == (page.orientation == 1) == (count == 7)


def test_before_and_after_are_heads_over_their_columns(res, tmp_path):
    table = res.table_one()
    head = word(table, tmp_path).tables[0].rows[0]
    assert head._tr.xml.count('w:gridSpan w:val="3"') == 2 and head._tr.xml.count("<w:t>") == 2
    assert table.save(tmp_path / "t.html").read_text("utf-8").count('colspan="3"') == 2
    assert r" & \multicolumn{3}{c}{before} & \multicolumn{3}{c}{after} \\ \cmidrule(lr){2-4}" in table.as_latex()


def test_a_summary_has_all_its_tables_and_notes(res, tmp_path):
    summary = res.summary()
    document, page = word(summary, tmp_path), summary.save(tmp_path / "s.html").read_text("utf-8")
    assert len(document.tables) == page.count("<table") == len(summary.tables)
    for grid, table in zip(document.tables, summary.tables, strict=True):
        shown = [row[1:] for row in table.body]
        assert [row[1:] for row in texts(grid)][max(len(table.heads), 1) : -1] == shown
        assert all(f">{cell}</td>" in page.replace("&lt;", "<") for row in shown for cell in row)
    assert texts(document.tables[-1])[-1][0].startswith(f"[1] {summary.notes[0]}\n[2] ")
    assert [p.text.removeprefix("Table : ") for p in document.paragraphs if p.text][1:3] == ["y", "By group"]


@pytest.mark.parametrize("ending", ["docx", "html"])
def test_without_the_library(res, tmp_path, monkeypatch, ending):
    monkeypatch.setitem(sys.modules, "maketables", None)
    with pytest.raises(UnavailableError, match=r"maketables.*\n.*causalrisk\[tables\]"):
        res.summary().save(tmp_path / f"summary.{ending}")
    with pytest.raises(UnavailableError, match="maketables"):
        etable([res]).to_gt()
    assert list(tmp_path.iterdir()) == []

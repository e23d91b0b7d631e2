"""Word documents, read back."""

from __future__ import annotations

import sys

import pytest
from statsmodels.iolib.table import SimpleTable

from causalrisk import IPWRA, UnavailableError, etable
from tests.conftest import simulate


@pytest.fixture(scope="module")
def res():
    return IPWRA.from_formula("y ~ x1 + x2", simulate(200, seed=2), treat="d").fit()


def test_a_table_read_back(res, tmp_path):
    docx = pytest.importorskip("docx")
    table = etable([res, res], title="A title")
    document = docx.Document(str(table.save(tmp_path / "table.docx")))
    (word,) = document.tables
    texts = [[cell.text.replace("\N{NO-BREAK SPACE}", " ") for cell in row.cells] for row in word.rows]
    assert texts == [*table.tables[0].heads, *table.tables[0].body]
    assert [p.text for p in document.paragraphs if p.text] == ["A title", "Notes: Standard errors in parentheses."]
    assert word.rows[1].cells[1].paragraphs[0].alignment == docx.enum.text.WD_ALIGN_PARAGRAPH.CENTER
    ruled = [i for i, row in enumerate(word.rows) if "w:top w:val" in row.cells[0]._tc.xml]
    assert ruled == [0, 2, 2 + table.tables[0].rules[0]]
    assert "w:tblHeader" in word.rows[0]._tr.xml and "w:tblHeader" not in word.rows[2]._tr.xml


def test_before_and_after_are_heads_over_their_columns(res, tmp_path):
    docx = pytest.importorskip("docx")
    table = res.table_one()
    (word,) = docx.Document(str(table.save(tmp_path / "balance.docx"))).tables
    head = word.rows[0]
    assert [cell.text for cell in head.cells] == ["", *["before"] * 3, *["after"] * 3]
    assert head._tr.xml.count('w:gridSpan w:val="3"') == 2 and head._tr.xml.count("<w:t>") == 2
    texts = [[cell.text.replace("\N{NO-BREAK SPACE}", " ") for cell in row.cells] for row in word.rows[1:3]]
    assert texts == table.tables[0].heads[1:]
    assert table.as_html().count('colspan="3"') == 2
    assert r" & \multicolumn{3}{c}{before} & \multicolumn{3}{c}{after} \\ \cmidrule(lr){2-4}" in table.as_latex()
    assert "gridSpan" not in docx.Document(str(etable([res, res]).save(tmp_path / "same.docx"))).tables[0]._tbl.xml
    assert "colspan" not in etable([res, res]).as_html()


def test_a_wide_table_lies_across(res, tmp_path):
    docx = pytest.importorskip("docx")
    for count, across in ((2, False), (9, True)):
        section = docx.Document(str(etable([res] * count).save(tmp_path / "wide.docx"))).sections[0]
        assert (section.page_width > section.page_height) == across


def test_a_summary_read_back(res, tmp_path):
    docx = pytest.importorskip("docx")
    document = docx.Document(str(res.summary().save(tmp_path / "summary.docx")))
    assert len(document.tables) == len(res.summary().tables)
    assert [p.text for p in document.paragraphs][-2:] == [
        f"[{i}] {' '.join(note.split())}" for i, note in enumerate(res.summary().notes, 1)
    ]


def test_a_table_that_was_added_by_hand(res, tmp_path):
    summary = res.summary()
    summary.tables.append(SimpleTable([["by", "hand"]]))
    assert f"```\n{summary.tables[-1].as_text()}\n```" in summary.as_markdown()
    docx = pytest.importorskip("docx")
    document = docx.Document(str(summary.save(tmp_path / "summary.docx")))
    assert [cell.text.strip() for cell in document.tables[-1].rows[0].cells] == ["by", "hand"]


def test_without_the_library(res, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "docx", None)
    with pytest.raises(UnavailableError, match=r"need python-docx.*\nType  pip install python-docx\."):
        res.summary().save(tmp_path / "summary.docx")

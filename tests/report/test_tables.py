"""Rendering of summaries: escapes, widths, and well-formed markup."""

from __future__ import annotations

import csv
import io
import re
from html.parser import HTMLParser

from statsmodels.iolib.summary import Summary
from statsmodels.iolib.table import SimpleTable

from causalrisk.report.table import LEAST_LABEL, ResultSummary, ResultTable, display_width

HEAD = ResultTable(
    title="Joint Robust Estimator (JRE) Results",
    aligns="lrlr",
    rows=(
        ("Dep. Variable:", "bweight", "No. Observations:", "4642"),
        ("Target:", "all (ATE)", "Penalty:", "10n = 4.64e+04"),
        ("Std. errors:", "bootstrap (pairs)", "Monte Carlo SE:", "0.100 (0% of SE)"),
    ),
)
HEADER = (("bweight", "estimate", "std err", "z", "P>|z|", "[0.025", "0.975]"),)
NUMBERS = ("-228.50", "27.60", "-8.28", "<0.001", "-282.60", "-174.41")
ESTIMATES = ResultTable([("ATE", *NUMBERS), ("POM[smoker]", *NUMBERS)], HEADER)
NOTES = (
    "ATE = POM[smoker] - POM[nonsmoker], averaged over the 4642 rows used. Intervals are normal, from the bootstrap "
    "standard error.",
    "Outcome: bweight ~ prenatal1 + mmarried + mage + fbaby   Propensity: mbsmoke ~ mmarried + mage + I(mage ** 2) + "
    "fbaby + medu",
    "JRE lets the two arms' biases cancel: read the ATE. Each POM is shown net of the common bias (the ATE is the same "
    "either way). Unit-level effects and outcome coefficients are not interpretable; take them from res.start.",
)
NASTY = ("<HS", "a & b", r"back\slash", "100%", "$x$ #1", "x_1^2", "{a} ~b", "[0.5, *1|", "\"q\", 's'", "<script>")


def nasty_summary():
    table = ResultTable(
        title="T <1> & 50%_{^}",
        header=(("<name>", "est_1"), ("", "[0.025")),
        rows=tuple((name, "-1.50") for name in NASTY),
    )
    return ResultSummary([table], [f"note {name}" for name in NASTY])


def estimates_named(name):
    return ResultTable([(name, *NUMBERS)], HEADER)


class Balance(HTMLParser):
    """Collects the texts of an HTML fragment and checks that every tag is closed in order."""

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.open, self.cells, self.captions, self.notes, self.tags = [], [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        self.tags.append(tag)
        {"caption": self.captions, "p": self.notes, "td": self.cells, "th": self.cells}.get(tag, []).append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open:
            into = {"caption": self.captions, "p": self.notes, "td": self.cells, "th": self.cells}.get(self.open[-1])
            if into is not None:
                into[-1] += data


def parse(fragment):
    parser = Balance()
    parser.feed(fragment)
    parser.close()
    assert parser.open == []
    return parser


def table_width(text):
    """Return the common width of the rules, having checked that no line of the tables is wider."""
    lines = text.split("\n\nNotes:")[0].splitlines()
    rules = {len(line) for line in lines if set(line) in ({"="}, {"-"})}
    assert len(rules) == 1
    assert max(map(display_width, lines)) == max(rules)
    return rules.pop()


def test_is_statsmodels_summary():
    summary = ResultSummary([HEAD, ESTIMATES], NOTES)
    assert isinstance(summary, Summary)
    assert all(isinstance(table, SimpleTable) for table in summary.tables)
    assert summary.tables[1].data[0] == list(HEADER[0])
    assert summary.tables[1].data[1:] == [["ATE", *NUMBERS], ["POM[smoker]", *NUMBERS]]
    summary.add_extra_txt(["one more"])
    assert summary.as_text().endswith("\n[4] one more")
    assert summary._repr_html_() == summary.as_html()
    assert summary._repr_latex_() == summary.as_latex()
    assert summary.tables[1]._repr_html_() == summary.tables[1].as_html()
    assert summary.tables[1]._repr_latex_() == summary.tables[1].as_latex_tabular()


def test_long_name_first_takes_the_free_space():
    text = ResultSummary([estimates_named("POM[" + "x" * 21 + "]")], ()).as_text()
    assert table_width(text) == 78
    assert "POM[" + "x" * 21 + "]  " in text


def test_markdown_has_every_cell_and_nothing_that_is_markup():
    summary = nasty_summary()
    text = summary.as_markdown()
    lines = text.splitlines()
    tables = [line for line in lines if line.startswith("|")]
    widths = {len(re.findall(r"(?<!\\)\|", line)) for line in tables}
    assert len(widths) == 1  # no cell opens another
    unescaped = re.sub(r"\\(.)", r"\1", text)
    assert all(cell.strip() in unescaped for cell in NASTY)
    assert lines[0].startswith("**") and lines[-1].startswith(f"[{len(summary.notes)}] ")


def test_too_long_name_stands_on_a_line_of_its_own():
    name = "POM[" + "x" * 100 + "]"
    lines = ResultSummary([HEAD, estimates_named(name)], NOTES).as_text().splitlines()
    place = lines.index(name)
    assert lines[place + 1].lstrip() == lines[place + 1].strip() and len(lines[place + 1]) == 78
    tables = lines[: lines.index("Notes:")]
    assert {len(line) for line in tables if set(line) <= {"=", "-"} and line} == {78}
    assert max(len(line) for line in tables if line != name) == 78


def test_numbers_that_need_more_widen_every_table():
    wide = ResultTable(rows=(("POM[nonsmoker]", *("1" * 20,) * 4),))
    lines = ResultSummary([HEAD, wide], ()).as_text().splitlines()
    assert {len(line) for line in lines[1:] if line != "POM[nonsmoker]"} == {LEAST_LABEL + 4 * 21}


def test_wide_and_combining_characters_stay_aligned():
    names = ["喫煙者", "cafe\u0301", "café", "ΔΩ", "\N{ROCKET}", "ATE"]
    rows = tuple((name, "1.00", "2.00") for name in names)
    text = ResultSummary([ResultTable(rows=rows, header=(("喫煙", "值", "é"),), title="標題")], ()).as_text()
    lines = text.splitlines()
    assert {display_width(line) for line in lines[1:]} == {78}
    assert display_width(lines[0]) == 37 + 4


def test_control_characters_become_blanks():
    text = ResultSummary([ResultTable(rows=(("a\nb\tc", "1"),), header=(("x\ny", "z"),))], ()).as_text()
    assert len(text.splitlines()) == 5
    assert "a b c" in text
    assert "x y" in text


def test_empty_tables():
    header_only = ResultSummary([ResultTable((), [("a", "b")])], ())
    assert header_only.as_text().count("\n") == 3
    for summary in (ResultSummary([ResultTable(())], ()), header_only):
        parse(summary.as_html())
        summary.as_latex()
        summary.as_csv()


def test_html_keeps_every_character():
    page = nasty_summary().as_html()
    parsed = parse(page)
    assert parsed.captions == ["T <1> & 50%_{^}"]
    assert parsed.cells[:4] == ["<name>", "est_1", "", "[0.025"]
    assert parsed.cells[4::2] == list(NASTY)
    assert parsed.notes == [f"[{i}] note {name}" for i, name in enumerate(NASTY, 1)]
    assert "script" not in parsed.tags
    assert "<HS" not in page


def unescaped(latex):
    """Return the text with escaped characters, and the commands and lines the package writes, taken out."""
    return re.sub(r"\\[a-z]+|\\[&%$#_{}\\]", "", latex)


def test_latex_escapes_and_braces_balance():
    latex = nasty_summary().as_latex()
    assert not set(unescaped(latex)) & set("%#_^~<>|\\")
    assert unescaped(latex).count("{") == unescaped(latex).count("}")
    rows = [line for line in latex.splitlines() if line.endswith(r" \\")]
    assert len(rows) == 2 + len(NASTY)
    for row in rows:
        assert unescaped(row).count("&") == 1
        assert not row.startswith(("[", "*"))
    assert all(row.split(" & ")[-1] == r"$-$1.50 \\" for row in rows[2:])
    assert latex.count(r"\begin{tabular}{lr}") == latex.count(r"\end{tabular}") == 1
    assert latex.count(r"\begin{center}") == latex.count(r"\end{center}") == 1


def test_csv_reads_back():
    text = nasty_summary().as_csv()
    rows = list(csv.reader(io.StringIO(text)))
    assert rows[0] == ["T <1> & 50%_{^}"]
    assert rows[1:3] == [["<name>", "est_1"], ["", "[0.025"]]
    assert rows[3 : 3 + len(NASTY)] == [[name, "-1.50"] for name in NASTY]
    assert rows[3 + len(NASTY) :] == [[f"[{i}] note {name}"] for i, name in enumerate(NASTY, 1)]

"""Formulas as R and Stata write them: recognised by a pattern, refused with what to write here."""

from __future__ import annotations

import re

from causalrisk.errors import DesignError

QUOTED = r"\"[^\"]*\"|'[^']*'"
NAME = r"([A-Za-z_]\w*)"

HABITS: tuple[tuple[str, str], ...] = (  # a pattern, and the sentence on it, in which its groups are filled in
    (r"^\s*(?:teffects\s+\w+\s*)?\([^()~]*\)\s*\([^()~]*\)", 'The second formula is `propensity="x1 + x2"`.'),
    (rf"\b(?:ibn?|i|c)\.\(\s*{NAME}", r"Give each variable by itself: `C(\1)`, or `\1` for numbers."),
    (rf"\bc\.{NAME}##c\.\1\b", r"Stata's `c.\1##c.\1` is `\1 + I(\1**2)`."),
    (rf"\bc\.{NAME}#c\.\1\b", r"Stata's `c.\1#c.\1` is `I(\1**2)`."),
    (r"\b(?:i\d*\.)?(\w+)##(?:(?:i|c)\.)?(\w+)", r"Stata's `##` is `*`: `C(\1)*\2`, or `\1*\2` for numbers."),
    (r"\b(?:i\d*\.)?(\w+)#(?:(?:i|c)\.)?(\w+)", r"Stata's `#` is `:`: `C(\1):\2`, or `\1:\2` for numbers."),
    (r"#", "Stata's `#` and `##` are `:` and `*`. Formulas have no comments."),
    (rf"\bi?b(\d+)\.{NAME}", r"Stata's `ib\1.\2` is `C(\2, Treatment(\1))`."),
    (rf"\b(?:i|ibn|io)\.{NAME}\b(?!\()", r"Stata's `i.\1` is `C(\1)`."),
    (rf"\bc\.{NAME}\b(?!\()", r"Stata's `c.\1` is `\1`."),
    (rf"(?<![\w.])(\d+)\.(?!e\d){NAME}", r"Stata's `\1.\2` is `I(\2 == \1)`."),
    (rf"\b[LFDS]\d*\.{NAME}\b(?!\()", r'Make a column of lags: `data.groupby("unit")["\1"].shift(1)`.'),
    (r"\bxi\s*:", "Leave out Stata's `xi:`; factors are `C(x)`."),
    (r"\[\s*[fpai]w(?:eight)?\s*=\s*(\w*)", r'Weights are options: `weights="\1"` with `weight_type=`.'),
    (r"^(?!.*\selse\s).*?\sif\s+([^,]+)", r'Choose rows in the data: `data.query("\1")`.'),
    (r"^(?!.*\b(in|and|or|not|is|for)\b)(\w+\s*~\s*)?\w+(\s+\w+)+\s*(,.*)?$", "Join by `+`: `y ~ x1 + x2`."),
    (
        r"(?:^|[~+*:])\s*(?!not\b|lambda\b)(\w+) (?!(?:in|is|and|or|not|if|else|for)\b)(\w+)\s*(?=$|[~+*:])",
        r"Write `\1 + \2` for two columns, or `Q('\1 \2')` for one with a blank in its name.",
    ),
    (r"\bbs\(\s*(\w+)\s*(?:,\s*degree\s*=\s*\d\s*)?\)", r"Splines need degrees of freedom: `bs(\1, df=3)`, as in R."),
    (r"\b(cr|cc)\(\s*(\w+)\s*\)", r"Splines need degrees of freedom: `\1(\2, df=4, constraints='center')`."),
    (r"\bte\(\s*\w+\s*[,)]", "Products of splines are `te(cr(x, df=4), cr(z, df=4), constraints='center')`."),
    (rf"(?:^|[~+])\s*{NAME}\s*&\s*{NAME}\s*(?:$|\+)", r"An interaction is `\1:\2`."),
    ("`", "R's backticks are `Q('odd name')`."),
    (r"^(?!.*[:(,]\s*\{)(?!.*\{[^}]*:).*\{", "Arithmetic is inside `I(...)`."),
    (r"^\s*(?:as\.)?(?:factor|ordered)\(\s*(\w+)\s*\)\s*~", r"The outcome is a number: `\1 ~ ...`."),
    (r"\bas\.(?:factor|character)\(\s*(\w+)", r"R's `as.factor(\1)` is `C(\1)`."),
    (r"\bas\.numeric\(\s*(\w+)", r"R's `as.numeric(\1)` is `1.0 * \1`."),
    (r"\bcontr\.(\w+)", r"R's contrasts are `C(x, Treatment)`, `C(x, Sum)`, `C(x, Helmert)` and `C(x, Poly)`."),
    (r"\boffset\((?:(?:np\.)?log\()?\s*(\w+)", r'An option: `offset="\1"`, or `exposure="\1"` for its logarithm.'),
    (r"\b[\w.]+::(\w+)\(", r"Packages are not named in formulas: `\1(...)`."),
    (r"\w\s*:\s*[01](?![\w.])", "A product with a number is no term. Leave it out."),
    (rf"(?:^|[~+])\s*{NAME}\s*([*/])\s*(\d[\d.]*)\s*(?:$|[~+])", r"Arithmetic is `I(\1 \2 \3)`."),
    (r"\)\s*\^\s*(\d)", r"R's `^\1` is `**\1`."),
    (rf"\b{NAME}\s*\^\s*(\d+)", r"Powers are `I(\1**\2)`."),
    (r"(?:^|[~+])\s*\.\s*($|[-+])", 'Name the columns: `" + ".join(data.columns.drop(["<y>", "<d>"]))`.'),
    (r"(\w+)\s*%in%", r"R's `%in%` is `I(\1.isin([...]))`."),
    (r"(?<![\w.])c\([-\d.,\s]*\)", "R's `c(1, 2)` is the list `[1, 2]`."),
    (r"\bC\(\s*(\w+)\s*,\s*(?:ref|reference|base|baseline)\s*=\s*(\w*)", r"The base level is `C(\1, Treatment(\2))`."),
    (r"[<>]\s*[\w.]+\s*[&|]\s*\w+\s*[<>]|==\s*[\w.]+\s*[&|]", "Use parentheses: `I((x > 1) & (z < 2))`."),
    (r"\(\s*[01]\s*\|\s*(\w+)\s*\)", r'There are no random effects. Use `C(\1)`, or `cluster="\1"` for the errors.'),
    (r"\w\s*\|\s*(\w+)\s*$", r'Fixed effects are `+ C(\1)`; clusters are `cluster="\1"`.'),
    (r"\w\$(\w+)", r"Name the column alone: `\1`."),
    ("[\u223c\u02dc\uff5e]", "Use the sign `~` of the keyboard."),
    (r"^\s*\w+\s*=(?!=)[^~]*$", "Use `~` between the outcome and the covariates, not `=`."),
    (
        r"^((?:[^,()\[\]]|\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\)|\[[^\]]*\])+),",
        r'Options are not part of the formula. Use `"\1"`.',
    ),
)

FUNCTIONS = {  # functions of R and Stata by their names; x is the first argument, df the number after it
    "factor as_factor ordered fe": "C({x})",
    "ln log exp sqrt abs log10 log2 log1p": "np.{name}({x})",
    "ns rcs s": "cr({x}, df={df}, constraints='center')",
    "poly": "{powers}",
    "ifelse": "np.where(condition, 1, 0)",
    "interaction": "C(a):C(b)",
    "cut": "C(pd.cut({x}, bins))",
    "relevel": "C({x}, Treatment(level))",
    "cbind": 'I(successes / trials)` with `weights=` the trials and `weight_type="frequency"',
}


def refuse_foreign(text: str, model: str, roles: tuple[str, str] = ("y", "d")) -> None:
    """Refuse a formula that is written as in R or Stata, and say how it is written here.

    `roles` are the names of outcome and treatment.
    """
    bare = re.sub(QUOTED, "", text)
    for pattern, sentence in HABITS:
        found = list(dict.fromkeys(match.expand(sentence) for match in re.finditer(pattern, bare)))
        if found:
            advice = " ".join(found[:5]).replace("<y>", roles[0]).replace("<d>", roles[1])
            raise DesignError(f"the {model} formula {text!r} cannot be read.\n{advice}")


def function_here(name: str, text: str) -> str:
    """Return what to write for a function of R or Stata, or of NumPy without its prefix; empty for others."""
    found = re.search(rf"\b{re.escape(name)}\(\s*([\w.]+)(?:\s*,\s*(?:df|degree)?\s*=?\s*(\d+))?", text)
    x, number = (found[1], int(found[2] or 0)) if found else ("x", 0)
    df = (number - 1 if name == "rcs" else number) or 4  # R's rcs counts knots
    powers = " + ".join([x, *(f"I({x}**{k})" for k in range(2, (number or 2) + 1))])
    typed = next((typed for names, typed in FUNCTIONS.items() if name in names.split()), "")
    return typed.format(x=x, df=df, powers=powers, name={"ln": "log"}.get(name, name))

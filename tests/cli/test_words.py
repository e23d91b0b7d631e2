"""Messages of the library in the words of the command line."""

from __future__ import annotations

import pytest

from causalrisk.cli.commands import in_options

KNOWN = {"treat", "treated", "reference", "weight-type", "cov-type", "seed", "n-boot", "levels", "estimator", "sep",
         "decimal", "na", "assumption", "trim", "cluster", "missing", "smooth", "learner",
         "learner-use", "formula", "family"}  # fmt: skip


@pytest.mark.parametrize(
    ("message", "typed"),
    [
        ('Type  treated="drug".', "Type  --treated drug."),
        ('Add  treated="no drug"  (or  reference="drug").', 'Add  --treated "no drug"  (or  --reference drug).'),
        ("Type  rng=0.", "Type  --seed 0."),
        ('Type  estimators=["JRE"].', "Type  --estimator JRE."),
        ("Type  trim=(0.1, 0.9).", "Type  --trim 0.1,0.9."),
        ('Type  levels={"a b": "control", 1: "treated"}.', 'Type  --levels "a b=control,1=treated".'),
        ("Type  fit(n_boot=200).", "Type  --n-boot 200."),
        ('Type  from_formula(..., cluster="column").', "Type  --cluster column."),
        ("Type  pd.read_csv(..., sep=';')  to read the file.", 'Type  --sep ";"  to read the file.'),
        ('read the file with  pd.read_csv(..., decimal=",")  or', "read the file with  --decimal ,  or"),
        ('Type  assumptions={"no_interference": "..."}.', "Type  --assumption no_interference=...."),
        (
            'Type  data["arm"] = data["arm"].mask(data["arm"].isin([\'n/a\', \'NA\']))  if they are.',
            'Type  --na "n/a,NA"  if they are.',
        ),
        ("smooth=True and learner= were both given", "--smooth and --learner were both given"),
        ('Type  learner=["smooth", ...]  for several.', "Type  --learner smooth,...  for several."),
        (
            'Type  model.with_options(learner_use="terms").fit().effects_by(...)  for terms.',
            "Type  --learner-use terms  for terms.",
        ),
        ("weight_type= is missing.", "--weight-type is missing."),
        ('Type  formula="y ~ x1 + x2".', 'Type  "y ~ x1 + x2".'),
        ('Type  formula="y ~ x", weight_type="frequency".', 'Type  "y ~ x", --weight-type frequency.'),
        (
            "expected one of 'gamma', or a family of statsmodels such as sm.families.NegativeBinomial(alpha=1.0).",
            "expected one of 'gamma'.",
        ),
        ("x2=3 of something else", "x2=3 of something else"),
    ],
)
def test_options_take_the_place_of_keywords(message, typed):
    assert in_options(message, KNOWN) == typed


def test_python_is_said_to_be_python():
    family = "Type  family=sm.families.Tweedie(var_power=1.5)."
    assert in_options(family, KNOWN).startswith(f"{family}\n(That is Python")
    assert in_options('Convert it:  data["x"] = data["x"].astype(str)', KNOWN).endswith("be done there.)")
    assert "Python" not in in_options("leave these rows out of every model.", KNOWN)

"""Calls as users of Stata, R and statsmodels write them by habit: each works, or its message says what to use.

Below a call stands how it prints, or, after an exclamation mark, what its message names. Words of other packages are
read in `tests/test_aliases.py`, their formulas in `tests/design/test_formula_habits.py`.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from sklearn.linear_model import LinearRegression, LogisticRegression

import causalrisk as cr
from causalrisk import AIPW, IPWRA, Hajek, compare, datasets, etable, pool, table_one

HABITS = r"""
compare("bweight ~ mage", b, treat="mbsmoke", estimators="ra ipw ipwra aipw", n_boot=49)
    4 estimators: ATE -277.06 to -275.56, 1 vs 0, n 4642
compare("bweight ~ mage", b, treat="mbsmoke", estimators=["ipw", "aipw"], n_boot=49)
    2 estimators: ATE -275.82 to -275.56, 1 vs 0, n 4642
Hajek.from_formula("bweight ~ mage", b, treat="msmoke", reference="0 daily", target="0 daily").fit()
    IPW: ATC[1-5 daily] -233.89 (41.56), ATC[11+ daily] -309.3
AIPW.from_formula("bweight ~ mage", b, treat="mbsmoke", k_split=5)
    AIPW: bweight ~ mage, mbsmoke: 1 vs 0, n 4642
IPWRA.from_formula("lbweight ~ mage", b, treat="mbsmoke", family=sm.families.Binomial).fit()
    IPWRA: ATE 0.06518 (0.01196), 1 vs 0, n 4642
IPWRA.from_formula("lbweight ~ mage", b, treat="mbsmoke", family=sm.families.Binomial(sm.families.links.Probit())).fit()
    IPWRA: ATE 0.06517 (0.01196), 1 vs 0, n 4642
IPWRA.from_formula("bweight ~ mage", b, treat="mbsmoke", link=sm.families.links.Log()).fit()
    IPWRA: ATE -275.77 (22.72), 1 vs 0, n 4642
IPWRA.from_formula("bweight ~ mage", b, treat="mbsmoke", propensity_link=sm.families.links.Probit()).fit()
    IPWRA: ATE -275.66 (22.73), 1 vs 0, n 4642
f"{of_arrays.params[0]:.2f} {of_arrays.bse[0]:.2f} {of_arrays.params[-1] == of_arrays.params['POM[1]']}"
    -243.81 23.68 True
fit.model.exog_names, fit.model.endog_names
    (['Intercept', 'mage', 'mmarried'], 'bweight')
fit.summary().as_latex(label="tab:smoking").splitlines()[:4]
    ['\\begin{table}[htbp]', '\\centering', '\\caption{IPW Regre
fit.predict(exog=b.head(1)).round(1).to_numpy().tolist()
    [[3440.1, 3218.3]]
fit.get_prediction(exog=b.head(1), arm=1).se_mean.round(1).tolist()
    [28.9]
fit.model.fit(rng=np.random.RandomState(0), n_boot=49)
    IPWRA: ATE -243.81 (25.45), 1 vs 0, n 4642
IPWRA(b.bweight, sm.add_constant(b[["mage"]]), b[["mbsmoke"]]).fit()
    IPWRA: ATE -275.77 (22.72), 1 vs 0, n 4642
IPWRA(b["bweight"], sm.add_constant(b[["mage"]]), b["mbsmoke"].sample(frac=1, random_state=0)).fit()
    IPWRA: ATE -275.77 (22.72), 1 vs 0, n 4642
AIPW.from_formula("bweight ~ mage", b, treat="mbsmoke", learner=LinearRegression()).fit()
    AIPW: ATE -276.29 (22.64), 1 vs 0, n 4642
AIPW.from_formula("bweight ~ mage", b, treat="mbsmoke", outcome_model=LinearRegression())
    AIPW: bweight ~ mage, mbsmoke: 1 vs 0, n 4642
AIPW.from_formula("bweight ~ mage", b, treat="mbsmoke", model_regression="lasso")
    AIPW: bweight ~ mage, mbsmoke: 1 vs 0, n 4642
AIPW.from_formula("bweight ~ mage", b, treat="mbsmoke", learner="smooth", n_rep=3)
    AIPW: bweight ~ mage, mbsmoke: 1 vs 0, n 4642
IPWRA.from_formula("bweight ~ mage", b, treat="(mbsmoke mage medu, probit)").fit()
    ! treat="mbsmoke", propensity="mage + medu
AIPW.from_formula("bweight ~ mage", b, treat="mbsmoke", cluster="~mage").fit()
    AIPW: ATE
AIPW.from_formula("bweight ~ mage", b, treat="mbsmoke", trim=0.1).fit()
    ! trim=(0.1, 0.9)
AIPW.from_formula("bweight ~ mage", b, treat="mbsmoke", clip=0.025).fit()
    ! clip=(0.025, 0.975)
AIPW.from_formula("lbweight ~ mage", b, treat="mbsmoke", family="binomial(link=probit)").fit()
    ! family='binomial'
table_one("mage medu", b, by="mbsmoke")
    ! +
fit.report("r.pdf")
    ! res.report("r.html")
IPWRA.from_formula("bweight ~ mage", b, treat="mbsmoke").fit(n_boot=1e2)
    ! n_boot=100
IPWRA.from_formula("bweight ~ mage", b[b.mage > 20], treat=b.mbsmoke)
    ! values.loc[data.index]
IPWRA.from_formula("bweight ~ mage", b, treat="mbsmoke", family=sm.families.Tweedie(var_power=1.5))
    ! Use one of them
fit.model.fit(vcov={"CRV1": "mage"})
    ! from_formula(..., cluster="column")
fit.model.fit(n_boot="many")
    ! n_boot=999
cr.JRE.from_formula("bweight ~ mage", b, treat="mbsmoke").fit(n_replicates=-5)
    ! n_replicates=200
fit.effects_by("fage")
    ! data=data
fit.model.fit(cov_kwds={"groups": "fage"})
    ! from_formula(..., cluster="fage")
fit.model.fit(vcov="~mage")
    ! from_formula(..., cluster="mage")
fit.model.fit(vce="cluster mage")
    ! from_formula(..., cluster="mage")
AIPW.from_formula("bweight ~ mage", b, treat="mbsmoke", vce="cluster mage medu")
    ! Use `cluster=['mage', 'medu']`
compare("bweight ~ mage", b, treat="mbsmoke", estimators=[fit])
    ! estimators=["IPWRA"]
fit.plot_balance("love.png")
    ! ax.figure.savefig("love.png")
fit.plot_overlap(plt.figure())
    ! ax=plt.subplots()[1]
fit.plot("page.png")
    ! res.plot().savefig("page.png")
etable(fit).to_word("t.docx")
    ! table.save("table.docx")
fit.to_docx("t.docx")
    ! res.summary().as_latex()` or `.save("table.docx")
fit.save("table.tex")
    ! res.summary().save("table.tex")
AIPW.from_formula("bweight ~ mage", b, treat="mbsmoke", target="nonsense")
    ! (or 'ATE', 'ATT', 'ATC')
Hajek.from_formula("bweight ~ mage", b, treat="msmoke", reference="none")
    ! reference="11+ daily"
IPWRA.from_formula("bweight ~ mage", b, treat="mbsmoke", cluster=b.mage[:40])
    ! one value per row
cr.DiD()
    ! DiD(before="y0")` or `DiD(time="year", unit="id")
fit.model.summary()
    ! model.fit().summary()
IPWRA.from_formula("bweight ~ mage", b.set_index(["mage", "medu"]), treat="mbsmoke").fit()
    ! data=data.reset_index()
AIPW.from_formula("bweight ~ mage", b, treat="mbsmoke", propensity=LogisticRegression())
    ! propensity_score=
IPWRA.from_formula("bweight ~ mage", b, treat="mbsmoke", target=(b.mmarried == 1)).fit()
    ! target=data[...]
IPWRA.from_formula("bweight ~ mage", b, treat="mbsmoke", target="mmarried == 1").fit()
    ! target=data.query('mmarried == 1')
AIPW.from_formula("bweight ~ mage", b, treat="mbsmoke", learner="smooth", score="ATTE")
    ! target=
"""
LINES = HABITS.strip().splitlines()


@pytest.fixture(scope="module")
def names():
    births = datasets.load_cattaneo2()
    fitted = IPWRA.from_formula("bweight ~ mage + mmarried", births, treat="mbsmoke").fit()
    tools = {
        "plt": pytest.importorskip("matplotlib.pyplot"),
        "np": np,
        "pd": pd,
        "sm": sm,
        "cr": cr,
        "compare": compare,
        "etable": etable,
        "pool": pool,
    }
    tools |= {"LogisticRegression": LogisticRegression, "LinearRegression": LinearRegression}
    models = {"AIPW": AIPW, "IPWRA": IPWRA, "Hajek": Hajek, "table_one": table_one}
    of_arrays = IPWRA(births.bweight, sm.add_constant(births[["mage", "mmarried"]]), births.mbsmoke).fit()
    return tools | models | {"b": births, "fit": fitted, "of_arrays": of_arrays}


@pytest.mark.filterwarnings("ignore::causalrisk.DesignWarning")
@pytest.mark.parametrize(("call", "expected"), list(zip(LINES[::2], LINES[1::2], strict=True)))
def test_a_call_by_habit_works_or_its_message_says_what_to_use(names, call, expected):
    refused, named = expected.strip().startswith("! "), expected.strip().removeprefix("! ")
    try:
        said = str(eval(call, names)).splitlines()[0]
    except (ValueError, TypeError, AttributeError) as error:
        assert refused and named in str(error)
    else:
        assert said.startswith(named) and not refused


def test_a_target_frame_inside_the_sample_is_told_from_its_rows(names):
    births = names["b"]
    model = IPWRA.from_formula("bweight ~ mmarried", births, treat="mbsmoke", target=births[births.mmarried == 1])
    with pytest.raises(cr.SeparationError, match="target frame"):
        model.fit()

"""Write marginaleffects.json: average comparisons of marginaleffects for regressions of statsmodels.

Run with marginaleffects 0.6.0 and statsmodels 0.15.0, the root of this repository on the path:
python make_marginaleffects.py marginaleffects.json
"""

import json
import sys
from importlib.metadata import version


def main(path):
    import statsmodels.formula.api as smf
    from marginaleffects import avg_comparisons

    from causalrisk import datasets

    births = datasets.load_cattaneo2()
    smokers = births[births["mbsmoke"] == 1]
    score = smf.logit("mbsmoke ~ mage + medu", births).fit(disp=0, tol=1e-14).predict()
    weights = births["mbsmoke"] / score + (1 - births["mbsmoke"]) / (1 - score)
    formula = "mbsmoke * (mage + medu)"
    linear = smf.ols(f"bweight ~ {formula}", births).fit()
    weighted = smf.wls(f"bweight ~ {formula}", births, weights=weights).fit()
    logit = smf.logit(f"lbweight ~ {formula}", births).fit(disp=0, tol=1e-14)

    def compared(model, **options):
        found = avg_comparisons(model, variables="mbsmoke", **options)
        return {"estimate": float(found["estimate"][0]), "std_error": float(found["std_error"][0])}

    names = ("marginaleffects", "statsmodels", "numpy")
    found = {
        "versions": {name: version(name) for name in names},
        "linear": compared(linear, vcov="HC0"),
        "linear, treated": compared(linear, vcov="HC0", newdata=smokers),
        "weighted": compared(weighted, vcov="HC0"),
        "logit difference": compared(logit),
        "logit lnratioavg": compared(logit, comparison="lnratioavg"),
        "logit lnoravg": compared(logit, comparison="lnoravg"),
    }
    with open(path, "w") as file:
        json.dump(found, file, indent=1)


if __name__ == "__main__":
    main(sys.argv[1])

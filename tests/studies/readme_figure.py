"""The picture of README.md: `python -m tests.studies.readme_figure` writes docs/_static/overview.png."""

from __future__ import annotations

from pathlib import Path

import causalrisk as cr
from tests.conftest import CATTANEO_PROPENSITY, CATTANEO_RHS

FILE = Path(__file__).resolve().parents[2] / "docs" / "_static" / "overview.png"
STYLE = {"font.size": 12, "axes.titlesize": 12, "axes.spines.top": False, "axes.spines.right": False}
NAMES = {
    "medu": "mother's education",
    "mage": "mother's age",
    "mmarried": "married",
    "prenatal1": "early prenatal visit",
    "fbaby": "first baby",
}


def draw(figure):
    """Draw balance before and after weighting, and the effect by every estimator."""
    births = cr.datasets.load_cattaneo2()
    options = {"treat": "mbsmoke", "propensity": CATTANEO_PROPENSITY}
    balance, effects = figure.subplots(1, 2)
    cr.IPWRA.from_formula(f"bweight ~ {CATTANEO_RHS}", births, **options).fit().plot_balance(balance, names=NAMES)
    balance.legend(frameon=False, fontsize=10, loc="lower right")
    balance.set_title("Smokers and others: balance", loc="left")
    balance.set_xlabel("absolute difference of means")
    cr.compare(f"bweight ~ {CATTANEO_RHS}", births, **options).plot(effects)
    effects.set_title("Effect on birth weight, grams", loc="left")
    effects.set_xlabel("estimate and 95% interval")


def main():
    """Write the picture."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    with plt.rc_context(STYLE):
        figure = plt.figure(figsize=(9, 3.6), layout="constrained")
        draw(figure)
        figure.savefig(FILE, dpi=150, metadata={"Software": None})


if __name__ == "__main__":
    main()

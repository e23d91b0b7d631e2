"""The pictures of README.md: `python -m tests.studies.readme_figure` writes balance.png and effects.png."""

from __future__ import annotations

from pathlib import Path

import causalrisk as cr
from tests.conftest import CATTANEO_PROPENSITY, CATTANEO_RHS

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "_static"
STYLE = {"font.size": 12, "axes.titlesize": 12, "axes.spines.top": False, "axes.spines.right": False}
NAMES = {
    "medu": "mother's education",
    "mage": "mother's age",
    "mmarried": "married",
    "prenatal1": "early prenatal visit",
    "fbaby": "first baby",
}


def draw(balance, effects):
    """Draw balance before and after weighting, and the effect by every estimator."""
    births = cr.datasets.load_cattaneo2()
    options = {"treat": "mbsmoke", "propensity": CATTANEO_PROPENSITY}
    cr.IPWRA.from_formula(f"bweight ~ {CATTANEO_RHS}", births, **options).fit().plot_balance(balance, names=NAMES)
    balance.legend(frameon=False, fontsize=10, loc="lower right")
    balance.set_title("Smokers and others", loc="left")
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
        figures = [plt.figure(figsize=(4.4, 3.6), layout="constrained") for _ in range(2)]
        draw(*(figure.subplots() for figure in figures))
        for figure, name in zip(figures, ("balance", "effects"), strict=True):
            figure.savefig(FOLDER / f"{name}.png", dpi=200, metadata={"Software": None})


if __name__ == "__main__":
    main()

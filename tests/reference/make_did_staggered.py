"""Write did_staggered.json: effects of staggered adoption by moderndid (Python, a port of R's did).

Run  python tests/reference/make_did_staggered.py  where moderndid 0.2.0 and pandas are installed.
"""

import json
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

HERE = Path(__file__).parent
TYPES = {"exposure": "dynamic", "group": "group", "time": "calendar"}
CASES = [
    ("never", "universal", 0), ("not yet", "universal", 0), ("never", "varying", 0), ("not yet", "varying", 0),
    ("never", "universal", 1), ("never", "varying", 1), ("not yet", "varying", 1),
]  # fmt: skip


def rows(*columns):
    """Rows without those of the base period, whose standard error is missing."""
    return [[float(x) for x in row] for row in zip(*columns, strict=True) if np.isfinite(row[-1])]


def case(data, controls, base, anticipation):
    from moderndid import aggte, att_gt

    made = att_gt(
        data=data, yname="y", tname="year", idname="id", gname="first", xformla="~ x", est_method="dr", boot=False,
        control_group={"never": "nevertreated", "not yet": "notyettreated"}[controls], base_period=base,
        anticipation=anticipation,
    )  # fmt: skip
    found = {"controls": controls, "base": base, "anticipation": anticipation}
    found["group_time"] = rows(made.groups, made.times, made.att_gt, made.se_gt)
    for name, kind in TYPES.items():
        one = aggte(made, type=kind, boot=False)
        found[name] = rows(one.event_times, one.att_by_event, one.se_by_event)
        if kind in ("dynamic", "group"):
            found["over exposure" if kind == "dynamic" else "all"] = [[float(one.overall_att), float(one.overall_se)]]
    simple = aggte(made, type="simple", boot=False)
    found["simple"] = [[float(simple.overall_att), float(simple.overall_se)]]
    return found


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    data = pd.read_csv(HERE / "did_staggered.csv")
    data["first"] = data["first"].replace(np.inf, 0)
    written = {
        "title": "Staggered adoption, (group, time) effects and averages",
        "made_with": "moderndid 0.2.0 (Python), make_did_staggered.py",
        "columns": "name, ATT, standard error; of group_time group and time first; all is the overall effect of type "
        "'group', over exposure that of type 'dynamic'",
        "cases": [case(data, *given) for given in CASES],
    }
    (HERE / "did_staggered.json").write_text(json.dumps(written, indent=1) + "\n")

"""Print a pip constraint for every lower bound of setup.cfg: its newest patch release, such as numpy==1.26.*."""

import configparser
import re
from pathlib import Path

parser = configparser.ConfigParser()
parser.read(Path(__file__).resolve().parents[1] / "setup.cfg", encoding="utf-8")
extras = [text for name, text in parser["options.extras_require"].items() if name not in ("docs", "all")]
lines = "\n".join([parser["options"]["install_requires"], *extras]).splitlines()
bounds = [re.sub(r"^([\w-]+)(\[\w+\])?>=([\d.]+)$", r"\1==\3.*", line) for line in lines if ">=" in line]
print("\n".join(sorted(set(bounds))))

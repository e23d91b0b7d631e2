"""Make the links and pictures of README.md absolute for a package index: python .ci/absolute_links.py v0.3.0."""

import configparser
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def absolute(text: str, url: str, version: str) -> str:
    """Return Markdown whose links and pictures lead to a version of the repository at an address."""
    text = re.sub(r'(src="|!\[[^\]]*\]\()(?=docs/)', rf"\1{url}/raw/{version}/", text)
    return re.sub(r"(\]\()(?=docs/)", rf"\1{url}/blob/{version}/", text)


if __name__ == "__main__":
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    readme = ROOT / "README.md"
    readme.write_text(absolute(readme.read_text("utf-8"), parser["metadata"]["url"], sys.argv[1]), "utf-8")

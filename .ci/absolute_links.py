"""Make the links and pictures of README.md work on a package index: python .ci/absolute_links.py FOLDER v0.3.0.

They lead to that version at the `url` of setup.cfg. Without one, links become plain text and pictures are left out.
"""

import configparser
import re
import sys
from pathlib import Path

LINK = r"(?<!!)\[([^\]]*)\]\((docs/[^)]*)\)"
PICTURE = r"!\[([^\]]*)\]\((docs/[^)]*)\)"
IMAGE = r'<img src="(docs/[^"]*)"([^>]*)>\n?'


def absolute(text: str, url: str, version: str) -> str:
    """Return Markdown without relative links."""
    if not url:
        return re.sub(LINK, r"\1", re.sub(IMAGE, "", re.sub(PICTURE, "", text)))
    text = re.sub(PICTURE, rf"![\1]({url}/raw/{version}/\2)", text)
    text = re.sub(IMAGE, rf'<img src="{url}/raw/{version}/\1"\2>\n', text)
    return re.sub(LINK, rf"[\1]({url}/blob/{version}/\2)", text)


if __name__ == "__main__":
    folder, version = Path(sys.argv[1]), sys.argv[2]
    parser = configparser.ConfigParser()
    parser.read(folder / "setup.cfg", encoding="utf-8")
    readme = folder / "README.md"
    text = absolute(readme.read_text("utf-8"), parser["metadata"].get("url", ""), version)
    readme.write_text(text, "utf-8")

"""The files that the page for contributors names exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CONTRIBUTING = (ROOT / "docs/development/contributing.md").read_text("utf-8")


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`([\w./]+(?:\.py|/))`", CONTRIBUTING))))
def test_files_named_for_contributors_exist(path):
    assert (ROOT / "causalrisk" / path).exists() or (ROOT / path).exists()

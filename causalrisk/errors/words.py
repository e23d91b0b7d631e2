"""Words of other packages and what is typed here instead, and references, as words.toml has them."""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Mapping
from importlib import resources
from typing import Any

Entry = str | list[dict[str, str]]  # a text, or rules that depend on what was given


@functools.cache
def _tables() -> dict[str, Any]:
    text = resources.files(__package__).joinpath("words.toml").read_text("utf-8")
    elsewhere = tomllib.loads(text)["not_here"]
    filled = re.sub(r"\{not here: (\w+)\}", lambda m: f"That is not in this package; {elsewhere[m[1]]}.", text)
    return tomllib.loads(filled)


@functools.cache
def table(*names: str) -> Mapping[str, Any]:
    """Return a table of words.toml with a key for each single word; empty if there is none of the name.

    Parameters
    ----------
    *names : str
        The parts of its name, such as ``"instead", "fit"``.

    Returns
    -------
    mapping
        Word -> text, or the list of rules.
    """
    found = functools.reduce(lambda level, name: level.get(name, {}), names, _tables())
    return {word: entry for words, entry in found.items() for word in words.split()}


@functools.cache
def values(option: str) -> Mapping[str, str | None]:
    """Return words for the values of an option; None for a word that no value stands for."""
    found = _tables()["values"].get(option, {})
    return {word: value or None for value, words in found.items() for word in words.split()}


def explained(option: str, given: object) -> list[str]:
    """Return sentences on why a word stands for another value of an option."""
    sentences = table("explained", option)
    return [sentences[word] for word in (str(given).casefold(), "any") if word in sentences]

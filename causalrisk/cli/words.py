"""Messages of the library in the words of the command line: its options for the keywords of Python."""

from __future__ import annotations

import re
from collections.abc import Iterable

RENAMED = {"rng": "seed", "n_jobs": "jobs", "estimators": "estimator", "assumptions": "assumption"}
VALUE = r"(\"[^\"]*\"|'[^']*'|\([^()]*\)|\[[^\]]*\]|\{[^}]*\}|[\w.+-]*\w)"
READING = {"sep": "--sep", "decimal": "--decimal", "thousands": "--thousands", "encoding": "--encoding"}


def in_options(message: str, known: Iterable[str]) -> str:
    """Return a message with the options of the command line for the keywords of the library.

    Parameters
    ----------
    message : str
        Of an error or a warning.
    known : iterable of str
        The options of the command, such as "weight-type".

    Returns
    -------
    str
        The message; Python that has no counterpart stays, and is said to be Python.
    """
    known = set(known)
    options = {name.replace("-", "_"): f"--{name}" for name in known}
    options |= {python: f"--{typed}" for python, typed in RENAMED.items() if typed in known and python not in known}
    if "na" in known:
        masked = rf"data\[[^]]*\] = data\[[^]]*\]\.mask\(data\[[^]]*\]\.isin\({VALUE}\)\)"
        message = re.sub(masked, lambda m: f"--na {_shell(m[1])}", message)
    message = re.sub(r"pd\.read_csv\(\.\.\., ([^()]*)\)", lambda m: _reading(m[1]), message)
    message = re.sub(
        rf"(?:from_formula|fit|summary)\((?:\.\.\., )?((?:\w+=(?:{VALUE}|\.\.\.)(?:, )?)+)\)", lambda m: m[1], message
    )
    message = re.sub(rf"\b(\w+)=({VALUE})", lambda m: _option(m[0], m[1], m[2], options), message)
    message = re.sub(r"\b(\w+)=(?=[ ,.;:)])", lambda m: options.get(m[1], m[0]), message)
    if re.search(r"data\[\"|from_formula\(|\bres\.\w|\bmodel\.\w", message.rsplit("\n", 1)[-1]):
        return f"{message}\n(That is Python: the file can be changed so, or the analysis be done there.)"
    return message


def _reading(given: str) -> str:
    pairs = re.findall(rf"(\w+)=({VALUE})", given)
    return " ".join(f"{READING.get(name, '--' + name)} {_shell(value)}" for name, value, *_ in pairs)


def _option(whole: str, name: str, value: str, options: dict[str, str]) -> str:
    return f"{options[name]} {_shell(value)}" if name in options else whole


def _shell(value: str) -> str:
    """Return a Python literal as a shell word, quoted where it needs to be."""
    if value[0] in "([":
        value = value[1:-1].replace(" ", "").replace('"', "").replace("'", "")
    elif value[0] == "{":
        pairs = re.findall(r"([^{,:]+): ([^,}]+)", value)
        value = ",".join("=".join(part.strip(" \"'") for part in pair) for pair in pairs)
    else:
        value = value.strip("\"'")
    return value if re.fullmatch(r"[\w.,=+-]+", value) else f'"{value}"'

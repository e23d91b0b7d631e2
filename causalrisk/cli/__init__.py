"""The command line: `causalrisk fit FILE FORMULA --treat D`, and its other commands."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from causalrisk.cli.root import COMMANDS, make_root

__all__ = ["main"]
INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the library is imported for a command, not for help, version and a misspelt command.

    Parameters
    ----------
    arguments : sequence of str, optional
        Arguments; by default those of the process.

    Returns
    -------
    int
        Exit code: that of the command, 130 where interrupted.
    """
    given = sys.argv[1:] if arguments is None else arguments
    if COMMANDS.keys().isdisjoint(given):
        make_root()[0].parse_args(given)  # says what there is, or what is wrong, and leaves
    try:
        from causalrisk.cli.commands import run

        return run(given)
    except KeyboardInterrupt:
        print("causalrisk: interrupted.", file=sys.stderr)
        return INTERRUPTED

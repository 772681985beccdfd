"""The command line. Users start at ``ragworks --help``; a new command is one function in the file of its theme.

No module here imports anything heavy at its top, so that help and errors come at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from ragworks.cli.commands import application
from ragworks.cli.failing import report

__all__ = ["application", "main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line; the exit code is 0 on success, 1 on failure, 2 on wrong usage, 130 when interrupted."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    plain = [one for one in given if one != "--debug"]
    try:
        application(args=plain, prog_name="ragworks")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    except BrokenPipeError:
        # The reader (head, less) has gone: nothing is wrong, but flushing at exit must not complain either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:  # the last place where one can become a sentence
        if len(plain) < len(given):
            raise
        return report(error)
    return 0

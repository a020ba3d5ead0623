"""What the user gave cannot be used: said in one line, with what to do, instead of a traceback."""

import sys
from collections.abc import Callable

__all__ = ["DamagedError", "InputError", "UnfitError", "exit_status"]


class InputError(Exception):
    """A file, column or setting that cannot be used. The message says what, where, and what to do.

    Not a ValueError: libraries that call our code catch those and wrap them into messages of their own.
    """


class UnfitError(InputError):
    """A screen was read, and is not one that a study can run on."""


class DamagedError(InputError):
    """A file of a store is missing, or is not what was written."""


def exit_status(command: Callable[[], int], when_stopped: str = "stopped") -> int:
    """Run a command and return its exit status: 2, with one line, for input that cannot be used; 130 for Ctrl-C."""
    try:
        return command()
    except InputError as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(when_stopped, file=sys.stderr)
        return 130

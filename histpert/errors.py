"""What the user gave cannot be used: said in one line, with what to do, instead of a traceback."""

__all__ = ["InputError"]


class InputError(Exception):
    """A file, column or setting that cannot be used. The message says what, where, and what to do.

    Not a ValueError: libraries that call our code catch those and wrap them into messages of their own.
    """

"""The `histpert` command in this process."""

import importlib.util
import sys
from pathlib import Path

import histpert


def unchecked_main():
    """`histpert.cli.main`, imported past the type checks of these tests.

    Until the command line is read a placeholder of tyro's stands for the path, and is no Path.
    """
    spec = importlib.util.spec_from_file_location("unchecked_cli", Path(histpert.__file__).parent / "cli.py")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main

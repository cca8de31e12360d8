"""Whose modules our processes import: ours and the installed ones first, the user's own only where a locustfile asks.

A user's directory may hold packages of any name, and PYTHONPATH may name it.
"""

import os
import sys
from pathlib import Path

import tailgate


def python_module(module: str) -> list[str]:
    """The beginning of a command line that runs one of our modules in a process of its own (see `tailgate._child`)."""
    return [sys.executable, "-E", "-P", str(Path(tailgate.__file__).with_name("_child.py")), module]


def installed_first() -> None:
    """For a process that is all ours: take the working directory off the path, and PYTHONPATH's entries to its end."""
    named = _named_by_user()
    here = os.getcwd()
    rest = [path for path in sys.path if path not in named and path not in ("", here)]
    sys.path[:] = rest + named


def user_first() -> None:
    """For a user's locustfile, once all of ours is imported: put its directories where plain Python has them."""
    named = _named_by_user()
    sys.path[:] = [os.getcwd(), *named, *(path for path in sys.path if path not in named)]


def _named_by_user() -> list[str]:
    return [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]

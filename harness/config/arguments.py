"""A command line's parser that says one thing when something is wrong: what, and what was probably meant."""

import argparse
import sys
from difflib import get_close_matches
from typing import Any, NoReturn


class Parser(argparse.ArgumentParser):
    """argparse without abbreviations, whose errors are one line; exit code 2."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **{"allow_abbrev": False, **settings})

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and end."""
        unknown = message.removeprefix("unrecognized arguments: ")
        if unknown != message:
            flag = unknown.split()[0].partition("=")[0]
            near = get_close_matches(flag, self._option_string_actions, n=1)
            hint = f"Did you mean {near[0]}?" if near else f"{self.prog} --help lists them."
            message = f"unknown {'flag' if flag.startswith('-') else 'argument'} {flag!r}. {hint}"
        print(f"{self.prog}: {message}", file=sys.stderr)
        sys.exit(2)

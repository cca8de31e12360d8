"""The command line's parser, whose errors are one line with what was probably meant, and its number types."""

import argparse
import math
import sys
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any, Final, NoReturn, TypeVar

N = TypeVar("N", int, float)
EXIT_CODES: Final = "Exit codes: 0 PASS, 1 FAIL, 2 wrong input, 3 INCONCLUSIVE, 4 INVALID, 130 interrupted."
ALL_HELP: Final = "Print what is seldom needed too: more rows of the tables, and every check."


class Parser(argparse.ArgumentParser):
    """argparse without abbreviations, whose errors are one line; exit code 2."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **{"allow_abbrev": False, **settings})

    def error(self, message: str) -> NoReturn:
        unknown = message.removeprefix("unrecognized arguments: ")
        if unknown != message:
            flag = unknown.split()[0].partition("=")[0]
            near = get_close_matches(flag, self._option_string_actions, n=1)
            hint = f"Did you mean {near[0]}?" if near else f"{self.prog} --help lists them."
            message = f"unknown {'flag' if flag.startswith('-') else 'argument'} {flag!r}. {hint}"
        self.refuse(message)

    def refuse(self, message: str) -> NoReturn:
        """Say what is wrong, and end."""
        print(f"{self.prog}: {message}", file=sys.stderr)
        sys.exit(2)


def number(kind: type[N], low: float, high: float = math.inf) -> Callable[[str], N]:
    """A `type=` for argparse: a whole (int) or any (float) number in [low, high]."""
    wanted = f"{'a whole number' if kind is int else 'a number'} "
    wanted += f"from {low:g} to {high:g}" if math.isfinite(high) else f"of at least {low:g}"

    def read(text: str) -> N:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is not {wanted}")
        return value

    return read

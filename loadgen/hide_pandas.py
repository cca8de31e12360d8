"""Keeps pandas out of our processes: where it is installed, pyarrow imports it at its first conversion of a list.

That would cost 0.2 s and 40 MB, perhaps in the middle of a run, for nothing that is used.
"""

import sys


class _NoPandas:
    """A finder that finds no pandas. (A None in `sys.modules` would do, if pyarrow did not take it for the module.)"""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name == "pandas":
            raise ModuleNotFoundError("hidden from this process", name=name)


def hide_pandas() -> None:
    """Hide pandas for the rest of this process, which must run no user's code. pyarrow asks once and remembers."""
    sys.meta_path.insert(0, _NoPandas())

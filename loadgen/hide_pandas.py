"""Keeps pandas out of our processes: where it is installed, pyarrow imports it at its first conversion of a list."""

import sys


class _NoPandas:
    """Hides pandas. It would cost 0.2 s and 40 MB, perhaps in the middle of a run, for nothing that is used."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        """The import system's question where a module is (importlib.abc.MetaPathFinder)."""
        if name == "pandas":
            raise ModuleNotFoundError("hidden from this process", name=name)


def hide_pandas() -> None:
    """For good, and for a process that runs nobody else's code: pyarrow asks once and remembers."""
    sys.meta_path.insert(0, _NoPandas())

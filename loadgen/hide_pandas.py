"""Keeps pandas out of our processes: where it is installed, pyarrow imports it at its first conversion of a list.

That would cost 0.2 s and 40 MB, perhaps in the middle of a run, for nothing that is used.
"""

import sys


def hide_pandas() -> None:
    """Hide pandas for the rest of this process, which must run no user's code. pyarrow asks once and remembers."""
    sys.modules["pandas"] = None  # type: ignore[assignment]

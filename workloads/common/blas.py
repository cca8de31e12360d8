"""NumPy without OpenBLAS's threads: nothing here multiplies matrices, and each spins for some 30 ms when it starts."""

import os
from typing import Final

_THREADS: Final = "OPENBLAS_NUM_THREADS"


def import_numpy_alone() -> None:
    """Import NumPy without such threads. Processes that are started later find the environment as it was."""
    before = os.environ.get(_THREADS)
    os.environ[_THREADS] = "1"
    import numpy  # noqa: F401

    if before is None:
        del os.environ[_THREADS]
    else:
        os.environ[_THREADS] = before

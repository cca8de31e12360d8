"""The compiled extensions are there."""

import shutil
import sysconfig
from pathlib import Path

import pytest

from tailgate.loadgen.injector.http import AVAILABLE

HEADERS = Path(sysconfig.get_paths()["include"], "Python.h").exists()


@pytest.mark.skipif(
    not AVAILABLE and not (HEADERS and shutil.which("cc")), reason="there is no C compiler, or no header of Python's"
)
def test_the_extension_is_there_where_there_is_a_compiler() -> None:
    assert AVAILABLE

"""A digest of a file that may be large."""

import hashlib
from pathlib import Path
from typing import Final

from tailgate.workloads.common.errors import UserError

_WHOLE_FILE: Final = 64 << 20


def file_digest(file: Path) -> str:
    """A digest of a file's content: whole up to 64 MiB; beyond, its size with its first and last 32 MiB.

    Of a folder: of the names and contents of the files in it. A UserError names a file that can't be read.
    """
    try:
        return _digest(file)
    except OSError as error:
        raise UserError(f"can't be read: {error.strerror}", where=str(file)) from error


def _digest(file: Path) -> str:
    digest = hashlib.blake2b(digest_size=16)
    if file.is_dir():
        for path in sorted(file.iterdir()):
            if path.is_file():
                digest.update(f"{path.name}\x1f{_digest(path)}\x1e".encode())
        return digest.hexdigest()
    size = file.stat().st_size
    with file.open("rb") as stream:
        if size <= _WHOLE_FILE:
            digest.update(stream.read())
        else:
            digest.update(str(size).encode())
            digest.update(stream.read(_WHOLE_FILE // 2))
            stream.seek(-_WHOLE_FILE // 2, 2)
            digest.update(stream.read())
    return digest.hexdigest()

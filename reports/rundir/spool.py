"""Reading what injectors spooled: Arrow IPC streams that a `kill -9` may have cut at any byte.

Every whole batch is kept; what follows the cut is not guessed at. Joining with the plan is `reports.rundir.collect`.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from tailgate.loadgen.spool import END_OF_STREAM


def whole_batches(path: Path) -> Iterator[Any]:
    """The record batches of the stream at `path` that are there completely, memory-mapped, in order."""
    try:
        source = pa.memory_map(str(path))
    except (OSError, pa.ArrowInvalid):  # an empty file cannot be mapped
        return
    with source:
        try:
            reader = pa.ipc.open_stream(source)
        except (OSError, pa.ArrowInvalid):  # cut inside the schema
            return
        while True:
            try:
                batch = reader.read_next_batch()
            except (StopIteration, EOFError, OSError, pa.ArrowInvalid):
                return
            yield batch


def is_closed(path: Path) -> bool:
    """Whether the writer closed the stream, i.e. whether its process came to its own end."""
    try:
        with path.open("rb") as file:
            if file.seek(0, 2) < len(END_OF_STREAM):
                return False
            file.seek(-len(END_OF_STREAM), 2)
            return file.read() == END_OF_STREAM
    except OSError:
        return False


def spool_files(run_dir: Path, kind: str) -> dict[int, Path]:
    """`spool/KIND-K.arrows` by injector number K; kind is `injector` or `client`."""
    files = {}
    for path in (run_dir / "spool").glob(f"{kind}-*.arrows"):
        number = path.stem.rpartition("-")[2]
        if number.isdigit():
            files[int(number)] = path
    return dict(sorted(files.items()))

"""Samples survive a disk that fills up."""

import subprocess
import sys
from pathlib import Path

import pyarrow as pa


def read(path: Path) -> list[int]:
    with path.open("rb") as file:
        try:
            return [t for batch in pa.ipc.open_stream(file) for t in batch["t"].to_pylist()]
        except pa.ArrowInvalid:
            return []


FULL = """
import resource, signal, sys
import subprocess
import sys
from pathlib import Path
import pyarrow as pa
from tailgate.harness.telemetry.sample_store import TidySamples
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
samples = TidySamples(pa.schema([("t", pa.int64()), ("name", pa.string())]), Path(sys.argv[1]))
samples.append([[1], ["a"]])
samples.flush()
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))
for k in range(2):
    samples.append([[2 + k], ["x" * 5000]])
    try:
        samples.flush()
    except OSError as error:
        print(error.strerror)
    print(Path(sys.argv[1]).stat().st_size)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
samples.close()
"""


def test_a_full_disk_ends_the_stream_at_a_batch_and_nothing_is_lost_when_there_is_room_again(tmp_path: Path):
    path = tmp_path / "spool.arrows"
    said = subprocess.run([sys.executable, "-c", FULL, path], capture_output=True, text=True, check=True).stdout
    first, size, second, again = said.splitlines()
    assert first == second == "File too large"
    assert size == again and int(size) < 2000
    assert read(path) == [1, 2, 3]

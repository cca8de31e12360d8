"""Which files of a run directory are as they were when the run ended, by the checksums in its manifest."""

from pathlib import Path
from typing import Final

from tailgate.reports.rundir.manifest import Manifest, sha256_of

# Every collected run has these ...
_ALWAYS: Final = ("plan.parquet", "requests.parquet", "arrivals.parquet", "client.parquet")
# ... and everything that was measured or happened is in one of these; documents are made from it.
MEASURED: Final = (*_ALWAYS, "server.parquet", "gpu.parquet", "host.parquet", "events.jsonl")


def checksums(run_dir: Path) -> dict[str, str]:
    """SHA-256 of every measured file that is there, by name."""
    return {name: sha256_of(run_dir / name) for name in MEASURED if (run_dir / name).exists()}


def altered(run_dir: Path, manifest: Manifest) -> dict[str, str]:
    """How files are not what the run wrote, by name: `missing` or `changed`."""
    found = {name: "missing" for name in _ALWAYS if not (run_dir / name).is_file()}
    for name, known in manifest.checksums.items():
        path = run_dir / name
        if not path.is_file():
            found[name] = "missing"
        elif sha256_of(path) != known:
            found[name] = "changed"
    return found


def unsummed(run_dir: Path, manifest: Manifest) -> list[str]:
    """Measured files that are there and of which the manifest keeps no checksum."""
    return [name for name in MEASURED if name not in manifest.checksums and (run_dir / name).exists()]

"""What a run costs the machine it measures from: CPU of a run, of a request, of a chunk. Prints a table.

The CPU of whole runs (all processes, start and report included) over loads of 1, 4 and 16 times the requests, with 200
tokens and with one, is fitted as  run + requests x request + chunks x chunk.  Beside it stands the floor: a client in
plain C that only receives (harness/calibrate/plain_client.c), at the same rate against the same exact server.

`python tests/bench/bench_client_cost.py [OTHER_PYTHON]`: the second interpreter is another version's (its virtual
environment), measured in turn with this one; the ratios are this one's over that one's.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from bench_injector import HERE, Load, compiled, measured, serving

PLAIN_CLIENT = HERE.parents[1] / "harness" / "calibrate" / "plain_client.c"
RATE = 100  # requests/s: 20,000 chunks/s, which a slow machine still serves in time
LOADS = [(2, 200), (8, 200), (32, 200), (8, 1), (32, 1)]  # seconds, tokens
PARTS = ("a run, s", "a request, ms", "a chunk, us")


def floor(folder: Path, url: str) -> float:
    """CPU of the plain client, us a chunk."""
    compiler = shutil.which("cc")
    assert compiler is not None  # `compiled` has asked
    subprocess.run([compiler, "-O2", "-o", str(folder / "plain"), str(PLAIN_CLIENT)], check=True)
    port = url.rpartition(":")[2]
    command = [str(folder / "plain"), port, str(RATE), "16", "200"]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout)
    print(
        f"plain C client: TTFT {found['ttft_p50']}/{found['ttft_p99']} ms, ITL {found['itl_p50']}/{found['itl_p99']} ms"
    )
    return 1e6 * found["cpu_s"] / found["chunks"]


def parts(folder: Path, url: str, pythons: list[str]) -> list[list[float]]:
    """By version: CPU of a run (s), of a request (ms) and of a chunk (us). Each load is run by all in turn."""
    rows: list[list[float]] = []
    cpu: list[list[float]] = []
    for number, (seconds, tokens) in enumerate(LOADS):
        load = Load("", (), f"{RATE}/s", seconds, tokens, "constant")
        cpu.append([])
        for python in pythons:
            found = measured(url, load, folder / str(number), python=python)
            requests = found["summary"]["load"]["requests"]["planned"]
            cpu[-1].append(found["cpu_s"])
            shutil.rmtree(folder / str(number))
        rows.append([1.0, requests, requests * tokens])
    fitted = np.linalg.lstsq(np.array(rows), np.array(cpu), rcond=None)[0]
    return (fitted.T * [1.0, 1e3, 1e6]).tolist()


def main() -> int:
    pythons = [sys.executable, *sys.argv[1:2]]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with serving(compiled(folder)) as url:
            least = floor(folder, url)
            found = parts(folder, url, pythons)
    print(f"plain C client: {least:.2f} us a chunk")
    for k, part in enumerate(PARTS):
        beside = f", {found[0][k] / found[1][k]:.2f} of the other version's {found[1][k]:.3g}" if len(found) > 1 else ""
        over = f", {found[0][k] / least:.2f} of the plain client's" if k == 2 else ""
        print(f"{part}: {found[0][k]:.3g}{over}{beside}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""How long `tailgate report` takes, and how much memory, on runs of up to 1,000,000 requests.

    .venv/bin/python tests/bench/bench_report.py [REQUESTS [ARRIVALS_PER_REQUEST]]

Makes a collected run directory of synthetic requests (columnar, so that making it is quick), runs
`tailgate report` on it in a process of its own, and prints wall time, CPU time and peak memory.
Bounds: 1,000,000 requests of 200 arrivals in 60 s and 3 GB, 100,000 in 6 s.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).parents[2]))

from tailgate.loadgen.records import ARRIVALS_SCHEMA, CLIENT_SCHEMA, LAG_EDGES_NS, REQUESTS_SCHEMA
from tailgate.reports.rundir.manifest import Manifest, TargetRecord, checksums

MS, S = 1_000_000, 1_000_000_000
RATE = 1000.0


def main() -> None:
    """Make, report, print."""
    requests = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    arrivals = int(sys.argv[2]) if len(sys.argv) > 2 else 200
    with tempfile.TemporaryDirectory(prefix="tailgate-bench-") as folder:
        run_dir = Path(folder) / "run"
        make(run_dir, requests, arrivals)
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        command = [sys.executable, "-c", "import sys; from tailgate.harness.cli import main; sys.exit(main())"]
        subprocess.run([*command, "report", str(run_dir), "--quiet"], check=False, cwd=Path(__file__).parents[2])
        wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        print(f"requests             {requests:,} of {arrivals} arrivals each")
        print(f"tailgate report      {wall:.1f} s, {cpu:.1f} s of CPU, peak {after.ru_maxrss / 2**20:.2f} GiB")
        print(f"report.html          {os.path.getsize(run_dir / 'report.html') / 1e6:.2f} MB")


def make(run_dir: Path, requests: int, arrivals: int) -> None:
    """A run directory of `requests` rows at RATE, each with `arrivals` content arrivals about 20 ms apart."""
    run_dir.mkdir(parents=True)
    rng = np.random.default_rng(1)
    at = (np.arange(requests) / RATE * S).astype(np.int64)
    sent = at + rng.integers(10_000, 400_000, requests)
    first = sent + (rng.gamma(4, 25, requests) * MS).astype(np.int64)
    spans = np.zeros(requests, np.int64)
    with pq.ParquetWriter(
        run_dir / "arrivals.parquet", ARRIVALS_SCHEMA, compression="lz4", use_dictionary=False
    ) as out:
        step = max(1, 8_000_000 // arrivals)
        for low in range(0, requests, step):
            n = min(step, requests - low)
            gaps = rng.integers(15_000, 25_000, (n, arrivals), dtype=np.uint32)
            gaps[:, 0] = 0
            times = np.cumsum(gaps, axis=1, dtype=np.uint32)
            spans[low : low + n] = times[:, -1].astype(np.int64) * 1000
            lists = pa.ListArray.from_arrays(
                pa.array(np.arange(n + 1, dtype=np.int32) * arrivals), pa.array(times.ravel())
            )
            out.write_table(pa.table([pa.array(np.arange(low, low + n)), lists], schema=ARRIVALS_SCHEMA))
    last = first + spans
    _requests(run_dir, at, sent, first, last, rng, arrivals)
    seconds = int((last.max()) // S) + 1
    _client(run_dir, at, last, seconds)
    end = int(at[-1]) + 1
    Manifest(
        run="run", state="complete", spec={"slo": {"ttft": "p99 < 800ms"}},
        measure_end_ns=end, drain_end_ns=end + 60 * S,
        target=TargetRecord(kind="url", urls=["http://127.0.0.1:1"]), command_line=["tailgate", "run"],
        checksums=checksums(run_dir),
    ).save(run_dir)  # fmt: skip


def _requests(run_dir, at, sent, first, last, rng, arrivals) -> None:  # type: ignore[no-untyped-def]
    n = len(at)

    def texts(values: list[str], codes: np.ndarray) -> pa.Array:  # type: ignore[type-arg]
        return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32)), pa.array(values))

    zero = np.zeros(n, np.int64)
    known = {
        "session": np.arange(n), "turn": zero, "class": texts(["chat", "rag"], np.arange(n) % 2),
        "tenant": texts(["a", "b", "c"], np.arange(n) % 3), "phase": texts(["measure"], zero),
        "prompt_tokens_planned": (prompt := rng.integers(10, 4000, n)), "output_tokens_planned": zero + arrivals,
        "index": np.arange(n), "endpoint": texts(["http://127.0.0.1:1"], zero).cast(pa.string()), "injector": zero,
        "status": texts(["ok"], zero).cast(pa.string()), "http_status": zero + 200, "scheduled_ns": at,
        "request_id": pa.array([f"r-{k}" for k in range(n)]), "dispatched_ns": at + 5_000, "sent_ns": sent,
        "first_token_ns": first, "first_answer_ns": first, "last_token_ns": last, "end_ns": last + 50_000,
        "prompt_tokens": prompt, "output_tokens": zero + arrivals, "chunks": zero + arrivals, "client_coalesced": zero,
        "server_coalesced": zero, "first_token_coalesced": zero.astype(np.bool_), "bytes_received": zero + 1000,
    }  # fmt: skip
    columns = [
        pa.nulls(n, f.type) if f.name not in known
        else known[f.name] if isinstance(known[f.name], pa.Array)
        else pa.array(known[f.name]).cast(f.type)
        for f in REQUESTS_SCHEMA
    ]  # fmt: skip
    pq.write_table(pa.table(columns, schema=REQUESTS_SCHEMA), run_dir / "requests.parquet", compression="zstd")


def _client(run_dir, at, last, seconds) -> None:  # type: ignore[no-untyped-def]
    edges = np.arange(seconds + 1) * S

    def area(events: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
        ordered = np.sort(events).astype(np.float64)
        summed = np.concatenate([[0.0], np.cumsum(ordered)])
        before = np.searchsorted(ordered, edges)
        return np.diff(before * edges - summed[before])

    inside = area(at + 5_000) - area(last + 50_000)
    ended = np.histogram(last + 50_000, edges)[0]
    histogram = [0] * len(LAG_EDGES_NS)
    histogram[20] = 1000
    rows = [
        {"injector": 0, "t_ns": int(edges[k]), "dur_ns": S, "in_flight_ns": int(inside[k]), "in_flight_max": 1,
         "dispatched": 1, "finished": int(ended[k]), "cpu_fraction": 0.3, "loop_max_ns": 1, "reads": 1, "bytes": 1,
         "dispatch_lag": histogram, "receive_lag": histogram, "turnaround_lag": [0] * len(histogram),
         "clock_step_ns": 0, "clock_jump_ns": 0, "run_delay_ns": 0, "steal_ns": 0}
        for k in range(seconds)
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows, CLIENT_SCHEMA), run_dir / "client.parquet")


if __name__ == "__main__":
    main()

"""Figures of the workloads package: plans, readers, prompts. `python tests/bench/bench_plan.py`; asserts nothing.

Each figure is taken in a process of its own, so that its peak memory is its own.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

PLAN = """
from tailgate.workloads.plan.plan import make_plan
from tailgate.workloads.config.workload import WorkloadSpec
begin()
plan = make_plan(WorkloadSpec(profile={profile!r}, requests={rows}, duration=None), 7)
end(f"plan of {{plan.table.num_rows:,}} rows from {profile}", plan.table.num_rows, "rows")
"""

TRACE = """
from pathlib import Path
from tailgate.workloads.traces import azure
from tailgate.workloads.traces.rows import Faults
begin()
rows = sum(map(len, azure.read(Path({file!r}), Faults(Path({file!r})))))
end(f"Azure CSV of {{rows:,}} rows read", rows, "rows")
"""

TRACE_PLAN = """
from pathlib import Path
from tailgate.workloads.plan.plan import make_plan
from tailgate.workloads.config.workload import WorkloadSpec
begin()
plan = make_plan(WorkloadSpec(trace={{"file": Path({file!r})}}), 7)
end(f"plan of {{plan.table.num_rows:,}} rows of an Azure CSV", plan.table.num_rows, "rows")
"""

PROMPTS = """
from tailgate.workloads.prompts.content_table import table_default
from tailgate.workloads.prompts.corpus import corpus_text
from tailgate.workloads.prompts.prompts import PromptMaker
maker = PromptMaker(table_default(text=corpus_text()), block_tokens=64, mode={mode!r})
make = maker.ids_json if {mode!r} == "ids" else maker.text_json
make(0, {blocks}, 8000)
begin()
for seed in range(2000):
    make(seed, {blocks}, 8000)
end("prompts of 8,000 tokens as {mode}, {what}", 2000, "prompts")
"""

FRAME = """
import resource, time
def begin():
    global wall, cpu
    wall, cpu = time.perf_counter(), time.process_time()
def end(what, n, unit):
    w, c = time.perf_counter() - wall, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{what:58} {w:7.2f} s {1e6 * c / n:9.2f} us CPU each {n / w:12,.0f} {unit}/s {peak:6.0f} MB peak")
"""


def measure(script: str) -> None:
    subprocess.run([sys.executable, "-c", FRAME + script], check=True)


def synthetic_azure(file: Path, rows: int) -> None:
    """Rows in the form of Azure 2024: six fraction digits, a zone."""
    with file.open("w") as stream:
        stream.write("TIMESTAMP,ContextTokens,GeneratedTokens\n")
        for start in range(0, rows, 100_000):
            lines = []
            for k in range(start, min(start + 100_000, rows)):
                second, micro = divmod(k * 21_977, 1_000_000)
                day, second = divmod(second, 86_400)
                hour, second = divmod(second, 3_600)
                stamp = f"2024-05-{10 + day:02} {hour:02}:{second // 60:02}:{second % 60:02}.{micro:06}+00:00"
                lines.append(f"{stamp},{1 + k * 7919 % 8000},{1 + k * 104_729 % 500}\n")
            stream.write("".join(lines))


def main() -> None:
    for profile in ("chat-gateway", "code-completion", "rag"):
        measure(PLAN.format(profile=profile, rows=1_000_000))
    measure(PLAN.format(profile="chat", rows=200_000))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "azure.csv"
        synthetic_azure(file, 5_000_000)
        measure(TRACE.format(file=str(file)))
        measure(TRACE_PLAN.format(file=str(file)))
    shared = list(range(20))
    for mode in ("ids", "text"):
        measure(PROMPTS.format(mode=mode, blocks=[], what="nothing shared"))
        measure(PROMPTS.format(mode=mode, blocks=shared, what="20 shared blocks"))


if __name__ == "__main__":
    main()

"""What the golden test and `make.py` share: the command lines, and how their results are read.

Nothing here imports Tailgate's packages. Commands go through the console script beside the interpreter, files are read
with `json` and pyarrow, so that the same test runs whatever the modules are called.
"""

import hashlib
import json
import math
import os
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

DATA = Path(__file__).parent / "data"
EXPECTED = DATA / "expected"
TAILGATE = Path(sys.executable).parent / "tailgate"

_GATES = ("gate", "pairs")
_RUNS = sorted({path.name.removesuffix(".tar.xz") for path in (DATA / "recorded").glob("*.tar.xz")} - {*_GATES})

# Keys whose values are sentences for people, wherever they stand. A list keeps its length.
PROSE_KEYS = {
    "advice", "evidence", "holds_for", "invalid_reasons", "note", "notes", "notices", "reading", "remedy", "repeated",
    "says", "stopped", "warnings", "why",
}  # fmt: skip
PROSE = "<prose>"

# Several command lines in one process, since most of a short command's time goes into its imports. Each is run as the
# console script itself, with its own arguments, output and exit code.
_MANY = """
import contextlib, io, json, runpy, sys
script, commands = sys.argv[1], json.loads(sys.argv[2])
found = []
for words in commands:
    sys.argv = [script, *words]
    out, code = io.StringIO(), 0
    with contextlib.redirect_stdout(out):
        try:
            runpy.run_path(script, run_name="__main__")
        except SystemExit as end:
            code = end.code or 0
    found.append([code, out.getvalue()])
print(json.dumps(found))
"""


def tailgate(commands: Sequence[Sequence[str]], folder: Path) -> list[tuple[int, str]]:
    """Exit code and standard output of each command line, run in `folder` one after the other in one process."""
    nowhere = {name: str(folder / ".nowhere") for name in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME")}
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("TAILGATE_", "GITHUB_"))} | nowhere
    done = subprocess.run(
        [sys.executable, "-c", _MANY, str(TAILGATE), json.dumps(list(map(list, commands)))],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = [(code, out) for code, out in json.loads(done.stdout)]
    for words, (code, _) in zip(commands, found, strict=True):
        assert code != 2, f"tailgate {' '.join(words)}: {done.stderr}"
    return found


# --- reading results ------------------------------------------------------------------------------------------------


def without_prose(value: Any, key: str = "") -> Any:
    """The same JSON value with every sentence for people replaced by a mark."""
    if isinstance(value, dict):
        return {name: without_prose(item, name) for name, item in value.items()}
    if isinstance(value, list):
        return [without_prose(item, key) for item in value]
    return PROSE if isinstance(value, str) and value and key in PROSE_KEYS else value


def without_prose_of_verdict(verdict: dict[str, Any]) -> dict[str, Any]:
    """As `without_prose`; the last word of each of a verdict's checks is a sentence as well."""
    verdict = dict(without_prose(verdict))
    verdict["checks"] = [[*check[:3], PROSE if check[3] else ""] for check in verdict["checks"]]
    return verdict


def digest(path: Path) -> dict[str, Any]:
    """What a Parquet file holds: rows, our own metadata, and each column's type and the SHA-256 of its values.

    Values, not bytes: compression, row groups and encodings of dictionaries make no difference.
    """
    table = pq.read_table(path)
    metadata = {k.decode(): v.decode() for k, v in (table.schema.metadata or {}).items() if k.startswith(b"tailgate")}
    columns = {
        field.name: {
            "type": str(field.type),
            "nullable": field.nullable,
            "sha256": hashlib.sha256(json.dumps(table[field.name].to_pylist()).encode()).hexdigest(),
        }
        for field in table.schema
    }
    return {"rows": table.num_rows, "metadata": metadata, "columns": columns}


def differences(expected: Any, found: Any, where: str = "") -> list[str]:
    """Where two JSON values differ, a line each.

    Floats may differ in their last digits (1e-12 of their value): NumPy sums in another order on another processor.
    """
    if isinstance(expected, dict) and isinstance(found, dict):
        lines = [f"{where}.{key}: is missing" for key in expected if key not in found]
        lines += [f"{where}.{key}: is new" for key in found if key not in expected]
        for key in expected:
            if key in found:
                lines += differences(expected[key], found[key], f"{where}.{key}")
        return lines
    if isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        return [
            line
            for k, pair in enumerate(zip(expected, found, strict=True))
            for line in differences(*pair, f"{where}[{k}]")
        ]
    if type(expected) is float and type(found) is float:
        same = math.isclose(expected, found, rel_tol=1e-12, abs_tol=0.0)
    else:
        same = type(expected) is type(found) and expected == found
    return [] if same else [f"{where}: was {json.dumps(expected)[:200]}, is {json.dumps(found)[:200]}"]


# --- what is made: a mapping from the name of an expected file to its content ---------------------------------------


def unpack(name: str, folder: Path) -> Path:
    """The directory of a stored run, as the load generator left it."""
    with tarfile.open(DATA / "recorded" / f"{name}.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder / name


def rebuilt_runs(folder: Path) -> dict[str, Any]:
    """Each run's exit code, summary, state, and the content of the Parquet files, once `tailgate report` rebuilt it."""
    for name in _RUNS:
        unpack(name, folder)
    codes = tailgate([["report", name, "--quiet"] for name in _RUNS], folder)
    return {
        f"summaries/{name}.json": _rebuilt(folder / name, code) for name, (code, _) in zip(_RUNS, codes, strict=True)
    }


def _rebuilt(run: Path, code: int) -> dict[str, Any]:
    manifest = json.loads((run / "manifest.json").read_bytes())
    kept = ("schema", "state", "recovered", "duplicates", "unclosed", "plan_hash", "workload_hash")
    return {
        "exit_code": code,
        "manifest": {key: manifest[key] for key in kept} | {"checksums": sorted(manifest["checksums"])},
        "summary": without_prose(json.loads((run / "summary.json").read_bytes())),
        "parquet": {path.name: digest(path) for path in sorted(run.glob("*.parquet"))},
        "spool_is_gone": not (run / "spool").exists(),
    }


_PAIRS = ["gate", "--policy", "pairs/policy.yaml"]
# The folder a verdict is written into, and the command line that gives it. `pairs` was made by hand, `gate` is real.
_VERDICTS = {
    "pairs": ["gate", "pairs", "--quiet"],
    "gate": ["gate", "gate", "--quiet"],
    "unpaired": [*_PAIRS, "--baseline=pairs/*baseline", "--candidate=pairs/*candidate", "--out=unpaired", "--quiet"],
    "turned": [*_PAIRS, "--baseline=pairs/*candidate", "--candidate=pairs/*baseline", "--out=turned", "--quiet"],
    "limits": [*_PAIRS, "pairs/*candidate", "--out=limits", "--quiet"],
}
_COMPARISONS = {
    "replicates": ["compare", "old=pairs/*baseline", "new=pairs/*candidate", "--json"],
    "unlike": ["compare", "open", "gpus", "closed", "--anyway", "--json"],
}


def judged_runs(folder: Path) -> dict[str, Any]:
    """Verdicts and comparisons of stored runs, each of which is rebuilt on the way."""
    for name in (*_GATES, "open", "gpus", "closed"):
        unpack(name, folder)
    answers = tailgate([*_VERDICTS.values(), *_COMPARISONS.values()], folder)
    found: dict[str, Any] = {}
    for name, (code, _) in zip(_VERDICTS, answers, strict=False):
        verdict = without_prose_of_verdict(json.loads((folder / name / "verdict.json").read_bytes()))
        found[f"verdicts/{name}.json"] = {"exit_code": code, "verdict": verdict}
    for name, (_, text) in zip(_COMPARISONS, answers[len(_VERDICTS) :], strict=True):
        found[f"comparisons/{name}.json"] = without_prose(json.loads(text))
    return found


_COLUMNS = "time=when prompt_tokens=in output_tokens=out session=chat class=kind tenant=team"
_NAMED = [f"--columns={pair}" for pair in _COLUMNS.split()]
_PROFILES = (
    "agentic-coding", "api-burst", "chat", "chat-gateway", "chat-long", "code-completion", "launch-day",
    "mixed-realtime-batch", "rag", "reasoning", "summarize-batch",
)  # fmt: skip
_TRACES: dict[str, list[str]] = {
    "azure": ["azure.csv", "--trace-format", "azure", "--max-context", "1000", "--over-context", "clip"],
    "burstgpt": ["burstgpt.csv", "--trace-format", "burstgpt", "--speed", "2"],
    "mooncake": ["mooncake.jsonl", "--trace-format", "mooncake"],
    "ragpulse": ["ragpulse/0_trace.jsonl", "--trace-format", "ragpulse", "--rate", "0.2/s", "--rate-by", "thin"],
    "servegen": ["servegen", "--trace-format", "servegen", "--duration", "50m"],
    "kv-cache-tester": ["kv-cache-tester", "--trace-format", "kv-cache-tester"],
    "openai": ["openai.jsonl", "--trace-format", "openai", "--start", "5s"],
    "csv": ["named.csv", "--trace-format", "csv", *_NAMED, "--rate", "6/s", "--rate-by", "superpose"],
    "jsonl": ["named.jsonl", "--trace-format", "jsonl", *_NAMED, "--users", "5"],
}
_SPECS = sorted(path.stem for path in (DATA / "specs").glob("*.yaml"))


def planned(folder: Path) -> dict[str, Any]:
    """The content of `plan.parquet` of each built-in profile, spec and format of a trace."""
    plans = {name: [name, "--rate", "1/s", "--duration", "4m", "--seed", "7"] for name in _PROFILES}
    plans |= {f"spec-{name}": [str(DATA / "specs" / f"{name}.yaml")] for name in _SPECS}
    plans |= {
        f"trace-{name}": [str(DATA / "traces" / file), *more, "--seed", "3"] for name, (file, *more) in _TRACES.items()
    }
    commands = [["workload", "plan", *words, "-o", f"{name}.parquet", "--json"] for name, words in plans.items()]
    answers = tailgate(commands, folder)
    found = {}
    for name, (_, text) in zip(plans, answers, strict=True):
        figures = without_prose(json.loads(text)["figures"])
        found[f"plans/{name}.json"] = {"plan": digest(folder / f"{name}.parquet"), "figures": figures}
    return found


def converted(folder: Path) -> dict[str, Any]:
    """The content of the Parquet file that `tailgate workload convert` makes of each format of a trace."""
    commands = []
    for name, (file, *more) in _TRACES.items():
        reading = more[: 2 + (len(_NAMED) if name in ("csv", "jsonl") else 0)]
        slice_of = ["--duration", "30m"] if name == "servegen" else []
        source = str(DATA / "traces" / file)
        commands.append(
            ["workload", "convert", source, f"{name}.parquet", "--to", "parquet", *reading, *slice_of, "--quiet"]
        )
    tailgate(commands, folder)
    return {f"converted/{name}.json": digest(folder / f"{name}.parquet") for name in _TRACES}


ALL = (rebuilt_runs, judged_runs, planned, converted)

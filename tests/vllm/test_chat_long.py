"""`chat-long` on a real vLLM: its prefix cache finds what the plan says can be found.

The profile's lengths are scaled to the tiny model's context by the profile's own rule. Its pauses of minutes are
shortened thirtyfold, so that conversations continue within the run; nothing else is changed.
"""

import json
import re
import subprocess
import urllib.request
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml
from tests.vllm.server import CONTEXT, Server

from tailgate.workloads.config.profiles import load
from tailgate.workloads.statistics.prefix_reuse import implied_reuse

pytestmark = [pytest.mark.vllm, pytest.mark.alone]

TAILGATE = Path(__file__).parents[2] / ".venv/bin/tailgate"


def block_of(server: Server) -> int:
    """Tokens of a block of the server's own cache, as it tells them itself."""
    found = re.search(r"block_size['\"]?[:=]\s*'?(\d+)", server_info(server))
    assert found is not None
    return int(found[1])


def server_info(server: Server) -> str:
    with urllib.request.urlopen(f"{server.url}/server_info?config_format=json", timeout=20) as response:
        return str(response.read().decode())


def test_the_prefix_cache_finds_what_chat_long_implies(server: Server, tmp_path: Path) -> None:
    sessions = load("chat-long").workload["sessions"]
    spec, out = tmp_path / "spec.yaml", tmp_path / "run"
    spec.write_text(
        yaml.safe_dump(
            {
                "workload": {
                    "profile": "chat-long",
                    "sessions": sessions | {"think": f"scale({sessions['think']}, {1 / 30})"},
                    "duration": "30s",
                    "max_context": CONTEXT,
                },
                "seed": 7,
            }
        )
    )
    before = server.metrics()
    ran = subprocess.run(
        [TAILGATE, "run", spec, "--target", server.url, "--no-settle", "--out", out, "--json"],
        capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    after = server.metrics()
    assert ran.returncode in (0, 4), ran.stderr + ran.stdout
    summary = json.loads(ran.stdout)
    records, plan = pq.read_table(out / "requests.parquet"), pq.read_table(out / "plan.parquet")

    def grown(name: str) -> float:
        return after[f"vllm:{name}"] - before[f"vllm:{name}"]

    assert set(records["status"].to_pylist()) == {"ok"}
    # The server has counted the run's trial request as well.
    prompts = records["prompt_tokens"]
    assert 0 < grown("prefix_cache_queries_total") - pc.sum(prompts).as_py() <= pc.max(prompts).as_py()
    hit = grown("prefix_cache_hits_total") / grown("prefix_cache_queries_total")

    block = block_of(server)
    sent = plan.take(pc.sort_indices(pa.chunked_array(records["dispatched_ns"])))
    plan_block = int(pq.read_schema(out / "plan.parquet").metadata[b"tailgate.block_tokens"])
    implied = implied_reuse(sent, plan_block, block).token_share
    by_tokens = implied_reuse(sent, plan_block).token_share
    print(
        f"\nchat-long: {records.num_rows} requests, {pc.sum(records['prompt_tokens']).as_py():,} prompt tokens; "
        f"hits {100 * hit:.2f} %, implied {100 * implied:.2f} % in blocks of {block}, "
        f"{100 * by_tokens:.2f} % by the token"
    )
    assert implied > 0.1
    assert hit == pytest.approx(implied, abs=0.02)
    assert summary["workload"]["planned_reuse"] == pytest.approx(implied, abs=1e-6)

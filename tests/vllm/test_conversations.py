"""Two hundred users in three stages hold conversations with a real vLLM, whose prefix cache finds their histories."""

import json
import subprocess
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from tests.vllm.server import CONTEXT, Server

pytestmark = [pytest.mark.vllm, pytest.mark.alone]

TAILGATE = Path(__file__).parents[2] / ".venv/bin/tailgate"
SPEC = f"""
name: conversations
workload:
  prompt_tokens: uniform(100, 200)
  output_tokens: uniform(8, 24)
  max_context: {CONTEXT}
  over_context: clip
  block_tokens: 16
  sessions: {{turns: 4, think: "uniform(2, 6)", new_tokens: 32, history: HISTORY}}
  stages: [{{users: 40, for: 8s}}, {{users: 200, for: 20s, ramp: 8s}}, {{users: 20, for: 8s}}]
seed: 11
"""


@pytest.mark.parametrize(("endpoint", "history"), [("completions", "resend"), ("chat", "answers")])
def test_two_hundred_users_in_three_stages_hold_conversations(
    server: Server, endpoint: str, history: str, tmp_path: Path
):
    spec, out = tmp_path / "spec.yaml", tmp_path / "run"
    spec.write_text(SPEC.replace("HISTORY", history))
    before = server.metrics()
    ran = subprocess.run(
        [TAILGATE, "run", spec, "--target", server.url, "--no-settle", "--endpoint", endpoint, "--out", out, "--json"],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    after = server.metrics()
    summary = json.loads(ran.stdout)
    records = pq.read_table(out / "requests.parquet")

    def grown(name: str) -> float:
        return after[f"vllm:{name}"] - before[f"vllm:{name}"]

    assert set(records["status"].to_pylist()) == {"ok"}
    assert records.num_rows + 1 == grown("request_success_total") > 500  # and the run's trial request
    for column, counter in (("prompt_tokens", "prompt_tokens_total"), ("output_tokens", "generation_tokens_total")):
        assert 0 < grown(counter) - pc.sum(records[column]).as_py() <= pc.max(records[column]).as_py()

    load = summary["load"]
    assert load["loop"] == "closed"
    # 40 for 8 s, up to 200 over 8 s, 200 for 12 s, 20 for 8 s.
    assert load["users"]["mean"] == pytest.approx((40 * 8 + 120 * 8 + 200 * 12 + 20 * 8) / 36, rel=0.1)
    assert load["users"]["max"] == 200

    think = dict(zip(*(pq.read_table(out / "plan.parquet")[c].to_pylist() for c in ("index", "think_ns")), strict=True))
    sessions = defaultdict(list)
    for record in sorted(records.to_pylist(), key=lambda r: (r["session"], r["turn"])):
        sessions[record["session"]].append(record)
    turns = 0
    for session in sessions.values():
        assert [record["turn"] for record in session] == list(range(len(session)))
        for earlier, later in pairwise(session):
            assert later["handed_over_ns"] >= earlier["end_ns"] + think[later["index"]]
            turns += 1
    assert turns > 300

    hits, queries = grown("prefix_cache_hits_total"), grown("prefix_cache_queries_total")
    later_prompts = sum(r["prompt_tokens"] for session in sessions.values() for r in session[1:])
    print(
        f"\n{endpoint}: {records.num_rows} requests of {len(sessions)} sessions, {load['users']['mean']:.0f} users on "
        f"average, {load['in_flight']['mean']:.1f} in flight; prefix cache: {hits:,.0f} of {queries:,.0f} tokens "
        f"({100 * hits / queries:.0f} %), later turns' prompts {later_prompts:,}; valid: {summary['valid']}"
    )
    # A later turn repeats all but its last 32 tokens, but only whole blocks are found, and those of the CPU are long.
    assert hits > 0.4 * later_prompts

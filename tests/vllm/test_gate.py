"""The gate on a real vLLM: the same twice is not slower; a batch of one instead of sixteen is, and queueing is why."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.kit.busy import skip_if_too_busy
from tests.vllm.server import CONTEXT, MODEL, Server, environment, python

pytestmark = [pytest.mark.vllm, pytest.mark.alone]

TAILGATE = Path(__file__).parents[2] / ".venv/bin/tailgate"
ENVIRONMENT = ("HF_HUB_OFFLINE", "VLLM_CPU_KVCACHE_SPACE", "VLLM_SERVER_DEV_MODE", "VLLM_NO_USAGE_STATS", "PYTHONPATH")
LOAD = {"prompt_tokens": 128, "output_tokens": 64, "arrivals": {"process": "poisson", "rate": "10/s"}}


def gate(folder: Path, policy: dict[str, Any]) -> dict[str, Any]:
    """The verdict of a gate."""
    (folder / "gate.yaml").write_text(yaml.safe_dump(policy))
    done = subprocess.run(
        [TAILGATE, "gate", "--policy", "gate.yaml", "--out", "out", "--json"],
        cwd=folder, capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert done.returncode in (0, 1, 3, 4), done.stderr
    found = json.loads(done.stdout)
    print(f"\n{found['verdict']}: {found['why']}")
    return found


def test_the_same_vllm_on_both_sides_is_not_called_slower(server: Server, tmp_path: Path):
    found = gate(
        tmp_path,
        {
            "name": "aa", "baseline": server.url, "candidate": server.url, "pairs": 3, "extension": None,
            "repeat_invalid": 4,
            "spec": {"isolation": "exclusive", "workload": {**LOAD, "duration": "4s", "warmup": "1s"}},
        },
    )  # fmt: skip
    assert found["verdict"] != "FAIL", found["why"]
    skip_if_too_busy(found)
    assert found["holds_for"].startswith("these launches only")
    assert found["differences"] == []


def test_one_sequence_at_a_time_instead_of_sixteen_fails_and_queueing_is_the_reason(model: Path, tmp_path: Path):
    surroundings = environment()
    args = {
        "served-model-name": MODEL, "load-format": "dummy", "enforce-eager": True, "max-model-len": CONTEXT,
        "enable-per-request-metrics": True,
    }  # fmt: skip

    def side(seqs: int) -> dict[str, Any]:
        return {
            "kind": "vllm", "model": str(model), "python": str(python()),
            "env": {name: surroundings[name] for name in ENVIRONMENT}, "args": {**args, "max-num-seqs": seqs},
        }  # fmt: skip

    found = gate(
        tmp_path,
        {
            "name": "seqs", "baseline": side(16), "candidate": side(1), "pairs": 3, "extension": None,
            "restart": "never", "repeat_invalid": 4, "launch": "60s",
            "spec": {"workload": {**LOAD, "duration": "4s", "warmup": "1s"}},
            "points": {"saturated": "closed 8"},
            "metrics": {"ttft.p50": "5%", "output_tokens_per_s": "-3%"},
        },
    )  # fmt: skip
    assert found["verdict"] == "FAIL", found["why"]
    results = {(one["key"], one["point"]): one["result"] for one in found["metrics"]}
    assert results == {("ttft.p50", "saturated"): "fail", ("output_tokens_per_s", "saturated"): "fail"}
    assert found["causes"][0]["place"] == "queue" and "1 instead of 16 sequences" in found["causes"][0]["says"]
    declared = {key: ok for key, _, ok in found["differences"]}
    assert declared["launch.args.max-num-seqs"] and declared["fingerprint.config.scheduler_config.max_num_seqs"]

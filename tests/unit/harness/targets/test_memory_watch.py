"""Whose memory is watched while a server starts."""

import pytest

from tailgate.harness.config.run_spec import RunSpec
from tailgate.harness.targets.launch.launched import LaunchedTarget
from tailgate.harness.targets.make import make_target

WORKLOAD = {
    "prompt_tokens": 8,
    "output_tokens": 2,
    "arrivals": {"process": "constant", "rate": "4/s"},
    "duration": "1s",
}


@pytest.mark.parametrize(
    ("target", "gpu", "watched"),
    [
        ({"sim": "l4/qwen2.5-0.5b"}, "auto", None), ({"sim": "l4/qwen2.5-0.5b"}, "nvml:0", "0"),
        ({"kind": "vllm", "model": "m"}, "auto", ""), ({"kind": "vllm", "model": "m"}, "nvml:GPU-a,1", "GPU-a,1"),
        ({"kind": "vllm", "model": "m"}, "none", None), ({"kind": "vllm", "model": "m"}, "dcgm:http://h/metrics", None),
    ],
)  # fmt: skip
def test_whose_memory_is_watched_while_it_starts(target: dict[str, str], gpu: str, watched: str | None) -> None:
    made = make_target(RunSpec.model_validate({"target": target, "workload": WORKLOAD, "telemetry": {"gpu": gpu}}))
    assert isinstance(made, LaunchedTarget) and made.gpus == watched

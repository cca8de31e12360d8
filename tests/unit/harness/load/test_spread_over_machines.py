"""What may not cross the network between machines, and what a person is to type on each."""

from pathlib import Path
from typing import Any

import pytest

from tailgate.harness.config.masking import secret_in
from tailgate.harness.config.run_spec import build
from tailgate.harness.load.distributed import worker_command


@pytest.mark.parametrize(
    ("extra", "where"),
    [
        ({"api_key": "sesame-42"}, "api_key"),
        ({"metadata": {"apiKey": "sesame-42"}}, "metadata.apiKey"),
        ({"tools": [{"server": {"headers": {"authorization": "sesame-42"}}}]}, "tools[0].server.headers.authorization"),
        ({"auth": {"secret": {"value": "sesame-42"}}}, "auth.secret"),
        ({"image": "https://me:sesame-42@host/x.png"}, "image"),
        ({"callbacks": ["https://host/x?sig=sesame-42"]}, "callbacks[0]"),
        ({"via": ["Bearer sesame-42"]}, "via[0]"),
        ({"schema": {"properties": {"a": {"default": {"token": "sesame-42"}}}}}, "schema.properties.a.default.token"),
        ({"top_k": 3, "stop": ["a: b"], "user": "me", "logit_bias": {"5": -1.0}}, None),
        ({"max_tokens_per_image": 5, "token": None, "metadata": {"key": 7}}, None),
        ({"response_format": {"schema": {"properties": {"key": {"type": "string"}}}}}, None),
    ],
)
def test_a_secret_is_found_wherever_it_stands(extra: dict[str, Any], where: str | None) -> None:
    assert secret_in(extra) == where


def command_of(**more: Any) -> str:
    spec = {
        "target": {"url": "http://127.0.0.1:9", "auth": {"env": "VLLM_KEY"}},
        "workload": {"prompt_tokens": 8, "output_tokens": 8, "arrivals": {"rate": "1/s"}, "duration": "1s"},
        "workers": {"expect": 2, **more},
    }
    return worker_command(build(spec, "spec", Path.cwd()))


def test_the_workers_command_names_everything_that_a_worker_must_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "box")
    assert command_of(bind="10.0.0.1", token_env="TG") == (
        "tailgate worker --master 10.0.0.1:5557 --token-env TG --api-key-env VLLM_KEY"
    )
    assert command_of(bind="0.0.0.0:7", token_env="TG").startswith("tailgate worker --master box:7 --token-env TG")
    assert command_of(bind="[::1]:7") == "tailgate worker --master '[::1]:7' --api-key-env VLLM_KEY"

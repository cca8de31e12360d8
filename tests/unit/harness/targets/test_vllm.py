"""What is read off a vLLM command and its log."""

from pathlib import Path

import pytest

from tailgate.harness.targets.launch.ready import _Marks
from tailgate.harness.targets.vllm import DETAILS, MILESTONES, VllmTarget, _url


def test_the_served_name_is_the_flags_or_the_models():
    assert VllmTarget("org/model", {}, {}, None, 1).served_model == "org/model"
    assert VllmTarget("org/model", {"served_model_name": "m"}, {}, None, 1).served_model == "m"


class Log:
    """As much of a process as the marks look at."""

    def __init__(self, path: Path) -> None:
        self.log = path


def test_a_gpu_log_gives_contiguous_phases_and_its_figures(tmp_path: Path):
    from tailgate.harness.targets.base import Life

    life = Life()
    path = tmp_path / "log"
    path.write_text("")
    marks = _Marks(Log(path), life, 0.0, MILESTONES, DETAILS)  # type: ignore[arg-type]
    lines = [
        "INFO non-default args: {'model': 'm'}",
        "INFO Initializing a V1 LLM engine (v0.32.0) with config: model='m'",
        "INFO Starting to load model m...",
        "INFO Loading weights took 2.51 seconds",
        "INFO Model loading took 14.99 GiB memory and 3.204512 seconds",
        "INFO Available KV cache memory: 54.10 GiB",
        "INFO GPU KV cache size: 443,232 tokens, Maximum concurrency",
        "INFO Graph capturing finished in 20 secs, took 0.53 GiB",
        "INFO init engine (profile, create kv cache, warmup model) took 41.93 s",
    ]
    for line in lines:
        with path.open("a") as file:
            file.write(line[:10])
            marks.look()  # half a line is no line
            file.write(line[10:] + "\n")
        marks.look()
    marks.reached("server start")
    assert list(life.phases) == [
        "process start", "engine process", "worker start", "model load", "engine init", "server start",
    ]  # fmt: skip
    assert life.details == {
        "weights_load_s": 2.51, "model_gib": 14.99, "model_load_s": 3.204512, "kv_cache_gib": 54.10,
        "kv_cache_tokens": 443232.0, "graph_capture_s": 20.0, "graph_gib": 0.53, "engine_init_s": 41.93,
    }  # fmt: skip


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.parametrize(("host", "there"), [("::1", "[::1]"), ("::", "[::1]"), ("0.0.0.0", "127.0.0.1"), ("h", "h")])
def test_where_it_listens_is_where_it_is_reached(host: str, there: str):
    assert _url({}, host, 8000) == f"http://{there}:8000"

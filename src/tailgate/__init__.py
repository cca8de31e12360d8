"""Tailgate: load tests, benchmarks and performance gates for LLM servers.

    run = tailgate.load_run("runs/RUN")
    run.summary.verdict, run.requests.query("ttft_ms > 800")

docs/api.md shows the functions at work, docs/locustfiles.md the classes for users of your own. Names are looked up when
they are first used, so that importing this package is quick and never imports Locust, which patches the sockets of the
process that does.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from locust import tag, task

    from tailgate._api import GateResult, LoadedRun, compare, gate, load_run, run
    from tailgate.harness.config.run_spec import RunSpec as Spec
    from tailgate.loadgen.llm_user import Answer, LLMUser
    from tailgate.workloads.common.errors import UserError

__all__ = [
    "Answer", "GateResult", "LLMUser", "LoadedRun", "Spec", "UserError", "compare", "gate", "load_run", "run", "tag",
    "task",
]  # fmt: skip

_PLACES = {
    "Answer": "tailgate.loadgen.llm_user:Answer",
    "LLMUser": "tailgate.loadgen.llm_user:LLMUser",
    "Spec": "tailgate.harness.config.run_spec:RunSpec",
    "UserError": "tailgate.workloads.common.errors:UserError",
    "tag": "locust:tag",
    "task": "locust:task",
}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _PLACES.get(name, f"tailgate._api:{name}").partition(":")
    return getattr(import_module(module), attribute)

"""Tailgate: load tests, benchmarks and performance gates for LLM servers.

Names are looked up when they are first used, so that importing this package is quick and never imports Locust, which
patches the sockets of the process that does.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from locust import tag, task

    from tailgate.loadgen.llm_user import Answer, LLMUser

__all__ = ["Answer", "LLMUser", "tag", "task"]

_PLACES = {
    "Answer": "tailgate.loadgen.llm_user",
    "LLMUser": "tailgate.loadgen.llm_user",
    "tag": "locust",
    "task": "locust",
}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name in _PLACES:
        return getattr(import_module(_PLACES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

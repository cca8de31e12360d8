"""How requests are sent and timed: Locust decides who and when, the injector sends, stamps and records.

For users' own locustfiles: ``from loadgen import LLMUser, task``. These names are lazy, since Locust patches the
process that imports it, and the injector must not be patched.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from locust import tag, task

    from loadgen.llm_user import Answer, LLMUser

__all__ = ["Answer", "LLMUser", "tag", "task"]


def __getattr__(name: str) -> Any:
    if name in ("LLMUser", "Answer"):
        from loadgen import llm_user

        return getattr(llm_user, name)
    if name in ("task", "tag"):
        import locust

        return getattr(locust, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

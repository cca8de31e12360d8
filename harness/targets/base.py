"""What every kind of deployment can do. A run starts it, asks what it is, measures it, and stops it."""

from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True)
class Identity:
    """What a deployment says it is, once it answers."""

    urls: tuple[str, ...]
    model: str
    models: tuple[str, ...]
    dialect: str  # vllm | openai
    version: str
    max_model_len: int | None
    simulated: bool = False
    fingerprint: dict[str, Any] = field(default_factory=dict)


class Target(Protocol):
    """A deployment's life: `start` until it answers, `stop` when nothing of it is left."""

    async def start(self) -> tuple[str, ...]:
        """Bring it up; the base URLs it answers at.

        Raises:
            UserError: it can't be started, or never answers.
        """
        ...

    def processes(self) -> dict[str, int]:
        """Role to process id of what we started."""
        ...

    async def stop(self) -> None:
        """Take down what `start` brought up."""
        ...

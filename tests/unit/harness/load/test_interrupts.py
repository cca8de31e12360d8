"""Signals over the length of a run: what ends the load, and what comes after it."""

import asyncio
import signal

import pytest

from tailgate.harness.load.interrupts import Interrupts


async def _struck(number: int) -> None:
    signal.raise_signal(number)
    await asyncio.sleep(0)  # it is heard in the loop


async def _run(under_load: list[int], taking_down: list[int]) -> str:
    with Interrupts() as interrupts:
        with interrupts.gently() as interruption:
            for number in under_load:
                await _struck(number)
            ended = interruption.by + " at once" * interruption.at_once.is_set()
        interrupts.hold()
        for number in taking_down:
            await _struck(number)
        return ended


@pytest.mark.parametrize(
    ("under_load", "ended"),
    [
        ([signal.SIGINT], "Ctrl-C"),
        ([signal.SIGINT, signal.SIGINT], "Ctrl-C at once"),
        ([signal.SIGTERM], "SIGTERM at once"),
    ],
)
@pytest.mark.parametrize("taking_down", [[], [signal.SIGINT], [signal.SIGTERM, signal.SIGINT]])
def test_a_load_that_a_signal_has_ended_is_reported_whatever_comes_then(
    under_load: list[int], ended: str, taking_down: list[int]
) -> None:
    assert asyncio.run(_run(under_load, taking_down)) == ended


def test_a_signal_after_a_load_that_came_to_its_end_interrupts_the_command() -> None:
    with pytest.raises(KeyboardInterrupt):
        asyncio.run(_run([], [signal.SIGINT]))

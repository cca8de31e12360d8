from typing import Any

# `given`: arrival_s, prompt, output, cached, patience_s, previous, think_s, token_at; arrival_s is filled in where a
# request follows another. `found`, filled in: scheduled_s, first_token_s, end_s, generated, cached, preemptions,
# ending, token_s. `limits` as in `EngineLimits`, each a number. Returns the rows of the series: int64 each of running,
# waiting, blocks used, prompt tokens, generation tokens, preemptions.
def simulate(
    n: int,
    given: tuple[Any, ...],
    found: tuple[Any, ...],
    limits: tuple[int, int, int, int, int, int],
    law: Any,
    factors: Any,
    horizon_s: float,
    interval_s: float,
    /,
) -> bytes: ...

"""The embedded engine: speaks vLLM's API and queues, batches and caches like it, with no GPU and no model.

`model` says how long a step takes, `kv` keeps the cache blocks, `scheduler` decides who is in a step
(pure, on any clock), `loop` runs it in real time, `api` and `metrics` are its face. Started by
`python -m tailgate.harness.engine`. Everything measured on it is SIMULATED: it shows that a harness works and
how queues behave, never how fast a GPU is.
"""

from typing import Final

# Who owns its models, by its own list: how a run knows it by its URL alone.
SIMULATED_OWNER: Final = "tailgate-simulated"

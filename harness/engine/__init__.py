"""The embedded engine: it speaks vLLM's API and queues, batches and caches like it, with no GPU and no model.

What is measured on it is SIMULATED: it shows that a harness works and how queues behave, never how fast a GPU is.
"""

from typing import Final

# Who owns its models by its own list, and the `system_fingerprint` of its answers, which a gateway passes on that
# writes another owner: how a run knows it by its URL alone.
SIMULATED_OWNER: Final = "tailgate-simulated"
SIMULATED_MARK: Final = "+tailgate.simulated"  # at the end of its version

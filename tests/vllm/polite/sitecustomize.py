"""On vLLM's PYTHONPATH in this tier: its processes wait for each other asleep instead of spinning, and give way.

Engine and worker poll their shared memory with sched_yield() for as long as there are requests. On a machine
with spare cores that costs nothing; on two cores shared with the load generator, Linux 6.18 then lets other
processes wait for up to 1.2 s (measured with a process that only sleeps 2 ms at a time: p99 of its lateness
315 ms with the spinning, 0.7 ms without), and every run is rightly INVALID. Nothing else of vLLM is changed.

A server that the suite itself launches is as polite as the tier's own (tests/vllm/server.py).
"""

import os
import time


def _sleep_a_little() -> None:
    time.sleep(50e-6)


def _give_way() -> None:
    """Between sessions Linux looks at the session's niceness; its leader sets it for all."""
    if os.getsid(0) == os.getpid():
        try:
            with open("/proc/self/autogroup", "w") as file:
                file.write("5")
        except OSError:  # no such thing here, or set a moment ago
            pass


os.sched_yield = _sleep_a_little
_give_way()

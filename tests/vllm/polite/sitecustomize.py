"""On vLLM's PYTHONPATH in this tier: its processes wait for each other asleep instead of spinning.

Engine and worker poll their shared memory with sched_yield() for as long as there are requests. On a machine
with spare cores that costs nothing; on two cores shared with the load generator, Linux 6.18 then lets other
processes wait for up to 1.2 s (measured with a process that only sleeps 2 ms at a time: p99 of its lateness
315 ms with the spinning, 0.7 ms without), and every run is rightly INVALID. Nothing else of vLLM is changed.
"""

import os
import time


def _sleep_a_little() -> None:
    time.sleep(50e-6)


os.sched_yield = _sleep_a_little

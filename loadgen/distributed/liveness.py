"""Which workers are there, missing, back again or given up. The run may end when all are accounted for."""

import time
from collections.abc import Callable
from typing import Final

from tailgate.loadgen.distributed.workers import Worker, Workers

# A worker is missing after so long without a message or a heartbeat of Locust.
_SILENT_S: Final = 4.0
# It is given up when it has been missing for so long, all others are done, and nothing is sent any more.
_PATIENCE_S: Final = 8.0


class Liveness:
    """Watches the workers. ``beats(client)`` says whether Locust counts a connection as alive."""

    def __init__(self, workers: Workers, beats: Callable[[str], bool], event: Callable[[str], None]) -> None:
        self._workers = workers
        self._beats = beats
        self._event = event

    def newly_missing(self) -> list[Worker]:
        """The workers that have gone missing since the last look."""
        now = time.monotonic()
        missing_workers = []
        for worker in list(self._workers.by_id.values()):
            missing = now - worker.last_heard_s > _SILENT_S and not self._beats(worker.id)
            if missing and worker.missing_since is None and worker.here:
                worker.missing_since = now
                self._event(f"{worker.name} is missing: it died, or the network between is down")
                missing_workers.append(worker)
            elif not missing and worker.missing_since is not None:
                self._event(f"{worker.name} is back after {now - worker.missing_since:.0f} s")
                worker.missing_since, worker.given_up = None, False
        return missing_workers

    def newly_given_up(self, over_s: float) -> list[Worker]:
        """Those that don't come back, once nobody else is waited for.

        ``over_s``: for how long every request has ended (negative: not yet). Before, a worker sends on for as long
        as its `--alone` says, and is waited for as long.
        """
        waiting = [worker for worker in self._workers.by_id.values() if worker.here]
        if any(worker.missing_since is None for worker in waiting):
            return []
        now = time.monotonic()
        lost = [
            worker
            for worker in waiting
            if (missing_s := now - (worker.missing_since or now)) > max(_PATIENCE_S, worker.alone_s)
            or min(missing_s, over_s) > _PATIENCE_S
        ]
        for worker in lost:
            worker.given_up = True
            self._event(f"{worker.name} did not come back: what it did not report is lost")
        return lost

    @property
    def all_accounted_for(self) -> bool:
        """Whether every worker has drained or is given up."""
        return not any(worker.here for worker in self._workers.by_id.values())

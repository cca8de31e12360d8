"""Who of the workers is there: missing, back again, given up. When all are accounted for the run may end."""

import time
from collections.abc import Callable
from typing import Final

from tailgate.loadgen.distributed.workers import Fleet, Remote

# Neither a word nor a heartbeat of Locust's for so long: missing.
_SILENT_S: Final = 4.0
# Missing for so long when all the others are done, and nothing is sent any more: given up.
_PATIENCE_S: Final = 8.0


class Vigil:
    """Looks after a fleet. ``beats(client)`` says whether Locust counts a connection as alive."""

    def __init__(self, fleet: Fleet, beats: Callable[[str], bool], event: Callable[[str], None]) -> None:
        self._fleet = fleet
        self._beats = beats
        self._event = event

    def newly_missing(self) -> list[Remote]:
        """Look at each worker; those that were not missing before."""
        now = time.monotonic()
        found = []
        for remote in list(self._fleet.remotes.values()):
            missing = now - remote.heard_at > _SILENT_S and not self._beats(remote.id)
            if missing and remote.missing_since is None and remote.here:
                remote.missing_since = now
                self._event(f"{remote.name} is missing: it died, or the network between is down")
                found.append(remote)
            elif not missing and remote.missing_since is not None:
                self._event(f"{remote.name} is back after {now - remote.missing_since:.0f} s")
                remote.missing_since, remote.given_up = None, False
        return found

    def newly_given_up(self, over_s: float) -> list[Remote]:
        """Those that don't come back, once nobody else is waited for.

        ``over_s``: for how long every request has ended (negative: not yet). Before, a worker sends on for as long
        as its `--alone` says, and is waited for as long.
        """
        waiting = [remote for remote in self._fleet.remotes.values() if remote.here]
        if any(remote.missing_since is None for remote in waiting):
            return []
        now = time.monotonic()
        lost = [
            remote
            for remote in waiting
            if (missing_s := now - (remote.missing_since or now)) > max(_PATIENCE_S, remote.alone_s)
            or min(missing_s, over_s) > _PATIENCE_S
        ]
        for remote in lost:
            remote.given_up = True
            self._event(f"{remote.name} did not come back: what it did not report is lost")
        return lost

    @property
    def all_accounted_for(self) -> bool:
        """Whether every worker has drained or is given up."""
        return not any(remote.here for remote in self._fleet.remotes.values())

"""The injector's event loop: one thread, one epoll, one timerfd.

Why not asyncio on uvloop: both cost the same per event (measured: 6.8 us against 6.9 us a chunk at
60,000 chunks/s, kernel included), and here a deadline is a timerfd (0.03 ms late at the median) instead
of a libuv timer (1 ms resolution), and a due send overtakes a batch of reads.

Knows descriptors, deadlines and handlers; nothing of HTTP, plans or records.
"""

import heapq
import select
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from tailgate.loadgen.injector.kernel_timestamps import Alarm

if TYPE_CHECKING:
    from tailgate.loadgen.injector.http._intake import Poll

Handler = Callable[[int], None]
READABLE, WRITABLE = select.EPOLLIN, select.EPOLLOUT

# At most this many ready descriptors are handled before deadlines are looked at again: 16 reads are 0.1 ms.
# The compiled poller looks at deadlines before each read, the loop before each handler.
_BATCH: Final = 16
_POLLER_BATCH: Final = 1024
# While requests are in flight the loop looks round this often: what it finds came since the look before.
_BEAT_NS: Final = 500_000
# Under load it waits so long before it looks again: one look then finds many sockets ready instead of few.
_PAUSE_NS: Final = 500_000
_NEVER: Final = (1 << 63) - 1
_REALTIME: Final = time.CLOCK_REALTIME


class EventLoop:
    """Calls handlers for ready descriptors and due deadlines. Times are CLOCK_MONOTONIC nanoseconds."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self.other_poller: Poll | None = None  # waits instead of us, once there is one
        self.may_pause = False  # nobody waits for an answer's end in order to send the next request
        self._attended = False
        self._beating = False
        self._connecting = 0
        self._handlers: dict[int, Handler] = {}
        self._alarm = Alarm()
        self._alarm_at = -1
        self._timers: list[tuple[int, int, Callable[[], None]]] = []
        self._sequence = 0
        self._running = False
        self._forgotten: set[int] = set()  # in this batch: what was ready on them was another socket's
        # CLOCK_REALTIME before the last look that had room for more than it reported: what it reports came after.
        self.unseen_since_ns = 0
        self.looked_ns = time.clock_gettime_ns(_REALTIME)  # before the last such look; nothing was watched before
        # Called once a turn with the time of its start; True: there is more to do, don't wait for events.
        self.idle: Callable[[int], bool] = lambda _now_ns: False
        self._turn_max_ns = 0
        self.watch(self._alarm.fd, self._rang)

    @property
    def epoll(self) -> int:
        return self._epoll.fileno()

    def take_turn_max(self) -> int:
        """The longest turn since the last call without its wait, in ns."""
        longest, self._turn_max_ns = self._turn_max_ns, 0
        return max(longest, self.other_poller.take_longest() if self.other_poller is not None else 0)

    def watch(self, fd: int, handler: Handler, mask: int = READABLE) -> None:
        self._handlers[fd] = handler
        self._epoll.register(fd, mask)

    def change(self, fd: int, handler: Handler, mask: int) -> None:
        """Set another handler and other events for a watched descriptor."""
        self._handlers[fd] = handler
        self._epoll.modify(fd, mask)

    def set_handler(self, fd: int, handler: Handler) -> None:
        self._handlers[fd] = handler

    def unwatch(self, fd: int) -> None:
        del self._handlers[fd]
        self._epoll.unregister(fd)
        self._forgotten.add(fd)

    def at(self, deadline_ns: int, callback: Callable[[], None]) -> None:
        """Call once at or after ``deadline_ns``. A deadline can't be withdrawn, so the callback must check."""
        self._sequence += 1
        heapq.heappush(self._timers, (deadline_ns, self._sequence, callback))

    def use(self, poller: "Poll") -> None:
        """Let a compiled poller wait, and read where it was given an intake."""
        self.other_poller = poller
        self._set_pace()

    def attend(self, attended: bool) -> None:
        """Say whether requests are in flight: the loop then looks round each half millisecond, or sleeps.

        Whatever a look reports came after the last look that left nothing unreported. Without a beat a loop with
        nothing to do would sleep in its poll, and not notice that it was stopped there.
        """
        self._attended = attended
        if self.other_poller is not None:
            self._set_pace()
        elif attended and not self._beating:
            self._beating = True
            self._beat()

    def connecting(self, change: int) -> None:
        """Count connections being made (+1, -1): their next step is waited for, so the loop makes no pause."""
        self._connecting += change
        if self.other_poller is not None:
            self._set_pace()

    def _set_pace(self) -> None:
        poller = self.other_poller
        assert poller is not None
        poller.beat_ns = _BEAT_NS if self._attended else 0
        poller.pause_ns = _PAUSE_NS if self.may_pause and not self._connecting else 0

    def _beat(self) -> None:
        self._beating = self._attended and self.other_poller is None
        if self._beating:
            self.at(time.monotonic_ns() + _BEAT_NS, self._beat)

    def _rang(self, _mask: int) -> None:
        self._alarm.clear()
        self._alarm_at = -1  # should it have rung a nanosecond early, by another core's clock, it is set again

    def stop(self) -> None:
        """End `run` after the current turn."""
        self._running = False

    def run(self) -> None:
        poll, handlers, timers = self._epoll.poll, self._handlers, self._timers
        monotonic, realtime, forgotten = time.monotonic_ns, time.clock_gettime_ns, self._forgotten
        self._running = True
        turn_began = monotonic()
        while self._running:
            busy = self.idle(turn_began)
            other = self.other_poller
            if timers and timers[0][0] != self._alarm_at and not (other is not None and other.exact):
                self._alarm_at = timers[0][0]
                self._alarm.set(self._alarm_at)
            turn_ended = monotonic()
            self._turn_max_ns = max(self._turn_max_ns, turn_ended - turn_began)
            if other is None:
                looking = realtime(_REALTIME)
                events = poll(0 if busy else None, _BATCH)
                turn_began = monotonic()
                self.unseen_since_ns = self.looked_ns
                if len(events) < _BATCH:  # a full batch may have left others waiting
                    self.looked_ns = looking
            else:
                events = other.poll(not busy, _POLLER_BATCH, timers[0][0] if timers else _NEVER)
                turn_began = other.woke
                self.unseen_since_ns = other.unseen_since
            forgotten.clear()
            for fd, mask in events:
                while timers and timers[0][0] <= monotonic():  # a due send goes before a read
                    heapq.heappop(timers)[2]()
                # An earlier handler, or a deadline, may have closed it, and opened another socket of that number.
                handler = handlers.get(fd)
                if handler is not None and not (forgotten and fd in forgotten):
                    handler(mask)
            while timers and timers[0][0] <= monotonic():
                heapq.heappop(timers)[2]()

    def close(self) -> None:
        self._alarm.close()
        self._epoll.close()

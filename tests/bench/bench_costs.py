"""What a chunk, a request and a run cost: the table of docs/injector.md. Prints figures.

The steps of a chunk are measured one by one in this process, on a real socket with kernel stamps. What a chunk, a
request and a run cost in all is worked out of three whole runs against the exact server (next to nothing; requests of
one token; long answers), user and system time of all processes. `python tests/bench/bench_costs.py`; asserts nothing.
"""

import resource
import select
import socket
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httptools
from bench_injector import Load, compiled, measured, serving

from tailgate.loadgen.injector.api.openai_response import Reading
from tailgate.loadgen.injector.http.token_stream import TokenStream
from tailgate.loadgen.injector.kernel_timestamps import ANCILLARY_BYTES, StampKeeper, ask_for_stamps, unpack_timespec

TIMES = 20_000
EVENT = (
    b'data: {"id":"cmpl-7f3a9c1e","object":"text_completion","created":1764100000,"model":"m","choices":[{"index":0,'
    b'"text":" word","logprobs":null,"finish_reason":null,"stop_reason":null}],"usage":null}\n\n'
)
CHUNK = b"%x\r\n%b\r\n" % (len(EVENT), EVENT)


def per_call_us(work: Callable[[], Any], times: int = TIMES) -> float:
    """The best of five rounds: what else the machine does makes a round slower, never faster."""
    best = float("inf")
    for _ in range(5):
        began = time.thread_time_ns()
        for _ in range(times):
            work()
        best = min(best, (time.thread_time_ns() - began) / times / 1e3)
    return best


def connected() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        theirs = socket.create_connection(listener.getsockname())
        theirs.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener.accept()[0], theirs


class Parsed:
    """What the parser calls back, as `Connection` does it."""

    def __init__(self) -> None:
        self.stream = TokenStream(Reading(chat=False, vllm=True))

    def on_body(self, data: bytes) -> None:
        self.stream.pieces.append(data)
        self.stream.size += len(data)


def steps() -> None:
    """One by one: what user space and the kernel do of a chunk."""
    keeper = StampKeeper()
    nothing = per_call_us(lambda: None)
    epoll = select.epoll()
    ready = [connected() for _ in range(16)]
    for here, there in ready:
        epoll.register(here.fileno())
        there.send(b"x")
    handlers = {here.fileno(): here for here, _ in ready}

    def turn() -> None:
        for fd, _mask in epoll.poll(0, 16):
            handlers.get(fd)

    for here, _ in ready:
        here.recv(1)
        ask_for_stamps(here)
    stamp = b""

    def read_all() -> None:
        nonlocal stamp
        for here, _ in ready:
            _, ancillary, _, _ = here.recvmsg(16_384, ANCILLARY_BYTES)
        stamp = ancillary[0][2]

    def read_one_each() -> float:
        for _, there in ready:
            there.send(CHUNK)
        began = time.thread_time_ns()
        read_all()
        return (time.thread_time_ns() - began) / len(ready) / 1e3

    received = sorted(read_one_each() for _ in range(2_000))[1_000]

    def stamped() -> None:
        time.clock_gettime_ns(time.CLOCK_REALTIME)
        unpack_timespec(stamp)

    parsed = Parsed()
    parser = httptools.HttpResponseParser(parsed)
    parser.feed_data(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    fed = per_call_us(lambda: parser.feed_data(CHUNK))
    booking = Parsed().stream
    booked = per_call_us(lambda: booking.received((1, 2, 0, True)))

    def digest() -> None:
        stream = TokenStream(Reading(chat=False, vllm=True))
        for k in range(200):
            stream.pieces.append(EVENT)
            stream.size += len(EVENT)
            stream.received((1_000_000 * k, 1_000_000 * k + 20_000, 1_000_000 * k - 500_000, True))
        stream.digest()

    digested = per_call_us(digest, 50) / 200 - booked
    rows = {
        "epoll_wait and its handler, of 16 that are ready": per_call_us(turn, 2_000) / 16,
        "recvmsg": received,
        "clock_gettime, the stamp unpacked": per_call_us(stamped) - nothing,
        "httptools and on_body": fed - nothing,
        "Stream.received": booked - nothing,
        "put off to the answer's end: digest": digested,
    }
    for name, us in rows.items():
        print(f"  {name:<52}{us:6.2f} us")
    keeper.close()


def whole_runs() -> None:
    """Fixed cost, cost of a request, cost of a chunk: three runs, three unknowns."""
    loads = (
        Load("next to nothing", (), "1/s", 3, 1, "constant"),
        Load("1,000 requests/s of 1 token", (), "1000/s", 8, 1, "constant"),
        Load("200 requests/s of 200 tokens", (), "200/s", 8, 200, "constant"),
    )
    found = []
    with tempfile.TemporaryDirectory() as folder:
        binary = compiled(Path(folder))
        for number, load in enumerate(loads):
            with serving(binary) as url:
                before = resource.getrusage(resource.RUSAGE_CHILDREN)
                run = measured(url, load, Path(folder) / str(number))
                after = resource.getrusage(resource.RUSAGE_CHILDREN)
            kernel = after.ru_stime - before.ru_stime
            ok = run["summary"]["load"]["requests"]["ok"]
            found.append((ok, ok * load.tokens, run["cpu_s"], kernel))
    (_, _, fixed, fixed_kernel), (requests, _, short, short_kernel), (long, chunks, much, much_kernel) = found
    # A request of one token has one chunk; the fixed cost has none worth mention.
    per_chunk, per_request = _two(requests, short - fixed, long, chunks, much - fixed)
    kernel_chunk, _ = _two(requests, short_kernel - fixed_kernel, long, chunks, much_kernel - fixed_kernel)
    print(f"  fixed                     {fixed:6.2f} s, {fixed_kernel:.2f} s of it in the kernel")
    print(f"  a request and its token   {1e6 * (short - fixed) / requests:6.0f} us")
    print(f"  a request                 {1e6 * per_request:6.0f} us")
    print(f"  a chunk                   {1e6 * per_chunk:6.2f} us, {1e6 * kernel_chunk:.2f} us of it in the kernel")


def _two(requests: int, short_s: float, long: int, chunks: int, much_s: float) -> tuple[float, float]:
    """(a chunk's, a request's) seconds, from requests of one chunk each and from long answers."""
    determinant = requests * chunks - requests * long
    per_chunk = (requests * much_s - long * short_s) / determinant
    return per_chunk, short_s / requests - per_chunk


if __name__ == "__main__":
    print("steps of a chunk")
    steps()
    print("whole runs")
    whole_runs()

"""Entry of the Locust process: ``python -m loadgen.control --fd N --injectors K`` (N: its end of a socket)."""

import locust  # isort: skip  # noqa: F401 - first of all: it patches sockets for gevent

import argparse
import logging
import signal
import socket
import sys

import gevent

from loadgen.control.channel import Channel, Message
from loadgen.control.local import LocalRun


def main() -> int:
    """Serve one run."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--injectors", type=int, default=1)
    arguments = parser.parse_args()
    logging.getLogger("locust").setLevel(logging.CRITICAL)  # what matters of it is said in our own words
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the harness decides what Ctrl-C means
    channel: Channel

    def report(message: Message) -> None:
        channel.send(message)

    run = LocalRun(arguments.injectors, report)
    channel = Channel(socket.socket(fileno=arguments.fd), run.take, run.gone)
    gevent.signal_handler(signal.SIGTERM, run.gone)
    run.over.wait()
    run.close()
    report({"op": "bye"})
    channel.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())

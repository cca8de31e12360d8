"""Entry of the Locust process: ``python -m tailgate.loadgen --fd N --injectors K`` (N: its end of a socket).

With ``--bind HOST:PORT --expect N --wait S`` it commands workers instead of injectors of its own, and with
``--token-env VARIABLE`` only those that have the same token in theirs.
"""

from tailgate.loadgen.control import patched  # isort: skip  # noqa: F401 - first of all: Locust comes later

import argparse
import logging
import signal
import socket
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import gevent
from gevent.event import Event

from tailgate.loadgen.control.address import refuse_a_port_in_use, split_address
from tailgate.loadgen.control.channel import Channel, Message
from tailgate.loadgen.control.injectors import Injectors
from tailgate.workloads.common.errors import UserError

if TYPE_CHECKING:
    from tailgate.loadgen.control.local_run import LocalRun
    from tailgate.loadgen.distributed.master import MasterRun


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--injectors", type=int, default=1)
    parser.add_argument("--bind", default=None)
    parser.add_argument("--expect", type=int, default=0)
    parser.add_argument("--ui", default=None)
    parser.add_argument("--wait", type=float, default=60.0)
    parser.add_argument("--token-env", default=None)
    arguments = parser.parse_args()
    sys.stdout = sys.stderr  # what a locustfile prints: the command's own output is for results
    del sys.argv[1:]  # Locust's web UI reads them, and knows none of ours
    logging.getLogger("locust").setLevel(logging.CRITICAL)  # we report what matters of it ourselves
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the harness decides what Ctrl-C means
    sock = socket.socket(fileno=arguments.fd)
    injectors = Injectors(arguments.injectors if arguments.bind is None else 0)
    channel: Channel

    def report(message: Message) -> None:
        channel.send(message)

    try:
        run = _run(arguments, injectors, report)
    except UserError as error:
        heard = Event()
        channel = Channel(sock, lambda _message: None, heard.set)
        report({"op": "refused", **error.parts})
        heard.wait()  # the harness hangs up; if we did, its own messages to us would undo this one
        channel.close()
        injectors.close()
        return 0
    channel = Channel(sock, run.on_message, run.on_harness_gone)
    gevent.signal_handler(signal.SIGTERM, run.on_harness_gone)
    run.over.wait()
    run.close()
    report({"op": "bye"})
    channel.close()
    return 0


def _run(
    arguments: argparse.Namespace, injectors: Injectors, report: Callable[[Message], None]
) -> "LocalRun | MasterRun":
    from tailgate.loadgen.control.webui import DEFAULT_PORT as UI_PORT

    if arguments.ui is not None:
        refuse_a_port_in_use(*split_address(arguments.ui, UI_PORT, "--ui"), "--ui")
    if arguments.bind is None:
        from tailgate.loadgen.control.local_run import LocalRun

        return LocalRun(injectors, report, arguments.ui)
    from tailgate.loadgen.distributed.master import MasterRun
    from tailgate.loadgen.distributed.protocol import DEFAULT_PORT
    from tailgate.loadgen.distributed.seal import read_token

    bind = split_address(arguments.bind, DEFAULT_PORT, "--bind")
    refuse_a_port_in_use(*bind, "--bind")
    return MasterRun(bind, arguments.expect, arguments.wait, report, arguments.ui, read_token(arguments.token_env))


if __name__ == "__main__":
    sys.exit(main())

"""Entry of the injector process: ``python -m tailgate.loadgen.injector --fd N``, N its end of the control socket."""

import argparse
import contextlib
import signal
import socket
import sys
import traceback

from tailgate.loadgen.hide_pandas import hide_pandas
from tailgate.loadgen.injector.control_socket import ControlSocket
from tailgate.loadgen.injector.event_loop import EventLoop
from tailgate.loadgen.injector.injector import Injector
from tailgate.loadgen.injector.kernel_timestamps import be_punctual, raise_file_limit
from tailgate.loadgen.injector.machine_time import take_priority
from tailgate.workloads.common.errors import UserError


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--fd", type=int, required=True)
    fd = parser.parse_args().fd
    hide_pandas()
    # Ctrl-C reaches the whole process group; the harness decides what it means and tells us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    nice = take_priority()
    be_punctual(die_with_parent=False)
    raise_file_limit()
    loop = EventLoop()
    injector = Injector(loop, nice)
    sock = socket.socket(fileno=fd)
    control = ControlSocket(loop, sock, injector.on_message, lambda: injector.stop("the controlling process is gone"))
    injector.control = control
    bell, ringer = socket.socketpair()
    for end in (bell, ringer):
        end.setblocking(False)
    signal.signal(signal.SIGTERM, lambda *_: None)  # the bell rings; a handler must not run inside another
    signal.set_wakeup_fd(ringer.fileno())
    loop.watch(bell.fileno(), lambda _mask: injector.stop("the injector was told to end"))
    try:
        loop.run()
    except Exception as error:  # noqa: BLE001 - the process's outermost edge: what was measured is kept
        if isinstance(error, UserError) and not injector.began:
            control.send({"op": "refused", **error.parts})
            return 1
        text = f"{type(error).__name__}: {error}"
        control.send({"op": "crashed", "error": text, "traceback": traceback.format_exc()})
        with contextlib.suppress(Exception):
            injector.stop(f"the injector failed: {error}")
        return 1
    finally:
        control.close()
        loop.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())

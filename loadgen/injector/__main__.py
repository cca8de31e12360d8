"""Entry of the injector process: ``python -m loadgen.injector --fd N``, N its end of the control socket."""

import argparse
import contextlib
import signal
import socket
import sys
import traceback

from loadgen.injector.injector import Injector
from loadgen.injector.kernel import be_punctual, raise_file_limit
from loadgen.injector.line import Line
from loadgen.injector.loop import Loop
from workloads.errors import UserError


class _NoPandas:
    """Hides pandas: pyarrow imports it at its first conversion of a list, where it is installed.

    That would cost 0.2 s and 40 MB in the middle of a run, for nothing that is used here.
    """

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        """The import system's question where a module is (importlib.abc.MetaPathFinder)."""
        if name == "pandas":
            raise ModuleNotFoundError("not in the injector", name=name)


def main() -> int:
    """Serve one run; 0 when it ended as told, 1 when it could not."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--fd", type=int, required=True)
    fd = parser.parse_args().fd
    sys.meta_path.insert(0, _NoPandas())
    # Ctrl-C reaches the whole process group; the harness decides what it means and tells us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    be_punctual(die_with_parent=False)
    raise_file_limit()
    loop = Loop()
    injector = Injector(loop)
    line = Line(loop, socket.socket(fileno=fd), injector.take, lambda: injector.stop("the controlling process is gone"))
    injector.line = line
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
            line.send({"op": "refused", "what": error.what, "where": error.where, "remedy": error.remedy})
            return 1
        line.send({"op": "crashed", "error": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()})
        with contextlib.suppress(Exception):
            injector.stop(f"the injector failed: {error}")
        return 1
    finally:
        line.close()
        loop.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())

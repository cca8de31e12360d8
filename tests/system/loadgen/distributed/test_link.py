"""A worker's line to its master when it takes nothing."""

import subprocess
import sys

BROKEN = """
import locust
from gevent.lock import RLock
from locust.exception import RPCError, RPCReceiveError, RPCSendError
from tailgate.loadgen.distributed.master_link import MasterLink
from tailgate.loadgen.distributed.locust_runners import TailgateWorkerRunner

class Broken:
    def send_message(self, kind, data):
        raise kind("the socket takes no more")

link = object.__new__(MasterLink)
link._sending, link._runner = RLock(), Broken()
for kind in (RPCError, RPCSendError, RPCReceiveError):
    link.send(kind, {})
# Locust's own would end the worker after a minute without its master.
assert TailgateWorkerRunner.heartbeat_timeout_checker(object()) is None
"""


def test_what_can_not_be_sent_is_said_again_later_and_a_worker_never_quits_by_itself() -> None:
    # In a process of its own: importing Locust patches sockets.
    done = subprocess.run([sys.executable, "-c", BROKEN], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr

"""Users are counted where Locust's own dispatcher puts them."""

import json
import subprocess
import sys
from typing import Any

from tailgate.loadgen.control.stages import Stage
from tailgate.loadgen.distributed.protocol import PROTOCOL, VERSION
from tailgate.loadgen.distributed.workers import Worker, Workers


def about(**other: Any) -> dict[str, Any]:
    return {"version": VERSION, "protocol": PROTOCOL, "name": "", "pid": 1, "injectors": 2, "alone_s": 30.0, **other}


def admitted(workers: Workers, client: str, **other: Any) -> Worker:
    answer = workers.admit(client, about(**other))
    assert isinstance(answer, Worker)
    return answer


# In a process of its own: Locust patches the one that imports it.
DEAL = """
import json, sys
from locust.dispatch import UsersDispatcher
from locust.runners import WorkerNode
from tailgate.loadgen.control.run_setup import SessionUser

dealt = []
for users, clients in json.load(sys.stdin):
    dispatcher = UsersDispatcher([WorkerNode(client) for client in clients], [SessionUser])
    dispatcher.new_dispatch(users, users)
    *_, last = dispatcher
    dealt.append({client: sum(kinds.values()) for client, kinds in last.items()})
print(json.dumps(dealt))
"""


def test_users_are_counted_on_the_workers_on_which_locust_puts_them() -> None:
    fleets = [["a_1"], ["b_9", "a_2", "a_1"], ["z_1", "a_5", "m_3", "a_4", "m_2"]]
    cases = [(users, clients) for users in (1, 2, 3, 7, 8) for clients in fleets]
    command = [sys.executable, "-c", DEAL]
    dealt = subprocess.run(command, input=json.dumps(cases), capture_output=True, text=True, timeout=120, check=True)
    for (users, clients), put in zip(cases, json.loads(dealt.stdout), strict=True):
        workers = Workers(len(clients))
        for client in clients:
            admitted(workers, client)
        wanted = {client: 1000 * n for client, n in put.items()}
        assert workers.shares(1000 * users, [Stage(users, 1)]) == wanted, (users, clients)

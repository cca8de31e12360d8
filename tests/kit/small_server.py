"""The server of tests/kit/openai.py as a process: `python small_server.py PORT [how ...]`, with `how` as in `How`.

die=N, slow=N: from the POST after the first N; status=N; key=K; child; tls=PEM; ttft_ms=N.
"""

import sys
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))  # started by its path, as a person's own server is
    from tests.kit.openai import How, serve

    given = dict(word.partition("=")[::2] for word in sys.argv[2:])
    how: dict[str, Any] = {name: int(given[name] or 0) for name in ("die", "slow", "status") if name in given}
    if "tls" in given:
        how["tls"] = Path(given["tls"])
    if "ttft_ms" in given:
        how["pauses_s"] = (int(given["ttft_ms"]) / 1e3,)
    serve(int(sys.argv[1]), How(**how, key=given.get("key"), child="child" in given))

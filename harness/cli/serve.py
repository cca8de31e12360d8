"""`tailgate serve sim:PRESET`: the embedded engine as a server, until Ctrl-C."""

from typing import Final

from tailgate.harness.engine.__main__ import main
from tailgate.workloads.common.errors import UserError

_NAME: Final = "tailgate serve"
_USAGE: Final = f"{_NAME} sim:GPU/MODEL [FLAG ...]"


def run(argv: list[str]) -> int:
    """Run the engine; its own flags follow the preset."""
    if not argv or argv[0] in ("-h", "--help"):
        return main(["--help"], _NAME, _USAGE)
    if not argv[0].startswith("sim:"):
        raise UserError(f"can't serve {argv[0]!r}", remedy="It is sim:GPU/MODEL, e.g. sim:h100-sxm/llama-3.1-8b.")
    own = argv[1:]
    port = [] if any(a == "--port" or a.startswith("--port=") for a in own) else ["--port", "8000"]
    return main(["--preset", argv[0].removeprefix("sim:"), *port, *own], _NAME, _USAGE)

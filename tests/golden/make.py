"""Make the expected files again with the `tailgate` beside this interpreter: python -m tests.golden.make

Twice, in two fresh folders: what isn't the same both times is named, and nothing is written.
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path

from tests.golden.results import ALL, EXPECTED, differences


def main() -> int:
    """Write `data/expected`; 1 if the results differ from one time to the next."""
    times = []
    for _ in range(2):
        made = {}
        for make in ALL:
            with tempfile.TemporaryDirectory() as folder:
                made |= make(Path(folder))
        times.append(made)
    if lines := differences(*times):
        print("not the same twice:", *lines, sep="\n  ", file=sys.stderr)
        return 1
    shutil.rmtree(EXPECTED, ignore_errors=True)
    for name, content in times[0].items():
        path = EXPECTED / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

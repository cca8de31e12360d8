"""A gate's folder: where it is, and the policy it holds, so that its verdict can be worked out again."""

import datetime
import shutil
from pathlib import Path
from typing import Final

from workloads.errors import UserError

POLICY: Final = "policy.yaml"


def make(out: Path | None, name: str, policy: Path | None = None) -> Path:
    """A new, empty folder (``out`` itself, or runs/<utc>-<name>), with a copy of the policy if there is one.

    Raises:
        UserError: it can't be made, or holds files already.
    """
    if out is None:
        stamp = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%SZ")
        out = Path("runs") / f"{stamp}-{name}"
    try:
        out.mkdir(parents=True, exist_ok=True)
        if any(out.iterdir()):
            raise UserError(
                "is not empty", where=f"--out {out}", remedy="Name a new folder; runs are never overwritten."
            )
        if policy is not None:
            shutil.copyfile(policy, out / POLICY)
    except OSError as error:
        raise UserError(f"can't be written: {error.strerror}", where=f"--out {out}") from error
    return out

"""A slice of a recorded trace as a plan's columns: start, duration, speed, order."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from workloads.columns import DEFAULT, Columns, stateless
from workloads.errors import UserError
from workloads.spec import TraceSpec
from workloads.traces import azure
from workloads.traces.rows import Faults, Reader, Rows

READERS: dict[str, Callable[[Path, Faults], Reader]] = {"azure": azure.read}


@dataclass(frozen=True)
class Replay:
    """A slice of a trace: its requests in order of time, and the names that its codes stand for."""

    columns: Columns
    classes: tuple[str, ...] = (DEFAULT,)
    tenants: tuple[str, ...] = (DEFAULT,)
    block_tokens: int | None = None
    notices: list[str] = field(default_factory=list)


def load(spec: TraceSpec, seed: int = 0) -> Replay:
    """The requests of the slice, in order of time, with `at_ns` from the slice's start at the asked speed.

    The slice's `start` counts from the trace's first row. Reading ends at the first piece that lies wholly
    behind the slice.

    Raises:
        UserError: no such file, broken rows, or nothing in the slice.
    """
    faults = Faults(spec.file, spec.skip_bad_rows)
    begin_ns = round(spec.start * 1e9)
    end_ns = None if spec.duration is None else begin_ns + round(spec.duration * 1e9)
    kept: list[Rows] = []
    origin: int | None = None
    latest = 0
    for rows in READERS[spec.format](spec.file, faults):
        if not len(rows):
            continue
        origin = int(rows.at_ns[0]) if origin is None else origin
        at_ns = rows.at_ns - origin
        latest = max(latest, int(at_ns.max()))
        if end_ns is not None and int(at_ns.min()) >= end_ns:
            break
        inside = at_ns >= begin_ns
        if end_ns is not None:
            inside &= at_ns < end_ns
        kept.append(Rows(at_ns[inside] - begin_ns, rows.prompt_tokens[inside], rows.output_tokens[inside]))
    at_ns, prompt, output = (
        np.concatenate([getattr(rows, name) for rows in kept]) if kept else np.empty(0, np.int64)
        for name in ("at_ns", "prompt_tokens", "output_tokens")
    )
    if not len(at_ns):
        whole = f"it holds {latest / 1e9:,.1f} s" if origin is not None else "it holds no requests"
        raise UserError(
            f"the slice from {spec.start:g} s" + (f" for {spec.duration:g} s" if spec.duration else "") + " is empty",
            where=str(spec.file),
            remedy=f"Of the trace: {whole}",
        )
    notices = faults.summary()
    backwards = int((np.diff(at_ns) < 0).sum())
    if backwards:
        notices.append(f"{spec.file.name}: the clock went backwards {backwards:,} times; rows are sorted by time")
        order = np.argsort(at_ns, kind="stable")
        at_ns, prompt, output = at_ns[order], prompt[order], output[order]
    silent = int((output < 1).sum())
    if silent:
        notices.append(f"{spec.file.name}: {silent:,} requests without output tokens ask for 1")
    if spec.speed != 1.0:
        at_ns = np.rint(at_ns / spec.speed).astype(np.int64)
    columns = stateless(len(at_ns), at_ns=at_ns, prompt_tokens=prompt, output_tokens=np.maximum(output, 1))
    return Replay(columns, notices=notices)

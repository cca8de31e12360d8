"""ServeGen: not recorded requests but clients, each with rates, gap laws and length distributions over time.

A folder holds, for client N, `chunk-N-trace.csv` (no header; a row a 600 s window: `start_s, requests/s, CV of gaps,
Gamma|Weibull, shape, scale`; idle windows have rate 0 and no law) and `chunk-N-dataset.json` (windows of 6 h; per field
a Python dict literal of token count -> probability). They may be gzipped. Requests are drawn from them: in each window
a renewal process of the window's law, lengths independent of each other. (ServeGen's own sampler uses one random number
for all fields of a request, which makes input and output rise together; the data don't say that they do.) Xiang et al.,
"ServeGen", NSDI 2026, arXiv 2505.09999, github.com/alibaba/ServeGen, Apache-2.0.
"""

import ast
import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson
import pyarrow as pa

from tailgate.workloads.arrivals.renewal import Gamma, Poisson, Renewal, Weibull
from tailgate.workloads.common.arrays import Floats, Ints
from tailgate.workloads.common.errors import UserError
from tailgate.workloads.sampling.distributions import MAX_TOKENS
from tailgate.workloads.sampling.random_streams import RandomField, RandomStream
from tailgate.workloads.table.columns import check_size
from tailgate.workloads.traces.formats.csv_stream import open_file
from tailgate.workloads.traces.rows import Faults, Rows

WINDOW_S: Final = 600.0
_INPUTS: Final = ("input_tokens", "text_tokens")
_LARGEST: Final = 1e9  # seconds, and requests/s
_LEAST_SHAPE, _MOST_SHAPE = 0.005, 1e6  # outside, gaps are no longer numbers
_NOTHING: Final = ("{}", "{0: 1.0}")
_CLIENT: Final = re.compile(r"chunk-(\d+)-trace\.csv(\.gz)?$")


@dataclass(frozen=True)
class Window:
    """A client's traffic in 600 s from `start_s`: `law` is None when it is idle."""

    start_s: float
    rate: float
    law: Renewal | None


@dataclass(frozen=True)
class Lengths:
    """Distributions of prompt and output tokens from `start_s` on: ascending values and cumulative shares."""

    start_s: float
    prompt: tuple[Ints, Floats]
    output: tuple[Ints, Floats]


@dataclass(frozen=True)
class ServeGenClient:
    """One client; without `lengths` (its file is missing) nothing can be drawn for it."""

    number: int
    windows: list[Window]
    lengths: list[Lengths]


def clients(folder: Path, faults: Faults) -> list[ServeGenClient]:
    if folder.is_file():
        raise UserError("a ServeGen trace is a folder of chunk-N-trace.csv and chunk-N-dataset.json", where=str(folder))
    files = {int(match[1]): path for path in sorted(folder.glob("chunk-*")) if (match := _CLIENT.search(path.name))}
    if not files:
        raise UserError("the folder has no chunk-N-trace.csv", where=str(folder))
    read_clients: list[ServeGenClient] = []
    ignored: set[str] = set()
    for number, path in sorted(files.items()):
        datasets = [p for suffix in ("", ".gz") if (p := folder / f"chunk-{number}-dataset.json{suffix}").exists()]
        lengths = _lengths(datasets[0], ignored) if datasets else []
        read_clients.append(ServeGenClient(number, list(windows(path, faults)), lengths))
    silent = [client for client in read_clients if not client.lengths and any(w.rate for w in client.windows)]
    if silent:
        faults.notices.append(f"{folder.name}: {len(silent)} clients have no lengths (dataset file missing): left out")
    if ignored:
        faults.notices.append(
            f"{folder.name}: {', '.join(sorted(ignored))} ignored: prompts have the text's length only"
        )
    return read_clients


def windows(path: Path, faults: Faults) -> Iterator[Window]:
    with open_file(path) as stream:
        text = stream.read().decode("utf-8", "replace")
    faults.place = path.name
    for line, row in enumerate(csv.reader(io.StringIO(text)), start=1):
        if not row:
            continue
        try:
            start, rate, _, pattern, shape, _ = row
            start_s, per_s = _finite(start, "start"), _finite(rate, "rate")
            yield Window(start_s, per_s, _law(pattern, float(shape)) if per_s > 0 else None)
        except ValueError as error:
            faults.bad(line, f"{path.name}: {error}")


def generate(folder: Path, faults: Faults, seed: int, start_s: float, duration_s: float, rate: float | None) -> Rows:
    """Requests of all clients in [start, start + duration), sorted by time; `rate` scales all clients alike."""
    able = [client for client in clients(folder, faults) if client.lengths]
    end_s = start_s + duration_s
    expected = sum(_expected(client, start_s, end_s) for client in able)
    if expected <= 0:
        last = max((w.start_s + WINDOW_S for client in able for w in client.windows if w.rate), default=0.0)
        raise UserError(
            f"no client is active from {start_s:g} s for {duration_s:g} s",
            where=str(folder),
            remedy=f"Its clients are active until {last:,.0f} s",
        )
    factor = 1.0 if rate is None else rate * duration_s / expected
    check_size(int(expected * factor))
    parts = [_of_client(client, seed, start_s, end_s, factor) for client in able]
    at_ns = np.concatenate([part[0] for part in parts])
    order = np.argsort(at_ns, kind="stable")
    numbers = np.repeat([client.number for client in able], [len(part[0]) for part in parts])[order]
    return Rows(
        at_ns[order],
        np.concatenate([part[1] for part in parts])[order],
        np.concatenate([part[2] for part in parts])[order],
        tenants=pa.array([f"client {number}" for number in numbers.tolist()], pa.string()),
    )


def _finite(text: str, name: str) -> float:
    number = float(text)
    if not 0 <= number < _LARGEST:
        raise ValueError(f"its {name} {text} is out of range")
    return number


def _law(pattern: str, shape: float) -> Renewal:
    if pattern in ("Gamma", "Weibull") and not _LEAST_SHAPE < shape <= _MOST_SHAPE:
        raise ValueError(f"the shape {shape:g} is not between {_LEAST_SHAPE} and {_MOST_SHAPE}")
    match pattern:
        case "Gamma":
            return Gamma(shape)
        case "Weibull":
            return Weibull(shape)
        case "" | "Exponential":
            return Poisson()
        case _:
            raise ValueError(f"pattern {pattern!r} is neither Gamma nor Weibull")


def _expected(client: ServeGenClient, start_s: float, end_s: float) -> float:
    overlaps = (max(0.0, min(end_s, w.start_s + WINDOW_S) - max(start_s, w.start_s)) for w in client.windows)
    return sum(overlap * window.rate for overlap, window in zip(overlaps, client.windows, strict=True))


def _of_client(client: ServeGenClient, seed: int, start_s: float, end_s: float, factor: float) -> tuple[Any, Any, Any]:
    times: list[Floats] = []
    for number, window in enumerate(client.windows):
        begin, end = max(start_s, window.start_s), min(end_s, window.start_s + WINDOW_S)
        if window.law is not None and end > begin:
            stream, rate = RandomStream(seed, "servegen", client.number, number), window.rate * factor
            times.append(begin + _renewals(window.law, stream, (end - begin) * window.rate * factor) / rate)
    at_s = np.concatenate(times) if times else np.empty(0)
    prompt, output = np.ones(len(at_s), np.int64), np.ones(len(at_s), np.int64)
    rows = np.arange(len(at_s))
    place = np.maximum(np.searchsorted([start.start_s for start in client.lengths], at_s, side="right") - 1, 0)
    for k, lengths in enumerate(client.lengths):
        mine = rows[place == k]
        for target, (values, edges), name in ((prompt, lengths.prompt, "prompt"), (output, lengths.output, "output")):
            u = RandomField(seed, "servegen", name, client.number).uniform(mine)
            target[mine] = values[np.searchsorted(edges[:-1], u, side="right")]
    return np.rint((at_s - start_s) * 1e9).astype(np.int64), np.maximum(prompt, 1), np.maximum(output, 1)


def _renewals(law: Renewal, stream: RandomStream, total: float) -> Floats:
    """Positions in [0, total) of a renewal process of unit mean that began long before 0."""
    position, parts = law.first(stream), []
    while position < total:
        positions = np.cumsum(np.concatenate([[position], law.gaps(stream, int(total * 1.1) + 16)]))
        position = float(positions[-1])
        parts.append(positions[:-1][positions[:-1] < total])
    return np.concatenate(parts) if parts else np.empty(0)


def _lengths(path: Path, ignored: set[str]) -> list[Lengths]:
    """A client's distributions; the names of other fields that are not empty are added to `ignored`."""
    try:
        with open_file(path) as stream:
            content = orjson.loads(stream.read())
        lengths = []
        for start, fields in sorted(content.items(), key=lambda item: float(item[0])):
            others = fields.keys() - {*_INPUTS, "output_tokens"}
            ignored |= {name for name in others if fields[name] not in _NOTHING}
            prompts = next(fields[name] for name in _INPUTS if name in fields)
            prompt, output = _distribution(prompts), _distribution(fields["output_tokens"])
            if prompt is not None and output is not None:
                lengths.append(Lengths(float(start), prompt, output))
    except (
        OSError,
        ValueError,
        SyntaxError,
        KeyError,
        StopIteration,
        AttributeError,
        TypeError,
        RecursionError,
        MemoryError,
    ) as error:
        raise UserError(f"is not a ServeGen dataset: {error}", where=str(path)) from error
    return lengths


def _distribution(literal: str) -> tuple[Ints, Floats] | None:
    """A distribution from a literal like `{81: 0.00145, ...}`; None where it is empty (no traffic)."""
    shares = ast.literal_eval(literal)
    if not shares:
        return None
    if not isinstance(shares, dict) or not all(_is_share(value, share) for value, share in shares.items()):
        raise ValueError(f"{literal[:60]!r} does not give each number of tokens its share")
    if not sum(shares.values()):
        return None
    values = np.array(sorted(shares), dtype=np.int64)
    edges = np.cumsum(np.array([shares[value] for value in values.tolist()], dtype=np.float64))
    return values, edges / edges[-1]


def _is_share(value: Any, share: Any) -> bool:
    return type(value) is int and 0 <= value <= MAX_TOKENS and isinstance(share, int | float) and 0 <= share < _LARGEST

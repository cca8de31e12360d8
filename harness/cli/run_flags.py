"""The flags of `tailgate run` in the shape of a spec."""

import argparse
import json
from pathlib import Path
from typing import Any

from tailgate.workloads.common.errors import UserError


def from_flags(a: argparse.Namespace, *, traced: bool) -> dict[str, Any]:
    """What the flags say, in the shape of a spec. A rate alone is that of the trace, if there is one.

    Raises:
        UserError: a flag's text can't be understood.
    """
    trace: dict[str, Any] = {
        "file": a.trace and a.trace.resolve(), "format": a.trace_format, "start": a.start, "speed": a.speed,
        "rate_by": a.rate_by, "time_unit": a.time_unit, "columns": dict(_column(text) for text in a.columns),
    }  # fmt: skip
    rate = a.rate
    if traced and a.arrival is None:
        trace["rate"], rate = a.rate, None
    if a.skip_bad_rows:
        trace["skip_bad_rows"] = True
    data: dict[str, Any] = {
        "target": _target(a),
        "workload": {
            "profile": a.profile,
            "trace": trace,
            "prompt_tokens": a.prompt_tokens,
            "output_tokens": a.output_tokens,
            "arrivals": {"process": a.arrival, "rate": rate, "shape": a.shape},
            "locustfile": a.locustfile and a.locustfile.resolve(),
            "tags": a.tag,
            "exclude_tags": a.exclude_tag,
            "users": a.users,
            "requests": a.requests,
            "duration": a.duration,
            "warmup": a.warmup,
            "max_context": a.max_context,
            "over_context": a.over_context,
            "length_scale": a.length_scale,
            "content": _content(a.content),
        },
        "name": a.name,
        "seed": a.seed,
        "slo": _objectives(a.slo),
        "timeout": a.timeout,
        "abandon": {"share": a.abandon, "patience": a.patience},
        "drain": a.drain,
        "settle": "none" if a.no_settle else None,
        "streamed": False if a.no_stream else None,
        "output": "natural" if a.natural_output else None,
        "extra": json_object(a.extra, "--extra"),
        "workers": {"expect": a.expect_workers, "bind": a.bind, "wait": a.wait},
        "ui": a.ui,
        "injectors": _number_or_word(a.injectors),
    }
    pruned = _pruned(data)
    assert isinstance(pruned, dict)
    return pruned


def _number_or_word(text: str | None) -> int | str | None:
    try:
        return text if text is None else int(text)
    except ValueError:
        return text


def _target(a: argparse.Namespace) -> dict[str, Any]:
    target: dict[str, Any] = {
        "model": a.model, "endpoint": a.endpoint, "prompt": a.prompt, "balance": a.balance,
        "ready_timeout": a.ready_timeout,
    }  # fmt: skip
    given = a.target or []
    sims = [name.removeprefix("sim:") for name in given if name.startswith("sim:")]
    if sims and len(given) > 1:
        raise UserError("an embedded engine can't be mixed with other targets", where="--target")
    if sims:
        target |= {"kind": "sim", "sim": sims[0]}
    elif given:
        target |= {"kind": "url", "urls": given}
    target["headers"] = dict(_header(text) for text in a.header)
    target["auth"] = {"env": a.api_key_env}
    files = {"ca": a.ca, "cert": a.cert, "key": a.key}
    target["tls"] = {"insecure": a.insecure, **{name: file and file.resolve() for name, file in files.items()}}
    return target


def _content(text: str | None) -> dict[str, Any] | None:
    """A kind by its name, else a file."""
    if text is None:
        return None
    return {"kind": text} if text in ("corpus", "random", "replay") else {"file": Path(text).resolve()}


def _column(text: str) -> tuple[str, str]:
    key, equals, column = text.partition("=")
    if not equals or not key.strip() or not column.strip():
        raise UserError(f"{text!r} is not KEY=COLUMN", where="--columns", remedy="E.g. --columns prompt_tokens=in")
    return key.strip(), column.strip()


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise UserError(f"{text!r} is not NAME: VALUE", where="--header")
    return name.strip(), value.strip()


def _objectives(texts: list[str]) -> dict[str, str]:
    """By figure; several on one figure must all hold."""
    found: dict[str, str] = {}
    for text in texts:
        name, colon, limit = text.partition(":")
        if not colon:
            raise UserError(f"{text!r} is not like 'ttft: p99 < 800ms'", where="--slo")
        key = name.strip()
        found[key] = f"{found[key]} and {limit.strip()}" if key in found else limit.strip()
    return found


def json_object(text: str | None, flag: str) -> Any:
    """The JSON object that a flag gives; None without.

    Raises:
        UserError: it is not one.
    """
    if text is None:
        return None
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"is not JSON: {error}", where=flag) from error
    if not isinstance(value, dict):
        raise UserError("must be a JSON object", where=flag)
    return value


def _pruned(data: Any) -> Any:
    """Without what was not given."""
    if not isinstance(data, dict):
        return data
    kept = {key: _pruned(value) for key, value in data.items()}
    return {key: value for key, value in kept.items() if value is not None and value != {}}

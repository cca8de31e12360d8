"""Request logs in the shape of OpenAI's API, a JSON object a line, as gateways and proxies keep them.

There is no standard, so each value is looked for where it is usually put: at the top, in `request`, in `response`, in
`response.body`, in `body`.

    when      timestamp, time, ts, created_at, start_time, startTime, created (epoch s, ms, us, ns, or a calendar time)
    lengths   usage.prompt_tokens and completion_tokens, or usage.input_tokens and output_tokens; those that Anthropic's
              cache held (cache_read_input_tokens, cache_creation_input_tokens) are part of the prompt
    session   session_id, conversation_id, sessionId, thread_id
    class     model          tenant     user, tenant, organization, api_key_name
    failed    an `error` that is not null, or a status of 400 and above
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

from tailgate.workloads.traces.formats.records import BadValueError, Request, parsed, pieces, records, tokens
from tailgate.workloads.traces.rows import Faults, Reader, SessionNumbers

_TIMES: Final = ("timestamp", "time", "ts", "created_at", "start_time", "startTime", "created")
_SESSIONS: Final = ("session_id", "conversation_id", "sessionId", "thread_id")
_TENANTS: Final = ("user", "tenant", "organization", "api_key_name")
_CACHED: Final = ("cache_read_input_tokens", "cache_creation_input_tokens")
_STATUSES: Final = ("status_code", "status", "http_status")


def read(file: Path, faults: Faults) -> Reader:
    """The requests of a log; failed ones, which may lack their usage, are marked."""
    request_of = partial(_request, sessions=SessionNumbers())
    return pieces(parsed(records(file, faults), faults, request_of, numbered=True))


def _request(record: dict[str, Any], sessions: SessionNumbers) -> Request:
    places = _places(record)
    when = _first(places, _TIMES)
    if when is None:
        raise BadValueError(f"there is no time ({', '.join(_TIMES)}); it has: {', '.join(record)}")
    failed = _failed(places)
    usage = _first(places, ("usage",))
    if isinstance(usage, Mapping):
        old_names = usage.get("prompt_tokens") is not None
        prompt = tokens(usage, "prompt_tokens" if old_names else "input_tokens")
        if not old_names:  # Anthropic counts what its cache held beside them, OpenAI within
            prompt += sum(tokens(usage, name) for name in _CACHED if usage.get(name) is not None)
        output = tokens(usage, "completion_tokens" if old_names else "output_tokens")
    elif failed:
        prompt = output = 0
    else:
        raise BadValueError(f"there is no usage with token counts; it has: {', '.join(record)}")
    session, model, tenant = _first(places, _SESSIONS), _first(places, ("model",)), _first(places, _TENANTS)
    return Request(
        at_ns=time_ns(when),
        prompt_tokens=prompt,
        output_tokens=output,
        session=int(sessions.of(["" if session is None else str(session)])[0]),
        class_name=None if model is None else str(model),
        tenant=None if tenant is None else str(tenant),
        failed=failed or output == 0,
    )


def time_ns(when: Any) -> int:
    """Nanoseconds since 1970 of an epoch time, whose unit is told by its size, or of a calendar time."""
    if isinstance(when, str):
        try:
            return _epoch_ns(float(when))
        except ValueError:
            pass
        try:
            moment = datetime.fromisoformat(when)
        except ValueError as error:
            raise BadValueError(f"time {when!r} can't be read") from error
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        whole = int(moment.replace(microsecond=0).timestamp())
        return whole * 1_000_000_000 + moment.microsecond * 1000
    if isinstance(when, bool) or not isinstance(when, int | float):
        raise BadValueError(f"time {when!r} can't be read")
    return _epoch_ns(when)


def _epoch_ns(when: float) -> int:
    for most, unit_ns in ((1e11, 1_000_000_000), (1e14, 1_000_000), (1e17, 1000), (1e20, 1)):
        if 0 <= when < most:
            return round(when * unit_ns) if isinstance(when, float) else when * unit_ns
    raise BadValueError(f"time {when!r} is out of range")


def _places(record: dict[str, Any]) -> list[Mapping[str, Any]]:
    inner = [record[key] for key in ("request", "response", "body") if isinstance(record.get(key), Mapping)]
    places = [record, *(place for outer in inner for place in (outer, outer.get("body")))]
    return [place for place in places if isinstance(place, Mapping)]


def _first(places: list[Mapping[str, Any]], keys: tuple[str, ...]) -> Any:
    for key in keys:
        for place in places:
            if place.get(key) is not None:
                return place[key]
    return None


def _failed(places: list[Mapping[str, Any]]) -> bool:
    if any(place.get("error") for place in places):
        return True
    status = _first(places, _STATUSES)
    return isinstance(status, int) and status >= 400

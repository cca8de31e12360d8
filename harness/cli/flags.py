"""The flags that stand for parts of a spec: each one's name, its place in the spec, its help and how it is read.

`tailgate run` has all of them, `tailgate workload` those of a workload. Parser and spec are made from the same rows.
"""

import argparse
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

from tailgate.workloads.common.errors import UserError


class Flag:
    """A flag of the command line.

    Args:
        name: with its dashes.
        path: where its value stands in a spec: keys joined by dots; `*`: its value is a mapping that is put in there.
        text: its help.
        read: from what argparse gives to the spec's value; may raise a UserError.
        settings: more for `add_argument`.
    """

    def __init__(
        self, name: str, path: str, text: str, read: Callable[[Any], Any] = lambda value: value, **settings: Any
    ) -> None:
        self.name, self.path, self.text, self.read, self.settings = name, path, text, read, settings


def add_flags(parser: argparse.ArgumentParser, flags: Iterable[Flag], title: str = "") -> None:
    """Declare flags, in a group of their own where it has a title."""
    group = parser.add_argument_group(title) if title else parser
    for flag in flags:
        group.add_argument(flag.name, help=flag.text, **flag.settings)


def spec_from(options: argparse.Namespace, flags: Iterable[Flag], below: str = "") -> dict[str, Any]:
    """What was given of these flags, in the shape of a spec, or of its part `below` (a path that ends with a dot)."""
    spec: dict[str, Any] = {}
    for flag in flags:
        given = getattr(options, flag.name[2:].replace("-", "_"), None)
        if given is None:
            continue
        *sections, key = flag.path.removeprefix(below).split(".")
        place = spec
        for section in sections:
            place = place.setdefault(section, {})
        value = flag.read(given)
        place.update(value if key == "*" else {key: value})
    return spec


def _targets(given: list[str]) -> dict[str, Any]:
    engines = [name.removeprefix("sim:") for name in given if name.startswith("sim:")]
    if engines and len(given) > 1:
        raise UserError("an embedded engine can't be mixed with other targets", where="--target")
    return {"kind": "sim", "sim": engines[0]} if engines else {"kind": "url", "urls": given}


def _headers(texts: list[str]) -> dict[str, str]:
    return dict(_pair(text, ":", "--header", "NAME: VALUE") for text in texts)


def _columns(texts: list[str]) -> dict[str, str]:
    return dict(_pair(text, "=", "--columns", "KEY=COLUMN", "E.g. --columns prompt_tokens=in") for text in texts)


def _pair(text: str, mark: str, where: str, form: str, remedy: str = "") -> tuple[str, str]:
    name, separator, value = (part.strip() for part in text.partition(mark))
    if not separator or not name or (mark == "=" and not value):
        raise UserError(f"{text!r} is not {form}", where=where, remedy=remedy)
    return name, value


def _content(text: str) -> dict[str, Any]:
    return {"kind": text} if text in ("corpus", "random", "replay") else {"file": Path(text).resolve()}


def _objectives(texts: list[str]) -> dict[str, str]:
    """By metric; several on one metric must all hold."""
    objectives: dict[str, str] = {}
    for text in texts:
        name, colon, limit = (part.strip() for part in text.partition(":"))
        if not colon:
            raise UserError(f"{text!r} is not like 'ttft: p99 < 800ms'", where="--slo")
        objectives[name] = f"{objectives[name]} and {limit}" if name in objectives else limit
    return objectives


def _number_or_word(text: str) -> int | str:
    try:
        return int(text)
    except ValueError:
        return text


def extra_fields(text: str) -> dict[str, Any]:
    """The JSON object of `--extra`."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"is not JSON: {error}", where="--extra") from error
    if not isinstance(value, dict):
        raise UserError("must be a JSON object", where="--extra")
    return value


_FILE: Final[dict[str, Any]] = {"read": Path.resolve, "type": Path}
_MANY: Final[dict[str, Any]] = {"action": "append"}
_SWITCH: Final[dict[str, Any]] = {"action": "store_true", "default": None}
_CONSTANT: Final = "store_const"

TARGET: Final = (
    Flag("--target", "target.*", "The base URL of an OpenAI API, or an embedded engine.", _targets,
         metavar="URL|sim:PRESET", **_MANY),
    Flag("--virtual", "target.clock", "Simulate the run: an embedded engine on a virtual clock, without HTTP and "
         "without waiting.", action=_CONSTANT, const="virtual"),
    Flag("--model", "target.model", "The model's name (default: the first that the target serves)."),
    Flag("--ready-timeout", "target.ready_timeout", "Give a server that we start this long (default: 10m).",
         metavar="TIME"),
    Flag("--endpoint", "target.endpoint", "The API to call (default: completions).", choices=["completions", "chat"]),
    Flag("--prompt", "target.prompt", "How completions get their prompts (default: ids for vLLM, else text).",
         choices=["auto", "ids", "text"]),
    Flag("--fields", "target.fields", "Which fields requests have: vLLM's own too, OpenAI's, or those that every "
         "server knows (default: by what the server says it is).", choices=["auto", "vllm", "openai", "plain"]),
    Flag("--output-limit", "target.output_limit", "The field that bounds an answer (default: what the server takes).",
         choices=["auto", "max_tokens", "max_completion_tokens"]),
    Flag("--header", "target.headers", "Send this header with every request.", _headers, metavar="NAME:VALUE", **_MANY),
    Flag("--api-key-env", "target.auth.env", "The environment variable that holds the API key.", metavar="VARIABLE"),
    Flag("--ca", "target.tls.ca", "The authority that signed the target's certificate (PEM).", **_FILE),
    Flag("--insecure", "target.tls.insecure", "Don't verify TLS; the report says so.", **_SWITCH),
    Flag("--cert", "target.tls.cert", "Our client certificate (PEM).", **_FILE),
    Flag("--key", "target.tls.key", "The client certificate's key (PEM).", **_FILE),
    Flag("--balance", "target.balance", "How several targets share the load.",
         choices=["round-robin", "least-in-flight"]),
    Flag("--delayed-acks", "target.delayed_acks", "Acknowledge several tokens at once, which is cheaper to read but "
         "slows a server with Nagle's algorithm on: to servers on this machine (default), to all, or to none.",
         choices=["loopback", "always", "never"]),
)  # fmt: skip
# What `tailgate workload` can change of any source, and how it reads a trace.
LOAD: Final = (
    Flag("--rate", "workload.arrivals.rate", "Arrivals per second, e.g. 12/s (open loop); the mean rate of a trace."),
    Flag("--users", "workload.users", "Closed loop: so many users, each of whom waits for the answer.", type=int),
    Flag("--requests", "workload.requests", "End after so many requests.", type=int),
    Flag("--duration", "workload.duration", "The length of the measure phase, e.g. 60s or 10m."),
    Flag("--warmup", "workload.warmup", "The length of the warm-up before it."),
    Flag("--max-context", "workload.max_context", "The most tokens of a prompt and its answer together.", type=int),
    Flag("--over-context", "workload.over_context", "What to do with longer ones.",
         choices=["error", "clip", "scale", "drop"]),
    Flag("--length-scale", "workload.length_scale", "Multiply all lengths by this factor.", type=float),
    Flag("--content", "workload.content", "What prompts hold: real text, random tokens, the trace's own request "
         "bodies, or your text file.", _content, metavar="corpus|random|replay|FILE"),
)  # fmt: skip
TRACE: Final = (
    Flag("--trace-format", "workload.trace.format", "The trace's format, e.g. azure (default: seen from the file)."),
    Flag("--start", "workload.trace.start", "Skip this much of the trace."),
    Flag("--speed", "workload.trace.speed", "Compress the trace's time by this factor.", type=float),
    Flag("--rate-by", "workload.trace.rate_by", "How --rate changes a trace's rate.",
         choices=["auto", "thin", "superpose", "speed"]),
    Flag("--columns", "workload.trace.columns", "Name a column of a csv, jsonl or parquet trace; the keys are time, "
         "prompt_tokens, output_tokens, session, ...", _columns, metavar="KEY=COLUMN", **_MANY),
    Flag("--time-unit", "workload.trace.time_unit", "The unit of its time column (default: s).",
         choices=["s", "ms", "us", "ns", "calendar"]),
    Flag("--no-spread", "workload.trace.spread", "Replay stamps that lie on a coarse grid as they are.",
         action=_CONSTANT, const=False),
    Flag("--skip-bad-rows", "workload.trace.skip_bad_rows", "Count broken trace rows instead of refusing them.",
         **_SWITCH),
)  # fmt: skip
WORKLOAD: Final = (
    *LOAD,
    Flag("--arrival", "workload.arrivals.process", "The arrival process: constant, poisson, gamma, ..."),
    Flag("--shape", "workload.arrivals.shape", "The shape of gamma arrivals (below 1: bursty).", type=float),
    Flag("--prompt-tokens", "workload.prompt_tokens", "Prompt lengths: 512, lognormal(6.2,0.8), uniform(64,512), "
         "grid:NAME.input."),
    Flag("--output-tokens", "workload.output_tokens", "Answer lengths, written in the same way."),
    Flag("--profile", "workload.profile", "A built-in workload profile, or a file with one of yours."),
    Flag("--locustfile", "workload.locustfile", "Your own code makes the requests (LLMUser).", metavar="FILE",
         **_FILE),
    Flag("--tag", "workload.tags", "Run only the locustfile's tasks with this tag.", **_MANY),
    Flag("--exclude-tag", "workload.exclude_tags", "Leave out its tasks with this tag.", metavar="TAG", **_MANY),
    Flag("--trace", "workload.trace.file", "Replay this trace.", **_FILE),
    *TRACE,
)  # fmt: skip
RUN: Final = (
    Flag("--name", "name", "A name that becomes part of the run directory's name."),
    Flag("--seed", "seed", "The plan is a function of spec and seed (default: 0).", type=int),
    Flag("--slo", "slo", "An objective; repeat it for more.", _objectives, metavar="'ttft: p99 < 800ms'", **_MANY),
    Flag("--timeout", "timeout", "Give up on a request this long after its scheduled time."),
    Flag("--patience", "abandon.patience", "Users hang up after so many seconds: a number or a distribution, "
         "e.g. lognormal(2,0.5)."),
    Flag("--abandon", "abandon.share", "Only this share of the users ever hangs up, e.g. 5%%.", metavar="SHARE"),
    Flag("--settle", "settle", "Send requests of our own until the server's pace is steady (default: to what we start, "
         "and to a URL whose workload has a warm-up).", action=_CONSTANT, const="always"),
    Flag("--no-settle", "settle", "Send no warm-up requests of our own.", action=_CONSTANT, const="none"),
    Flag("--drain", "drain", "Wait this long for answers after the last arrival (default: 60s)."),
    Flag("--no-stream", "streamed", "Ask for whole answers instead of streams.", action=_CONSTANT, const=False),
    Flag("--natural-output", "output", "Let the model end its answers.", action=_CONSTANT, const="natural"),
    Flag("--extra", "extra", "Merge these fields into every request body.", extra_fields, metavar="JSON"),
    Flag("--injectors", "injectors", "Injector processes: a number, or auto (default): as many as the load "
         "takes and cores are free for.", _number_or_word),
    Flag("--no-server-metrics", "telemetry.server", "Don't sample the server's /metrics.", action=_CONSTANT,
         const="none"),
    Flag("--ui", "ui", "Serve Locust's web UI (127.0.0.1:8089).", nargs="?", const="127.0.0.1:8089",
         metavar="HOST:PORT"),
)  # fmt: skip
WORKERS: Final = (
    Flag("--expect-workers", "workers.expect", "Send from N workers instead of this machine.", type=int, metavar="N"),
    Flag("--bind", "workers.bind", "Where workers join (default: 127.0.0.1:5557).", metavar="HOST:PORT"),
    Flag("--token-env", "workers.token_env", "The environment variable that holds the secret which this machine and "
         "the workers share; needed unless --bind is loopback.", metavar="VARIABLE"),
    Flag("--wait", "workers.wait", "Wait this long for the workers (default: 60s).", metavar="TIME"),
)  # fmt: skip

"""Servers that misbehave: what each does to every fourth request (or on a page), and what must come of it."""

import gzip
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tailgate.loadgen.records import Status
from tests.kit.command import command
from tests.kit.faults.outcome import FaultyRun
from tests.kit.scripted import (
    CHUNKED,
    END,
    Peer,
    Request,
    Script,
    ScriptedServer,
    body,
    chunk,
    closes,
    event,
    hangs,
    head,
    ok,
    payloads,
    resets,
    sends,
    token,
    usage,
    whole,
)

TOKENS, PROMPT = 8, 32
ENDS_WITHIN_S = 180.0  # a run of 2 s with 3 s of drain, on a machine that may be busy
LOAD = (
    "--rate", "30/s", "--arrival", "constant", "--duration", "2s", "--timeout", "1500ms",
    "--drain", "3s", "--prompt-tokens", str(PROMPT), "--output-tokens", str(TOKENS), "--content", "random",
    "--no-settle", "--slo", "errors: < 10%",
)  # fmt: skip


def drips(data: bytes, size: int) -> Script:
    """Send it in segments of so many bytes."""
    return lambda peer: peer.drip(data, size)


def chunks(*contents: bytes) -> bytes:
    """A stream's head and its events, without the end."""
    return CHUNKED + b"".join(chunk(event(content)) for content in contents)


def stream(*contents: bytes) -> bytes:
    """A whole stream of these events."""
    return chunks(*contents) + END


BESIDE_THE_API = ("/metrics", "/version", "/server_info?config_format=json", "/tokenize")
WORDS = payloads(TOKENS, PROMPT)[:TOKENS]
COUNTS, DONE = usage(PROMPT, TOKENS), b"[DONE]"
NAN_USAGE = b'{"choices":[],"usage":{"prompt_tokens":32,"completion_tokens":%b}}'
HTML = b"<html><body><h1>502 Bad Gateway</h1></body></html>"


@dataclass(frozen=True)
class ServerFault:
    """A server that does `does` to every fourth request; all others get what they asked for.

    `becomes` is the status that those requests must get; where they are ok all their tokens must have been seen. `lost`
    says what else is. `code`: the run can't begin.
    """

    name: str
    does: Script = field(default=sends(ok(TOKENS, PROMPT)))
    becomes: Status = Status.OK
    pages: Mapping[str, Script] = field(default_factory=dict)
    lost: str = ""
    all_struck: bool = False
    code: int | None = None
    quick: bool = False


def _slow_page(peer: Peer) -> None:
    peer.wait_hung_up(30.0)


SERVER_FAULTS = (
    ServerFault("closes before it answers", closes(), Status.RESET),
    ServerFault("resets before it answers", Peer.reset, Status.RESET),
    ServerFault("closes inside the head", closes(b"HTTP/1.1 200 OK\r\nContent-Ty"), Status.RESET),
    ServerFault("resets inside the answer", resets(chunks(*WORDS[:3])), Status.RESET, quick=True),
    ServerFault("closes inside a chunk", closes(chunks(*WORDS[:3]), b"ff\r\ndata: {"), Status.TRUNCATED, quick=True),
    ServerFault(
        "promises a longer body than it sends", closes(head(200, "Content-Length: 9999"), event(WORDS[0])),
        Status.TRUNCATED,
    ),
    ServerFault("ends a stream without finish reason and [DONE]", sends(stream(*WORDS[:3])), Status.TRUNCATED),
    ServerFault("leaves out [DONE] alone", sends(stream(*WORDS, COUNTS))),
    ServerFault("never sends a head", hangs(), Status.TIMEOUT, quick=True),
    ServerFault("stalls for ever inside the answer", hangs(chunks(*WORDS[:3])), Status.TIMEOUT),
    ServerFault("stalls for ever inside the head", hangs(b"HTTP/1.1 200 OK\r\nCont"), Status.TIMEOUT),
    ServerFault("sends nothing but comments, for ever", hangs(CHUNKED, chunk(b": ping\n\n") * 3), Status.TIMEOUT),
    ServerFault("sends nothing but comments, and ends", sends(CHUNKED + chunk(b": ping\n\n") * 3 + END),
                Status.BAD_RESPONSE),
    ServerFault("sends its answer byte by byte", drips(ok(TOKENS, PROMPT), 1), quick=True),
    ServerFault("splits characters between segments", drips(
        stream(*[token("é€😀") for _ in WORDS[1:]], token("é", finish="length"), COUNTS, DONE), 7)),
    ServerFault("speaks something that isn't HTTP", closes(b"SSH-2.0-OpenSSH_9.6\r\n"), Status.BAD_RESPONSE),
    ServerFault("sends a chunk size that is no number", closes(CHUNKED + b"zz\r\n"), Status.BAD_RESPONSE),
    ServerFault("sends an event that isn't JSON", sends(stream(WORDS[0], b"{]", DONE)), Status.BAD_RESPONSE),
    ServerFault("sends bytes that aren't UTF-8", sends(stream(
        WORDS[0].replace(b" word", b" \xff\xfe"), *WORDS[1:], COUNTS, DONE)), Status.BAD_RESPONSE),
    ServerFault("sends an event of 2 MB", sends(stream(
        WORDS[0].replace(b" word", b" " + b"w" * 2**21), *WORDS[1:], COUNTS, DONE))),
    ServerFault("sends an empty stream", sends(stream()), Status.BAD_RESPONSE),
    ServerFault("sends an empty body", sends(head(200, "Content-Length: 0")), Status.BAD_RESPONSE),
    ServerFault("keeps the stream open behind [DONE]", hangs(chunks(*WORDS, COUNTS, DONE)), quick=True),
    ServerFault("sends its finish reason twice", sends(stream(*WORDS, WORDS[-1].replace(b" word", b""), COUNTS, DONE))),
    ServerFault("sends an error event inside the stream", sends(stream(
        WORDS[0], b'{"error":{"message":"out of memory","code":500}}', DONE)), Status.SERVER_ERROR),
    ServerFault("answers 500 with an error object", sends(whole(b'{"error":{"message":"engine died"}}', 500)),
                Status.HTTP_ERROR),
    ServerFault("answers 500 without a body", sends(head(500, "Content-Length: 0")), Status.HTTP_ERROR),
    ServerFault("answers 400 and closes", closes(head(400), b"no"), Status.HTTP_ERROR),
    ServerFault("answers 429 with Retry-After", sends(head(429, "Retry-After: 1", "Content-Length: 0")),
                Status.REJECTED, quick=True),
    ServerFault("answers 503", sends(whole(b"queue is full", 503)), Status.REJECTED),
    ServerFault("answers with a gateway's HTML page", sends(whole(HTML, 502, "text/html")), Status.HTTP_ERROR),
    ServerFault("answers 200 with an HTML page", sends(whole(HTML, 200, "text/html")), Status.BAD_RESPONSE),
    ServerFault("redirects", sends(head(307, "Location: http://127.0.0.1:9/v1", "Content-Length: 0")),
                Status.HTTP_ERROR),
    ServerFault("compresses its answer unasked", sends(
        head(200, "Content-Encoding: gzip", f"Content-Length: {len(gzip.compress(body()))}") + gzip.compress(body())),
        Status.BAD_RESPONSE, quick=True),
    ServerFault("names another content type", sends(
        head(200, f"Content-Length: {len(body(TOKENS, PROMPT))}", content_type="application/json")
        + body(TOKENS, PROMPT))),
    ServerFault("ends lines with CRLF", sends(CHUNKED + b"".join(
        chunk(b"data: " + content + b"\r\n\r\n") for content in (*WORDS, COUNTS, DONE)) + END)),
    ServerFault("mixes comments with events", sends(CHUNKED + b"".join(
        chunk(b": ping\n\n" + event(content)) for content in (*WORDS, COUNTS, DONE)) + END)),
    ServerFault("closes after every answer", closes(
        head(200, "Transfer-Encoding: chunked", "Connection: close"), ok(TOKENS, PROMPT)[len(CHUNKED):])),
    ServerFault("speaks HTTP/1.0", closes(head(200, version="1.0"), body(TOKENS, PROMPT))),
    ServerFault("sends a second answer that nobody asked for", sends(ok(TOKENS, PROMPT) * 2)),
    ServerFault("says 100 Continue first", sends(b"HTTP/1.1 100 Continue\r\n\r\n" + ok(TOKENS, PROMPT))),
    ServerFault("gives no usage", sends(stream(*WORDS, DONE)), lost="the server's token counts: they are estimated",
                quick=True),
    ServerFault("gives a usage of zeros", sends(stream(*WORDS, usage(0, 0), DONE)),
                lost="the server's token counts: they are estimated"),
    ServerFault("gives a usage of 2^63 - 1", sends(stream(*WORDS, usage(2**63 - 1, 2**63 - 1), DONE)),
                lost="the server's token counts: they are estimated"),
    ServerFault("gives a negative usage", sends(stream(*WORDS, NAN_USAGE % b"-8", DONE)),
                lost="the server's token counts: they are estimated"),
    ServerFault("gives a usage that is text", sends(stream(*WORDS, NAN_USAGE % b'"eight"', DONE)),
                lost="the server's token counts: they are estimated"),
    ServerFault("refuses every request", sends(whole(b"{}", 500)), Status.HTTP_ERROR, all_struck=True, quick=True),
    ServerFault("closes on every request", closes(), Status.RESET, all_struck=True),
    ServerFault("answers no /metrics", pages={"/metrics": _slow_page}, lost="the server's own figures"),
    ServerFault("answers /metrics with garbage", pages={"/metrics": sends(whole(b"\xff{}= nan\n" * 99))},
                lost="the server's own figures"),
    ServerFault("answers /metrics with 20 MB", pages={"/metrics": sends(whole(b'm{a="b"} 1\n' * 1_900_000))},
                lost="the server's own figures"),
    ServerFault("answers nothing beside its API", pages=dict.fromkeys(BESIDE_THE_API, _slow_page),
                lost="the server's own figures"),
    ServerFault("answers no /v1/models", pages={"/v1/models": _slow_page}, code=2, lost="the run: it doesn't begin"),
    ServerFault("closes on /v1/models", pages={"/v1/models": closes()}, code=2, lost="the run: it doesn't begin"),
)  # fmt: skip


def run(fault: ServerFault, folder: Path) -> FaultyRun:
    """A run against the server."""

    def struck(index: int) -> bool:
        return fault.all_struck or index % 4 == 1

    def answer(peer: Peer, request: Request) -> None:
        if script := fault.pages.get(request.target):
            script(peer)
        elif request.target == "/v1/models":
            peer.send(whole(b'{"object":"list","data":[{"id":"m"}]}', content_type="application/json"))
        elif request.method == "GET":
            peer.send(whole(b"{}", 404))
        elif fault.pages or not struck(request.index):
            peer.send(ok(TOKENS, PROMPT))
        else:
            fault.does(peer)

    with ScriptedServer(answer) as server:
        line = command("run", "--target", server.url, *LOAD, "--out", folder / "run")
        began = time.monotonic()
        said = subprocess.run(line, capture_output=True, text=True, check=False, timeout=ENDS_WITHIN_S)
        took = time.monotonic() - began
    return FaultyRun(folder / "run", said.returncode, said.stdout + said.stderr, took, struck)


def problems(fault: ServerFault, run: FaultyRun) -> list[str]:
    """Where the run is not what it must be."""
    wrong = run.broken()
    if fault.code is not None:
        return wrong + [f"exit code {run.code}, not {fault.code}"] * (run.code != fault.code)
    if not run.measured:
        return [*wrong, f"no result: exit code {run.code}: {run.words}"]
    if run.manifest["state"] != "complete":
        wrong.append(f"the run is {run.manifest['state']}")
    if failed := run.failed_checks():
        wrong.append(f"the checks {failed} fail: {run.summary['invalid_reasons']}")
    if set(run.statuses(struck=True)) != {fault.becomes}:
        wrong.append(f"struck requests became {dict(run.statuses(struck=True))}, not {fault.becomes}")
    if not fault.all_struck and set(run.statuses(struck=False)) != {Status.OK}:
        wrong.append(f"other requests became {dict(run.statuses(struck=False))}")
    counted = {row["chunks"] for row in run.requests() if row["status"] == Status.OK}
    if counted - {TOKENS}:
        wrong.append(f"{counted} content chunks were counted in answers of {TOKENS}")
    fails = fault.becomes is not Status.OK
    (objective,) = run.summary["slo"]["thresholds"]
    if objective["result"] != ("broken" if fails else "met"):
        wrong.append(f"the objective on errors is {objective['result']}")
    if run.code not in ((1, 4) if fails else (0, 4)) or (run.code == 4) == run.summary["valid"]:
        wrong.append(f"exit code {run.code}")
    return wrong

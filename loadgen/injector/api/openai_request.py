"""The JSON body of a request: made from a plan row, or one of the user's own log with what we must set over it."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from tailgate.loadgen.injector.api.request_builder import BodyMaker, Row
from tailgate.loadgen.job import LIMITS, STREAMED, Job
from tailgate.workloads.prompts.content_table import ContentTable, table_default
from tailgate.workloads.prompts.prompts import PromptMaker

if TYPE_CHECKING:
    from tailgate.workloads.traces.logged_bodies import Bodies


def body_maker(job: Job) -> BodyMaker:
    """What makes the bodies of a job, or a UserError if its log can't be read or its content doesn't fit."""
    if job.bodies is not None:
        from tailgate.workloads.traces.logged_bodies import Bodies

        return ReplayedBodies(job, Bodies(Path(job.bodies))).body
    return MadeBodies(job, prompt_maker(job)).body


def prompt_maker(job: Job) -> PromptMaker:
    """What makes the prompts of a job, or a UserError if its content doesn't fit."""
    table = ContentTable.load(Path(job.content)) if job.content else table_default()
    return PromptMaker(table, **job.content_options)


class MadeBodies:
    """Bodies around made prompts. They are joined from bytes, since what all requests share is rendered once."""

    def __init__(self, job: Job, prompts: PromptMaker) -> None:
        mode = job.content_options.get("mode", "ids")
        make = {"ids": prompts.ids_json, "text": prompts.text_json, "chat": prompts.messages_json}
        self._make = make["chat" if job.api == "chat" else mode]
        name = b',"messages":' if job.api == "chat" else b',"prompt":'
        self._before = b'{"model":' + orjson.dumps(job.model) + name
        self._before_of = {kind: b'{"model":' + orjson.dumps(adapter) + name for kind, adapter in job.adapters.items()}
        fields: dict[str, Any] = {"temperature": 0, **(STREAMED if job.streamed else {})}
        fields = {name: value for name, value in fields.items() if name not in job.omitted} | job.extra
        self._after = b"," + orjson.dumps(fields)[1:] if fields else b"}"
        self._limit = b'"%b":%%d' % job.limit.encode()
        forced = {"min_tokens": b',"min_tokens":%d', "ignore_eos": b',"ignore_eos":true'} if job.forced_output else {}
        self._floor = b"".join(text for name, text in forced.items() if name not in job.omitted)
        self._ranked = "priority" not in job.omitted

    def body(self, row: Row) -> bytes:
        return self.around(self._make(row.content_seed, row.prefix_blocks, row.prompt_tokens), row)

    def around(self, prompt: bytes, row: Row) -> bytes:
        length = self._limit % row.output_tokens
        if self._floor:
            length += self._floor.replace(b"%d", b"%d" % row.output_tokens)
        if row.priority and self._ranked:
            length += b',"priority":%d' % row.priority
        before = self._before_of.get(row.kind, self._before)
        return b"".join((before, prompt, b",", length, self._after))


class ReplayedBodies:
    """A log's own bodies, in which streaming, the model, a forced length and `extra` may be replaced."""

    def __init__(self, job: Job, bodies: "Bodies") -> None:
        self._bodies = bodies
        self._job = job
        self._served = frozenset(job.served)

    def body(self, row: Row) -> bytes:
        return self.around(self._bodies.body(row.content_seed), row)

    def around(self, logged: dict[str, Any], row: Row) -> bytes:
        job = self._job
        fields = dict(logged)
        if fields.get("model") not in self._served:
            fields["model"] = job.model
        options = fields.pop("stream_options", None)
        fields.pop("stream", None)
        if job.streamed:
            fields |= {"stream": True, "stream_options": {**(options or {}), "include_usage": True}}
        if job.forced_output:
            for name in LIMITS:
                fields.pop(name, None)
            fields |= {job.limit: row.output_tokens, "min_tokens": row.output_tokens, "ignore_eos": True}
        elif job.limit != "max_tokens" and "max_tokens" in fields:
            fields[job.limit] = fields.pop("max_tokens")
        if row.priority:
            fields["priority"] = row.priority
        return orjson.dumps({name: value for name, value in fields.items() if name not in job.omitted} | job.extra)

"""The JSON body of a request: made from a plan row, or one of the user's own log with what we must set over it."""

from pathlib import Path
from typing import Any, Final

import orjson

from tailgate.loadgen.injector.api.request_builder import BodyMaker, Row
from tailgate.loadgen.job import STREAMED, Job
from tailgate.workloads.prompts.content_table import ContentTable, table_default
from tailgate.workloads.prompts.prompts import PromptMaker
from tailgate.workloads.traces.logged_bodies import Bodies

# Other names for `max_tokens`: with two of them a server may heed the one that isn't ours.
_LIMITS: Final = ("max_tokens", "max_completion_tokens", "min_tokens", "ignore_eos")


def body_maker(job: Job) -> BodyMaker:
    """What makes the bodies of a job, or a UserError if its log can't be read or its content doesn't fit."""
    if job.bodies is not None:
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
        fields: dict[str, Any] = {"temperature": 0, **(STREAMED if job.streamed else {}), **job.extra}
        self._after = b"," + orjson.dumps(fields)[1:]
        self._forced = job.forced_output

    def body(self, row: Row) -> bytes:
        return self.around(self._make(row.content_seed, row.prefix_blocks, row.prompt_tokens), row)

    def around(self, prompt: bytes, row: Row) -> bytes:
        length = b'"max_tokens":%d' % row.output_tokens
        if self._forced:
            length += b',"min_tokens":%d,"ignore_eos":true' % row.output_tokens
        if row.priority:
            length += b',"priority":%d' % row.priority
        before = self._before_of.get(row.kind, self._before)
        return b"".join((before, prompt, b",", length, self._after))


class ReplayedBodies:
    """A log's own bodies, in which streaming, the model, a forced length and `extra` may be replaced."""

    def __init__(self, job: Job, bodies: Bodies) -> None:
        self._bodies = bodies
        self._job = job
        self._served = frozenset(job.served)

    def body(self, row: Row) -> bytes:
        job = self._job
        fields = dict(self._bodies.body(row.content_seed))
        if fields.get("model") not in self._served:
            fields["model"] = job.model
        options = fields.pop("stream_options", None)
        fields.pop("stream", None)
        if job.streamed:
            fields |= {"stream": True, "stream_options": {**(options or {}), "include_usage": True}}
        if job.forced_output:
            for name in _LIMITS:
                fields.pop(name, None)
            fields |= {"max_tokens": row.output_tokens, "min_tokens": row.output_tokens, "ignore_eos": True}
        if row.priority:
            fields["priority"] = row.priority
        return orjson.dumps(fields | job.extra)

"""A log's own request bodies, to be sent again: `content: {kind: replay}` with a trace in OpenAI's shape.

A plan's `content_seed` is then the line of the log (1 is the first). Tools, `response_format`, images and adapters
stay as they are; what the injector must set itself (model, streaming, limits) it sets over them. Whatever else a line
holds stays behind (`request_fields`).
"""

import re
from pathlib import Path
from typing import Any, Final

from tailgate.workloads.common.errors import UserError
from tailgate.workloads.common.json_text import json_of
from tailgate.workloads.traces.formats.csv_stream import open_file, without_bom
from tailgate.workloads.traces.request_fields import request_fields

_HINTS: Final = ("messages", "prompt", "input")


class Bodies:
    """The request bodies of a log, by line. The file is scanned once for lines; bodies are parsed when asked for."""

    def __init__(self, file: Path) -> None:
        self._file = file
        with open_file(file) as stream:
            try:
                self._data = without_bom(bytes(stream.read()), file)
            except OSError as error:
                raise UserError(f"can't be read: {error}", where=str(file)) from error
        self._starts = [0, *(newline.end() for newline in re.finditer(b"\n", self._data))]

    def body(self, line: int) -> dict[str, Any]:
        """The request body of a line; a UserError where it holds none."""
        return self.taken_apart(line)[0]

    def taken_apart(self, line: int) -> tuple[dict[str, Any], list[str]]:
        """The request body of a line, and the names of what stays behind; a UserError where it holds no body."""
        if not 1 <= line <= len(self._starts):
            raise UserError(f"there is no line {line}", where=str(self._file))
        begin = self._starts[line - 1]
        end = self._data.find(b"\n", begin)
        try:
            record = json_of(self._data[begin : end if end >= 0 else None])
        except ValueError as error:
            raise UserError(f"is not JSON: {error}", where=f"{self._file}, line {line}") from error
        for candidate in _candidates(record):
            if any(hint in candidate for hint in _HINTS):
                return request_fields(candidate)
        raise UserError(
            "holds no request body (messages or prompt)",
            where=f"{self._file}, line {line}",
            remedy="Log whole requests, or use content: corpus",
        )


def _candidates(record: Any) -> list[dict[str, Any]]:
    """The places where a log may hold the body: `request.body`, `request`, `body`, or the line itself."""
    if not isinstance(record, dict):
        return []
    request = record.get("request")
    places = [request.get("body") if isinstance(request, dict) else None, request, record.get("body"), record]
    return [place for place in places if isinstance(place, dict)]

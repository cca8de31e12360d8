"""RAGPulse: a line a request, `hash_ids` an object of chunk ids (system prompt, passages, history, web, question).

`timestamp` is a string of seconds. Chunk lengths are in files beside the trace (`1_sys_prompt.jsonl` ...,
gzip or not); with them the shared prefixes are known: chunks are laid one after the other, and each block of 64
tokens has an id that stands for all that precedes its end. Without them requests share nothing, which is said.
arXiv 2511.12979 (2025), github.com/flashserve/RAGPulse, MIT.
"""

from pathlib import Path
from typing import Any, Final

from tailgate.workloads.common.errors import UserError
from tailgate.workloads.sampling.random_streams import mixed_int
from tailgate.workloads.traces.formats.records import (
    BadValueError,
    Request,
    number,
    parsed,
    pieces,
    records,
    tokens,
    value,
)
from tailgate.workloads.traces.rows import Faults, Reader, SessionNumbers

BLOCK_TOKENS: Final = 64
# In the order of the prompt: (key in hash_ids, file, key of the id there).
_PARTS: Final = (
    ("sys_prompt", "1_sys_prompt", "sys_prompt_id"),
    ("passages_ids", "2_passages", "passage_id"),
    ("history", "3_history", "history_id"),
    ("web_search", "5_web_search", "web_search_id"),
    ("user_input", "4_user_input", "user_input_id"),
)


def read(file: Path, faults: Faults) -> Reader:
    """The requests with their sessions, and their prefix blocks where the chunk lengths are beside the file."""
    lengths = _chunk_lengths(file, faults)
    if lengths is None:
        faults.notices.append(f"{file.name}: no chunk lengths beside it (1_sys_prompt.jsonl ...): no shared prefixes")
    sessions = SessionNumbers()

    def request(record: dict[str, Any]) -> Request:
        prompt = tokens(record, "input_length", least=1)
        return Request(
            at_ns=round(number(record, "timestamp") * 1e9),
            prompt_tokens=prompt,
            output_tokens=tokens(record, "output_length"),
            session=int(sessions.of([str(value(record, "session_id"))])[0]),
            blocks=() if lengths is None else _blocks(_chunks(record), lengths, prompt),
        )

    return pieces(parsed(records(file, faults), faults, request), None if lengths is None else BLOCK_TOKENS)


def _chunks(record: dict[str, Any]) -> list[int]:
    ids = value(record, "hash_ids")
    if not isinstance(ids, dict):
        raise BadValueError("hash_ids is not an object: is this a Mooncake trace?")
    chunks: list[int] = []
    for key, _, _ in _PARTS:
        part = ids.get(key) or []
        if not isinstance(part, list) or not all(isinstance(chunk, int) for chunk in part):
            raise BadValueError(f"hash_ids.{key} {str(part)[:60]!r} is not a list of chunk ids")
        chunks += part
    return chunks


def _blocks(chunks: list[int], lengths: dict[int, int], prompt_tokens: int) -> list[int]:
    """Block ids: each stands for all chunks up to the block's end, and how far it reaches into the last of them."""
    blocks: list[int] = []
    chain, end, block_end = 0, 0, BLOCK_TOKENS
    for chunk in chunks:
        length = lengths.get(chunk)
        if length is None:
            break  # what follows an unknown chunk is the request's own
        begin, end = end, end + length
        chain = mixed_int(chain ^ mixed_int(chunk + 1))
        while block_end <= end and block_end <= prompt_tokens:
            blocks.append(mixed_int(chain ^ mixed_int(block_end - begin)))
            block_end += BLOCK_TOKENS
    return blocks


def _chunk_lengths(file: Path, faults: Faults) -> dict[int, int] | None:
    lengths: dict[int, int] = {}
    for _, name, key in _PARTS:
        files = [path for path in (file.parent / f"{name}.jsonl", file.parent / f"{name}.jsonl.gz") if path.exists()]
        if not files:
            return None
        faults.place = files[0].name
        for line, record in records(files[0], faults):
            try:
                lengths[tokens(record, key)] = tokens(record, "token_length")
            except BadValueError as error:
                raise UserError(str(error), where=f"{files[0]}, line {line}") from error
    faults.place = ""
    return lengths

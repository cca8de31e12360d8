"""Text to cut prompts from: Python's own language reference (prose) and standard library (code).

Both are on every machine that runs Python, so nothing is downloaded or shipped; a file of the user's own can take their
place. The target turns text into tokens, and `content_table` cuts it to length.
"""

import importlib.util
import re
from pathlib import Path
from typing import Final

from tailgate.workloads.common.errors import UserError

_MODULES: Final = (
    "argparse", "inspect", "typing", "datetime", "tarfile", "subprocess", "logging", "dataclasses", "difflib",
    "unittest.mock", "statistics", "zipfile", "ast", "collections", "pickle", "asyncio.base_events", "mailbox",
    "http.client", "turtle", "ipaddress", "configparser", "doctest", "optparse", "smtplib", "shutil", "threading",
    "xml.dom.minidom", "email.message", "concurrent.futures.process", "importlib.metadata", "csv", "random",
)  # fmt: skip
_TURN_CHARS: Final = 6000
CORPUS_CHARS: Final = 1_500_000
# What tokenizers may read as special tokens, and anything that is not plain ASCII text.
_UNWANTED: Final = re.compile(r"<\|[^|\n]*\|>|</?s>|\[/?INST\]|<(?:pad|unk|mask|bos|eos)>|[^\x20-\x7e\n]")


def corpus_text(n_chars: int = CORPUS_CHARS, file: Path | None = None) -> str:
    """About n_chars of ASCII text, prose and code by turns; or of the user's own UTF-8 file.

    It depends on the Python version, as its documentation does; `ContentTable.digest` tells them apart.
    """
    return cleaned(_own(file) if file is not None else python_text(n_chars), n_chars, str(file or "corpus"))


def cleaned(text: str, n_chars: int = CORPUS_CHARS, where: str = "corpus") -> str:
    """About n_chars of it without what is not plain ASCII text; a UserError where that is too little."""
    begun = _UNWANTED.sub("", text[: 2 * n_chars].replace("\t", "    "))  # what is cut off need not be clean
    text = begun if len(begun) > n_chars else _UNWANTED.sub("", text.replace("\t", "    "))
    if len(text) < 10_000:
        raise UserError("too little text to cut prompts from (10,000 characters at least)", where=where)
    while len(text) < n_chars:
        text += "\n" + text
    return text[:n_chars]


def chunks(text: str, most_chars: int) -> list[str]:
    """The text in pieces of at most most_chars, cut before a space, for a tokenizer that takes only so much."""
    pieces, at = [], 0
    while at < len(text):
        end = min(at + most_chars, len(text))
        if end < len(text):
            space = text.rfind(" ", at + 1, end)
            end = space if space > at else end
        pieces.append(text[at:end])
        at = end
    return pieces


def _own(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"can't be read: {error.strerror}", where=str(file)) from error
    except UnicodeDecodeError as error:
        raise UserError(f"is not UTF-8 text: {error}", where=str(file)) from error


def python_text(n_chars: int) -> str:
    """Python's prose and code by turns, as they are."""
    prose, code = _prose(), _code(n_chars)
    turns: list[str] = []
    for at in range(0, max(len(prose), len(code)), _TURN_CHARS):
        turns += [prose[at : at + _TURN_CHARS], code[at : at + _TURN_CHARS]]
    return "".join(turns)


def _prose() -> str:
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise UserError(
            "this Python lacks its own documentation (pydoc_data)",
            where="workload.content",
            remedy="Install it (Debian: libpython3-stdlib) or give a text file of your own",
        ) from error
    return "\n\n".join(topics[name] for name in sorted(topics))


def _code(n_chars: int) -> str:
    sources: list[str] = []
    for name in _MODULES:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
            continue  # another version keeps it elsewhere; there is plenty
        sources.append(Path(spec.origin).read_text(encoding="utf-8"))
        if sum(map(len, sources)) > n_chars:
            break
    return "\n\n".join(sources)

"""What of a spec and of a command may be a secret, and is masked before it is written or shown.

Told by names: a flag, variable, header or setting whose name ends like a secret's (`api-key`, `HF_TOKEN`), not one
that counts tokens (`max-num-batched-tokens`). User and password of a URL go too.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

MASK: Final = "***"
_ENDING: Final = r"(?:key|token|secret|password|passwd|passphrase|credentials?|authorization|cookie)"
_NAME: Final = re.compile(rf"(?:.*[-_.])?(?:api)?{_ENDING}", re.IGNORECASE)
_HUMP: Final = re.compile("(?<=[a-z])(?=[A-Z])")
_VARIABLE: Final = re.compile("key|token|secret|password|credential", re.IGNORECASE)
_VALUE: Final = r"""("[^"]*"|'[^']*'|[^\s'"]+)"""
# NAME=VALUE, NAME: VALUE (headers, JSON), and --name VALUE.
_GIVEN: Final = re.compile(
    rf"""((?:(?<![\w.-])|(?<=--))(?:[\w.-]*[-_.])?(?:api)?{_ENDING}["']?\s*[=:]\s*)(?:(?:Bearer|Basic)\s+)?{_VALUE}"""
    rf"""|(--(?:[\w.-]*[-_.])?(?:api)?{_ENDING}\s+){_VALUE}""",
    re.IGNORECASE,
)
_BEARER: Final = re.compile(r"\b(Bearer|Basic)\s+[^\s'\"]+", re.IGNORECASE)
_CREDENTIALS: Final = re.compile(r"://[^/@\s]+@")


def is_secret(name: str) -> bool:
    """Whether something with this name is likely to be a secret."""
    return _NAME.fullmatch(_HUMP.sub("_", name)) is not None


def masked_text(text: str) -> str:
    """A command line or a setting with the values of what is named like a secret masked."""
    masked = _GIVEN.sub(lambda match: f"{match[1] or match[3]}{MASK}", text)
    return without_credentials(_BEARER.sub(rf"\1 {MASK}", masked))


def program_of(command: str) -> str:
    """The program of a command that fetches a secret; its words may hold one in any place, so none is kept."""
    first, _, rest = command.strip().partition(" ")
    if not re.fullmatch(r"[\w./~-]+", first):
        return MASK
    return f"{first} {MASK}" if rest else first


def masked_words(words: Sequence[str]) -> list[str]:
    """A command that is split into words, with the values of secrets masked."""
    shown: list[str] = []
    for number, word in enumerate(words):
        before = words[number - 1] if number else ""
        hidden = before.startswith("--") and "=" not in before and is_secret(before[2:])
        shown.append(MASK if hidden else masked_text(word))
    return shown


def masked_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings with the values of secrets masked."""
    return {name: MASK if is_secret(name) else _masked(value) for name, value in settings.items()}


def masked_variables(variables: Mapping[str, str]) -> dict[str, str]:
    """An environment with the values of secrets masked; any part of a name may tell a secret."""
    return {name: MASK if _VARIABLE.search(name) else masked_text(value) for name, value in variables.items()}


def without_credentials(text: str) -> str:
    """The text with user and password of every URL in it masked."""
    return _CREDENTIALS.sub(f"://{MASK}@", text)


def _masked(value: Any) -> Any:
    match value:
        case str():
            return masked_text(value)
        case Mapping():
            return masked_settings(value)
        case list() | tuple():
            return [_masked(item) for item in value]
    return value

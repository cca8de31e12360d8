"""What of a spec and of a command may be a secret, and is masked before it is written or shown.

Told by names: a flag, variable, header or setting whose name ends like a secret's (`api-key`, `HF_TOKEN`), not one
that counts tokens (`max-num-batched-tokens`). User and password of a URL go too, and the values of its query.

What is a secret is also told to `loadgen.redact`, which masks it where it comes back: in a server's words.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.request import getproxies

from tailgate.loadgen.redact import MASK, SECRET_ENDING, SECRETIVE, SECRETS, is_secret, texts

_VARIABLE: Final = re.compile("key|token|secret|password|credential", re.IGNORECASE)
_VALUE: Final = r"""("[^"]*"|'[^']*'|[^\s'"]+)"""
# NAME=VALUE, NAME: VALUE (headers, JSON), and --name VALUE.
_GIVEN: Final = re.compile(
    rf"""((?:(?<![\w.-])|(?<=--))(?:[\w.-]*[-_.])?(?:api)?{SECRET_ENDING}["']?\s*[=:]\s*)(?:(?:Bearer|Basic)\s+)?{_VALUE}"""
    rf"""|(--(?:[\w.-]*[-_.])?(?:api)?{SECRET_ENDING}\s+){_VALUE}""",
    re.IGNORECASE,
)
_BEARER: Final = re.compile(r"\b(Bearer|Basic)\s+[^\s'\"]+", re.IGNORECASE)
_CREDENTIALS: Final = re.compile(r"://[^/?#\s]+@")
# A query's value, but for what names an interface, as Azure's URLs do.
_QUERY: Final = re.compile(r"""(://[^\s?#'"]*\?)([^\s#'"]+)""")
_QUERY_VALUE: Final = re.compile(r"(?<![^&])(?!api-version=)([^&=]+)=[^&]+")


def learn_secrets(spec: Mapping[str, Any]) -> None:
    """Tell the process's mask what of a spec, as it was given, is a secret."""
    target = spec.get("target")
    target = target if isinstance(target, Mapping) else {"url": target}
    urls = target.get("urls")
    telemetry = spec.get("telemetry")
    exporter = telemetry.get("gpu") if isinstance(telemetry, Mapping) else None
    exporter = exporter.removeprefix("dcgm:") if isinstance(exporter, str) else None
    named = (target.get("url"), target.get("ready"), exporter)
    for url in [*named, *(urls if isinstance(urls, list | tuple) else ()), *getproxies().values()]:
        if isinstance(url, str):
            SECRETS.learn_url(url)
    if isinstance(headers := target.get("headers"), Mapping):
        # Only those that are likely to be secret: "X-Team: completions" must not blot out our own words.
        SECRETS.learn({name: str(value) for name, value in headers.items() if SECRETIVE.search(str(name))})
    if isinstance(variables := target.get("env"), Mapping):
        SECRETS.learn({name: str(value) for name, value in variables.items() if _VARIABLE.search(str(name))})
    SECRETS.learn_settings({"args": target.get("args"), "extra": spec.get("extra")})


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


def secret_in(settings: Any, path: str = "", *, names: bool = True) -> str | None:
    """Where in nested settings the first value is that may be a secret, such as ``metadata.api_key``; None if none is.

    ``names``: whether the keys name settings. In a JSON schema's `properties` they name what a model is to write.
    """
    match settings:
        case str():
            return path if masked_text(settings) != settings else None
        case Mapping():
            for name, value in settings.items():
                here = f"{path}.{name}" if path else str(name)
                if names and is_secret(str(name)) and any(texts(value)):
                    return here
                if inner := secret_in(value, here, names=name != "properties"):
                    return inner
        case list() | tuple():
            for number, value in enumerate(settings):
                if inner := secret_in(value, f"{path}[{number}]", names=names):
                    return inner
    return None


def masked_variables(variables: Mapping[str, str]) -> dict[str, str]:
    """An environment with the values of secrets masked; any part of a name may tell a secret."""
    return {name: MASK if _VARIABLE.search(name) else masked_text(value) for name, value in variables.items()}


def without_credentials(text: str) -> str:
    """The text with user, password and query of every URL in it masked."""
    text = _CREDENTIALS.sub(f"://{MASK}@", text)
    return _QUERY.sub(lambda found: found[1] + _QUERY_VALUE.sub(rf"\1={MASK}", found[2]), text)


def _masked(value: Any) -> Any:
    match value:
        case str():
            return masked_text(value)
        case Mapping():
            return masked_settings(value)
        case list() | tuple():
            return [_masked(item) for item in value]
    return value

"""The form of requests: which fields they have, and how prompts are sent. Chosen by what the server says it is.

| fields | prompts of completions | beyond model, prompt, limit, temperature 0 and streaming |
|---|---|---|
| `vllm` | token ids | `min_tokens` and `ignore_eos` (forced lengths), `cache_salt`, `priority` |
| `openai` | text | nothing; a chat's limit is called `max_completion_tokens` |
| `plain` | text | nothing |

`auto` is `vllm` for a server that says it is vLLM, and `plain` for any other. `harness.run.trial` asks the server
whether it takes the form, and what it must do without.
"""

import re
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from tailgate.harness.config.run_spec import RunSpec
from tailgate.harness.targets.base import Identity
from tailgate.workloads.prompts.prompts import Mode

# Fields that vLLM has and OpenAI's API has not.
VENDOR: Final = ("min_tokens", "ignore_eos", "priority", "cache_salt")
# Those without which a request still means the same.
_DISPENSABLE: Final = ("temperature", "stream_options")
_UNKNOWN: Final = re.compile("unsupported|not supported|unknown|unrecogni|unexpected|forbid|not permitted|extra", re.I)
_WORDS: Final[dict[Mode, str]] = {"ids": "prompts as token ids", "text": "prompts as text", "chat": "chat messages"}


@dataclass(frozen=True)
class RequestForm:
    """How this run's requests look; `omitted` are fields that this server doesn't get."""

    fields: Literal["vllm", "openai", "plain"]
    prompt: Mode
    limit: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    omitted: tuple[str, ...] = ()

    @property
    def forces_lengths(self) -> bool:
        """Whether an answer can be held to its planned length."""
        return not {"min_tokens", "ignore_eos"} & set(self.omitted)

    @property
    def salts(self) -> bool:
        return "cache_salt" not in self.omitted

    @property
    def text(self) -> str:
        """The choice in words."""
        refused = sorted(set(self.omitted) - set(VENDOR)) if self.fields != "vllm" else list(self.omitted)
        without = f", without {', '.join(refused)}" if refused else ""
        return f"fields {self.fields}, {_WORDS[self.prompt]}, limit {self.limit}{without}"

    @property
    def facts(self) -> dict[str, Any]:
        """For the manifest."""
        return {"fields": self.fields, "prompt": self.prompt, "limit": self.limit, "omitted": list(self.omitted)}

    def without(self, names: set[str]) -> "RequestForm":
        return replace(self, omitted=tuple(dict.fromkeys([*self.omitted, *sorted(names)])))


def choose_form(spec: RunSpec, identity: Identity) -> RequestForm:
    """The form that spec and server ask for, before the server has seen a request."""
    target = spec.target
    fields = target.fields
    if fields == "auto":
        fields = "vllm" if identity.dialect == "vllm" else "plain"
    chat = target.endpoint == "chat"
    prompt: Mode = "chat"
    if not chat:
        # Random tokens have no other form than ids.
        ids = fields == "vllm" or spec.workload.content.kind == "random"
        prompt = target.prompt if target.prompt != "auto" else "ids" if ids else "text"
    limit = target.output_limit
    if limit == "auto":
        limit = "max_completion_tokens" if fields == "openai" and chat else "max_tokens"
    return RequestForm(fields, prompt, limit, () if fields == "vllm" else VENDOR)


def adapted(form: RequestForm, spec: RunSpec, refusal: str, tried: set[RequestForm]) -> RequestForm | None:
    """The next form to try after a server's `refusal` of this one; None if there is none that wasn't tried.

    What the refusal names goes first; then prompts as text, then a request without vLLM's fields. Fields that the spec
    asks for by name stay.
    """
    named = set(re.findall(r"\w+", refusal))
    free = spec.target.fields == "auto"
    ways: list[RequestForm] = []
    other: Literal["max_tokens", "max_completion_tokens"]
    other = "max_completion_tokens" if form.limit == "max_tokens" else "max_tokens"
    # "max_tokens must be at least 16" is no reason: under a name that a server ignores there would be no limit at all.
    misnamed = other in named or (form.limit in named and _UNKNOWN.search(refusal))
    if spec.target.output_limit == "auto" and misnamed:
        ways.append(replace(form, limit=other))
    ours = {name for name in (*_DISPENSABLE, *(VENDOR if free else ())) if name not in form.omitted}
    if named & ours:
        ways.insert(0, form.without(named & ours))
    if form.prompt == "ids" and spec.workload.content.kind != "replay":  # a log's prompts stay as they are
        ways.append(replace(form, prompt="text"))
    if free and form.fields == "vllm":
        ways.append(replace(form, fields="plain", omitted=VENDOR))
    return next((way for way in ways if way not in tried), None)


def what_it_means(form: RequestForm, spec: RunSpec, where: str) -> list[str]:
    """Notices about what such requests can't do that the spec asks for."""
    if spec.output != "forced" or form.forces_lengths or spec.workload.locustfile is not None:
        return []
    why = (
        f"target.fields is {form.fields}" if spec.target.fields != "auto" else "the server doesn't say that it is vLLM"
    )
    if form.fields == "vllm":
        why = "the server refuses them"
    return [
        f"{where}: requests have no ignore_eos and no min_tokens, because {why}. Planned output lengths are upper "
        "bounds: the model may end its answers before. If the server knows these fields, set target.fields: vllm "
        "(--fields vllm)"
    ]

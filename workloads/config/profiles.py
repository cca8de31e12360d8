"""Profiles: workloads that come with the package, each fitted to public data and naming its sources.

A profile is a YAML file of `title`, `about`, `sources` and `workload`; what a spec says itself takes precedence over
the profile. A profile file of one's own (`profile: ./mine.yaml`) is used in the same way.
"""

import difflib
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tailgate.workloads.common.errors import UserError
from tailgate.workloads.common.units import parse_rate
from tailgate.workloads.common.validation import Strict, explain, parse_yaml, read_yaml
from tailgate.workloads.config.classes import ClassSpec, RequestSpec
from tailgate.workloads.config.workload import WorkloadSpec

_OF_LOOP = ("arrivals", "users", "stages")


class Profile(Strict):
    """A workload with where it comes from. `facts` are figures of the source to compare with."""

    title: str
    about: str
    sources: tuple[str, ...]
    rule: str = ""
    facts: dict[str, Any] = {}
    workload: dict[str, Any]


def names() -> list[str]:
    folder = resources.files("tailgate.workloads").joinpath("profiles")
    return sorted(file.name.removesuffix(".yaml") for file in folder.iterdir() if file.name.endswith(".yaml"))


@cache
def load(name: str) -> Profile:
    """A built-in profile, or the one in a file (a name that ends in .yaml)."""
    if name.endswith((".yaml", ".yml")):
        content = read_yaml(Path(name))
    else:
        if name not in names():
            near = difflib.get_close_matches(name, names(), n=3, cutoff=0.4) or names()
            raise UserError(
                f"there is no profile {name!r}", where="workload.profile", remedy=f"Known profiles: {', '.join(near)}"
            )
        text = resources.files("tailgate.workloads").joinpath(f"profiles/{name}.yaml").read_text(encoding="utf-8")
        content = parse_yaml(text, name)
    try:
        return Profile.model_validate(content)
    except ValidationError as error:
        raise explain(error, name) from error


def workload(name: str) -> WorkloadSpec:
    return fill_in(WorkloadSpec(profile=name))


def fill_in(spec: WorkloadSpec) -> WorkloadSpec:
    """A spec in which nothing refers to a profile any more.

    What the spec says takes precedence over the profile. Within `arrivals` this holds key by key, unless the spec names
    a process: then the profile's shape of arrivals is left out and only its rate stays. A spec with users or stages
    takes no arrivals from the profile, and the other way round.
    """
    if spec.profile is None and all(class_spec.profile is None for class_spec in spec.classes.values()):
        return spec
    own = _given(spec)
    classes = {name: _filled_class(class_spec) for name, class_spec in spec.classes.items()}
    name = own.pop("profile", None)
    base = dict(load(name).workload) if name else {}
    if name and "profile" in base:
        base = _given(fill_in(_validated(base, name))) | {"based_on": None}
    if any(key in own for key in _OF_LOOP):
        for key in _OF_LOOP:
            if key not in own or key != "arrivals":
                base.pop(key, None)
    merged = base | own
    if "arrivals" in base and "arrivals" in own:
        merged["arrivals"] = _merged_arrivals(base["arrivals"], own["arrivals"])
    if "duration" in own or "requests" in own:
        merged = {k: v for k, v in merged.items() if k not in ("duration", "requests") or k in own}
    if classes:
        merged["classes"] = classes
    elif "classes" in merged:
        merged["classes"] = {
            key: _filled_class(ClassSpec.model_validate(class_spec)) for key, class_spec in merged["classes"].items()
        }
    if merged.get("arrivals") and "arrivals" in own:
        merged = with_rate_of_classes(merged)
    if name:
        merged["based_on"] = name
    return _validated(merged, f"profile {name}" if name else "workload")


def with_rate_of_classes(merged: dict[str, Any]) -> dict[str, Any]:
    """Where all classes have arrivals of their own, a rate for the whole is shared out among them."""
    class_specs = {key: ClassSpec.model_validate(class_spec) for key, class_spec in merged.get("classes", {}).items()}
    own = {key: class_spec.arrivals for key, class_spec in class_specs.items() if class_spec.arrivals is not None}
    rate = merged["arrivals"].get("rate")
    if not class_specs or len(own) < len(class_specs) or rate is None or set(merged["arrivals"]) > {"rate"}:
        return merged
    rates = {key: arrivals.mean_rate() or 0.0 for key, arrivals in own.items()}
    factor = parse_rate(rate) / sum(rates.values())
    scaled = {}
    for key, class_spec in merged["classes"].items():
        arrivals = dict(class_spec["arrivals"])
        if arrivals.get("stages"):
            return merged
        scaled[key] = {**class_spec, "arrivals": arrivals | {"rate": rates[key] * factor}}
    return {key: value for key, value in merged.items() if key != "arrivals"} | {"classes": scaled}


def _filled_class(class_spec: ClassSpec) -> dict[str, Any]:
    own = _given(class_spec)
    name = own.pop("profile", None)
    if name is None:
        return own
    profile = _given(workload(name))
    base = {key: value for key, value in profile.items() if key in RequestSpec.model_fields}
    if "arrivals" in own and "arrivals" in profile:
        own["arrivals"] = _merged_arrivals(profile["arrivals"], own["arrivals"])
    return base | own


def _merged_arrivals(base: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    if "process" in own:
        base = {key: value for key, value in base.items() if key == "rate"}
    merged = base | own
    if "stages" in own:
        merged.pop("rate", None)
    return merged


def _given(spec: Strict) -> dict[str, Any]:
    """The keys that were written, without those that have defaults."""
    return spec.model_dump(exclude_unset=True, by_alias=True)


def _validated(data: dict[str, Any], where: str) -> WorkloadSpec:
    try:
        return WorkloadSpec.model_validate(data)
    except ValidationError as error:
        raise explain(error, where) from error

"""From a spec's `target:` to the class that lives it."""

from harness.spec import RunSpec
from harness.targets.base import Target
from harness.targets.sim import SimTarget
from harness.targets.url import UrlTarget
from workloads.errors import UserError


def make_target(spec: RunSpec) -> Target:
    """The target of a spec.

    Raises:
        UserError: a kind that this version can't start.
    """
    target = spec.target
    match target.kind:
        case "url":
            return UrlTarget(target.all_urls)
        case "sim":
            assert target.sim is not None
            return SimTarget(target.sim, target.args, spec.seed)
        case kind:
            raise UserError(
                f"can't start a target of kind {kind!r} yet", where="target.kind", remedy="Start it and give its url."
            )

"""Loads a user's locustfile: its `LLMUser` classes, or why it can't be used, with its own traceback."""

import inspect
import sys
import traceback
from pathlib import Path

import locust
from locust import User
from locust.util.load_locustfile import is_shape_class, load_locustfile

from tailgate.loadgen.llm_user import LLMUser
from tailgate.workloads.common.errors import UserError
from tailgate.workloads.common.file_digest import file_digest
from tailgate.workloads.common.import_paths import user_first


def digest(path: Path) -> str:
    """A digest of the file's text, which master and workers must share. Raises a UserError if it can't be read."""
    try:
        return file_digest(path)
    except OSError as error:
        raise UserError(f"can't be read: {error.strerror}", where=str(path)) from error


def user_classes(path: Path, tags: list[str] | None, exclude_tags: list[str] | None) -> list[type[User]]:
    """The user classes of a locustfile, those with tasks left by the tags."""
    digest(path)
    user_first()
    try:
        classes, _shapes = load_locustfile(str(path.resolve()))
    except BaseException as error:  # noqa: BLE001 - a person's own code may raise anything, SystemExit included
        raise UserError(f"can't be imported:\n{_own_traceback(error, path)}", where=str(path)) from None
    others = sorted(name for name, kind in classes.items() if not issubclass(kind, LLMUser))
    if others:
        raise UserError(
            f"{', '.join(others)}: not an LLMUser, so its requests would not be measured",
            where=str(path),
            remedy="Derive it from tailgate.LLMUser, or give it weight = 0.",
        )
    usable = [kind for kind in classes.values() if kind.weight > 0 or kind.fixed_count > 0]
    if not usable:
        raise UserError(
            "has no user class",
            where=str(path),
            remedy="Write one: from tailgate import LLMUser, task; class Mine(LLMUser): ...",
        )
    with_tasks = [kind for kind in usable if _has_task(kind, tags, exclude_tags)]
    if not with_tasks:
        chosen = " ".join([*(f"--tag {t}" for t in tags or []), *(f"--exclude-tag {t}" for t in exclude_tags or [])])
        raise UserError(f"no user class has a task{f' with {chosen}' if chosen else ''}", where=str(path))
    return with_tasks


def ignored_parts(path: Path) -> list[str]:
    """The parts of an imported locustfile that plain `locust` heeds and a run of ours does not."""
    module = inspect.getmodulename(str(path))
    ignored = []
    shapes = [name for name, kind in vars(sys.modules[str(module)]).items() if is_shape_class(kind)]
    if shapes:
        ignored.append(f"{', '.join(shapes)} is ignored: say users or stages in the spec")
    listeners = [
        name
        for name, hook in vars(locust.events).items()
        if any(_written_in(handler, path) for handler in hook._handlers)
    ]
    if listeners:
        ignored.append(
            f"listeners of events.{', events.'.join(listeners)} are ignored: only plain `locust` fires these"
        )
    return ignored


def _written_in(handler: object, path: Path) -> bool:
    code = getattr(handler, "__code__", None)
    return code is not None and Path(code.co_filename) == path.resolve()


def _has_task(kind: type[User], tags: list[str] | None, exclude_tags: list[str] | None) -> bool:
    from locust.user.task import filter_tasks_by_tags

    filter_tasks_by_tags(kind, set(tags) if tags else None, set(exclude_tags) if exclude_tags else None)
    return bool(kind.tasks)


def _own_traceback(error: BaseException, path: Path) -> str:
    """The traceback from the user's file on, without the frames of ours that led there."""
    frames = error.__traceback__
    own = str(path.resolve())
    while frames is not None and frames.tb_frame.f_code.co_filename != own:
        frames = frames.tb_next
    lines = traceback.format_exception(type(error), error, frames, chain=False)
    return "".join(lines).rstrip()

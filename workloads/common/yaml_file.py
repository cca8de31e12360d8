"""YAML as people write it: a key that stands twice is an error, and errors name the line."""

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from tailgate.workloads.common.errors import UserError


class _Loader(yaml.SafeLoader):
    """PyYAML takes the last of equal keys without a word: an objective would be gone."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable) and key in seen:
                said = f"the key {key!r} stands twice"
                raise yaml.constructor.ConstructorError(None, None, said, key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


def parse_yaml(text: str, where: str) -> Any:
    """What a YAML text says.

    Raises:
        UserError: it is not YAML, or a key stands twice in one mapping; line and column are named.
    """
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{where}:{mark.line + 1}:{mark.column + 1}" if mark else where
        raise UserError(f"is not YAML: {getattr(error, 'problem', None) or error}", where=place) from error


def read_yaml(path: Path, missing: str = "") -> Any:
    """What a YAML file says; ``missing`` is the remedy where there is none.

    Raises:
        UserError: it can't be read, or as `parse_yaml`.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        remedy = "" if path.exists() else missing
        raise UserError(f"can't be read: {error.strerror}", where=str(path), remedy=remedy) from error
    except UnicodeDecodeError as error:
        raise UserError(f"is not YAML: {error}", where=str(path)) from error
    return parse_yaml(text, str(path))

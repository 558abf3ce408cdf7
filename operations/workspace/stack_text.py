"""Change a committed YAML file and keep everything else in it, also comments and order."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from operations.errors import ProjectError
from operations.workspace import stack_file
from stack.settings.keys import key_of

if TYPE_CHECKING:
    from operations.workspace.workspace import Workspace


def edited(text: str, change: Callable[[Any], None], *, name: str = "The stack file") -> str:
    """Return the text of a stack file, changed. name: the file's.

    change: gets its configuration, a mapping that it writes to; it is called twice, with two forms of the mapping.
    Raises ProjectError where the text would not say what was wanted: an anchor of YAML gives two keys one value.
    """

    def of_document(document: Any) -> None:
        config = document.get("config")
        if not config:
            config = document["config"] = type(document)()
        change(config)

    wanted = _apart(stack_file.load_text(text, name))
    of_document(wanted)
    try:
        written = edited_whole(text, of_document, name=name)
        same = _apart(stack_file.load_text(written, name)) == wanted
    except KeyError:  # a key that comes by a merge (`<<: *own`) cannot be removed
        same = False
    if not same:
        raise ProjectError(_shared(text, name))
    return written


def _apart(value: Any) -> Any:
    """Return a value in which no two keys have one and the same mapping or list."""
    if isinstance(value, dict):
        return {key: _apart(one) for key, one in value.items()}
    return [_apart(one) for one in value] if isinstance(value, list) else value


def _shared(text: str, name: str) -> str:
    import yaml  # noqa: PLC0415 - as below

    events = yaml.parse(text, yaml.SafeLoader)
    used = {str(event.anchor) for event in events if isinstance(event, yaml.AliasEvent)}
    if not used:
        return f"{name} cannot be changed so that it says what was asked for. Change it yourself. Nothing was changed."
    anchors = ", ".join(f"&{anchor}" for anchor in sorted(used))
    aliases = ", ".join(f"*{anchor}" for anchor in sorted(used))
    return (
        f"{name} gives several keys one value, by {anchors}: what is written for one of them would count for all. "
        f"Write the value out in place of {aliases}, then type this again. Nothing was changed."
    )


def edited_whole(text: str, change: Callable[[Any], None], *, name: str = "The stack file") -> str:
    """Return the text of a YAML file, changed. change: gets its mapping, which it writes to. name: the file's.

    Raises ProjectError for what ruamel.yaml refuses, also where PyYAML reads it: a key that is there twice.
    """
    from ruamel.yaml import YAML  # noqa: PLC0415 - few commands write a committed file
    from ruamel.yaml.comments import CommentedMap  # noqa: PLC0415 - as above
    from ruamel.yaml.error import MarkedYAMLError  # noqa: PLC0415 - as above

    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096
    yaml.indent(mapping=2, sequence=4, offset=2)
    try:
        document = yaml.load(text) or CommentedMap()
    except MarkedYAMLError as error:
        # ruamel.yaml shows the values beside a key that is there twice.
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ProjectError(f"{name}{line}: {str(error.problem).partition(' with value')[0]}.") from None
    change(document)
    written = io.StringIO()
    yaml.dump(document, written)
    return written.getvalue()


def section(config: Any, name: str) -> Any:
    """Return the mapping `name` of the configuration, made where there is none; a key may be without its namespace."""
    key = name if name in config else key_of(name)
    if not config.get(key):
        config[key] = type(config)()
    return config[key]


def drop_empty(config: Any, name: str) -> None:
    """Remove the mapping `name` if it is empty."""
    for key in (name, key_of(name)):
        if key in config and not config[key]:
            config.pop(key)


def write(workspace: Workspace, change: Callable[[Any], None]) -> None:
    """Change the committed stack file of an environment atomically. change: as for `edited`."""
    path = workspace.committed_file
    text = edited(path.read_text(encoding="utf-8"), change, name=path.name)
    stack_file.write(path, text, mode=path.stat().st_mode & 0o777)

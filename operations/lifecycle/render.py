"""Every configuration file of an environment as it would be mounted, the secrets' names in place of the secrets."""

from __future__ import annotations

from pathlib import Path

from operations.errors import ProjectError
from stack.catalogue import specs
from stack.settings.environment import Environment
from stack.spec.files import Template

# Lists what an earlier call wrote, so that only that is ever removed.
MARKER = ".made-by-samokoder-render"


def files(environment: Environment) -> dict[str, str]:
    """Return `<part>/<path>` -> text of all files of all parts, also of those that are not available on this host."""
    settings = environment.settings.model_copy(update={"unavailable": []})
    everywhere = environment.model_copy(update={"settings": settings})
    return {
        f"{spec.part}/{path}": _text(content)
        for spec in specs(everywhere)
        for path, content in sorted(spec.files.items())
    }


def _text(content: str | Template) -> str:
    return content if isinstance(content, str) else content.render(*(f"<{name}>" for name in content.needs))


def write(environment: Environment, folder: Path) -> list[Path]:
    """Write all files below `folder` and return them. What an earlier call wrote there is removed.

    Raises ProjectError for a folder with something else in it.
    """
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MARKER).is_file():
        raise ProjectError(f"{folder} is not empty and was not made by `samokoder render`. Name another folder.")
    if folder.exists() and not folder.is_dir():
        raise ProjectError(f"{folder} is a file. Name a folder.")
    texts = files(environment)
    _remove_earlier(folder)
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, text in texts.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        written.append(file)
    (folder / MARKER).write_text("".join(f"{name}\n" for name in texts), encoding="utf-8")
    return written


def _remove_earlier(folder: Path) -> None:
    """Remove the files that an earlier call wrote into `folder`, and folders that are empty then."""
    if not (folder / MARKER).is_file():
        return
    inside = folder.resolve()
    for name in (folder / MARKER).read_text(encoding="utf-8").splitlines():
        file = (inside / name).resolve()
        if not file.is_relative_to(inside) or file == inside:
            continue  # not a name that this program wrote
        file.unlink(missing_ok=True)
        for parent in file.parents:
            if parent == inside or any(parent.iterdir() if parent.is_dir() else ()):
                break
            parent.rmdir()

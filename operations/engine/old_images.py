"""Old images of an environment: `up` removes those that it pulled or built itself and that no rollback needs.

An image counts as brought by an environment if the engine did not have it before the `up` that wanted it. This is noted
on the engine, where every clone and CI see it, in the labels of an empty volume. An image stays in case of doubt.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from docker.errors import APIError, DockerException, ImageNotFound, NotFound
from requests.exceptions import RequestException

from operations.engine.images import used_by_name
from stack.common.references import parse_reference, short_name
from stack.settings.environment import Environment

if TYPE_CHECKING:
    import docker

LABEL = "samokoder.images"
"""Label of the volume: the environment's name."""
NOTED = f"{LABEL}.noted"
"""Label of the same volume: the noted images as JSON, the newest last."""
_FOR_A_ROLLBACK = 2
_CONFLICT = 409
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Noted:
    """An image that an environment has wanted."""

    name: str
    """What it is for: `postgres`, `api`."""
    reference: str
    brought: bool
    """Whether the engine did not have it before."""


def note(client: docker.DockerClient, environment: Environment, say: Say) -> None:
    """Note the images that an environment wants, and which of them the engine lacks, before they are pulled or built.

    Also where all of them stay (`keepImages: 0`): another environment removes what nobody else has noted. They are
    noted as older than all images that have run, so that an `up` that fails makes no image the newest one. A failure is
    only reported.
    """
    try:
        own = _notes(client).get(environment.name, [])
        brought = {each.reference for each in own if each.brought}
        known = {(each.name, each.reference) for each in own}
        new = []
        for name, reference in wanted(environment).items():
            lacking = reference not in brought and _image(client, reference) is None
            if lacking or (name, reference) not in known:
                new.append(Noted(name=name, reference=reference, brought=lacking or reference in brought))
        if new:
            _write(client, environment, [*new, *own])
    except (DockerException, RequestException, ValueError) as error:
        say(f"Which images are brought now is not noted, so they will stay: {error}")


def tidy(client: docker.DockerClient, environment: Environment, say: Say) -> None:
    """Remove the images that an environment has brought, except the newest of each kind. A failure is only reported."""
    if not environment.settings.keep_images:
        return
    keep = max(environment.settings.keep_images, _FOR_A_ROLLBACK)
    try:
        notes = _notes(client)
        own = _newest_last(notes.get(environment.name, []), wanted(environment))
        old = _older(own, keep)
        others = {each.reference for name, noted in notes.items() if name != environment.name for each in noted}
        needed = others | {each.reference for each in own if each not in old}
        gone, freed = _remove(client, {each.reference for each in old if each.brought} - others, needed, say)
        stay = [each for each in own if each not in old or (each.brought and each.reference not in gone)]
        if stay != notes.get(environment.name):
            _write(client, environment, stay)
    except (DockerException, RequestException, ValueError) as error:
        say(f"Old images were left as they are: {error}")
        return
    if freed:
        names = ", ".join(sorted(map(short_name, freed)))
        say(f"Old images removed, up to {sum(freed.values()) / 1e9:.1f} GB: {names}. The newest {keep} of each stay")


def is_note(volume: str, prefix: str) -> bool:
    """Tell from a volume's name whether it is a note of this module. prefix: of the environment."""
    return re.fullmatch(rf"{re.escape(prefix)}-images-\d{{20}}", volume) is not None


def forget(client: docker.DockerClient, environment: Environment) -> None:
    """Remove the note of an environment that was removed; its images stay."""
    for volume in client.volumes.list(filters={"label": f"{LABEL}={environment.name}"}):
        volume.remove()


def wanted(environment: Environment) -> dict[str, str]:
    """Return purpose -> reference of the images that an environment pulls or builds."""
    from stack.parts.api.reference import reference_image  # noqa: PLC0415 - Pulumi's SDK: few commands need it
    from stack.parts.backup import spec as backup  # noqa: PLC0415 - as above

    used = used_by_name(environment)
    # An id without a name is a local image: a person made it, or it was built here from packages for all clones.
    found = {name: image for name, image in used.items() if parse_reference(image).repository}
    for base, own in (("python", reference_image(environment)), ("backup", backup.image(environment))):
        if base in used:
            found[own.title] = own.name
    return found


def _newest_last(noted: Sequence[Noted], now: dict[str, str]) -> list[Noted]:
    """Return the noted images, with those that are wanted now at the end as the newest of each kind."""
    brought = {each.reference for each in noted if each.brought}
    newest = [Noted(name=name, reference=image, brought=image in brought) for name, image in now.items()]
    again = {(each.name, each.reference) for each in newest}
    return [*(each for each in noted if (each.name, each.reference) not in again), *newest]


def _older(noted: Sequence[Noted], keep: int) -> list[Noted]:
    """Return the images that are not among the newest `keep` of any kind."""
    stay: set[str] = set()
    for name in {each.name for each in noted}:
        stay |= set(list(dict.fromkeys(each.reference for each in reversed(noted) if each.name == name))[:keep])
    return [each for each in noted if each.reference not in stay]


def _remove(
    client: docker.DockerClient, references: Collection[str], needed: Collection[str], say: Say
) -> tuple[set[str], dict[str, int]]:
    """Remove images that no container uses and that have no names except these references.

    needed: references that must stay, for a rollback or for other environments. Return the references that are gone,
    and reference -> bytes of the images that were removed now.
    """
    gone: set[str] = set()
    freed: dict[str, int] = {}
    if not references:
        return gone, freed
    containers = client.api.containers(all=True)
    in_use = {str(each[key]) for each in containers for key in ("ImageID", "Image")}
    # An image may be needed under another reference, such as another tag with the same digest.
    in_use |= {str(image["Id"]) for image in (_image(client, each) for each in needed) if image}
    for reference in sorted(references):
        image = _image(client, reference)
        if image is None:
            gone.add(reference)
            continue
        names = [*(image.get("RepoTags") or ()), *(image.get("RepoDigests") or ())]
        if image["Id"] in in_use or reference in in_use or not all(_is_one_of(name, references) for name in names):
            continue
        try:
            for name in names:
                _untag(client, name)
        except APIError as error:
            # A new container or a build uses it meanwhile: the next `up` tries again.
            if error.status_code != _CONFLICT:
                say(f"{short_name(reference)} is old and could not be removed: {error.explanation or error}")
            continue
        gone.add(reference)
        freed[reference] = int(image.get("Size") or 0)
    return gone, freed


def _untag(client: docker.DockerClient, name: str) -> None:
    """Remove a name, and with the last name the image; without force, and without its parent images."""
    try:
        client.api.remove_image(name, force=False, noprune=True)
    except ImageNotFound:
        return  # containerd's store removes the digest of a tag together with the tag


def _is_one_of(name: str, references: Iterable[str]) -> bool:
    """Tell whether a name on the engine (`repository:tag`, `repository@digest`) is that of one of these references.

    A tag counts only where a reference has this tag and no digest, because a person may have given the image a tag.
    """
    found = parse_reference(name)
    return any(
        _familiar(each.repository) == _familiar(found.repository)
        # A reference without a digest found the image by its tag, so the image's digest is that of the reference.
        and (each.digest in (None, found.digest) if found.digest else each.digest is None and each.tag == found.tag)
        for each in map(parse_reference, references)
    )


def _familiar(repository: str) -> str:
    """Return a repository as the engine shows it."""
    return repository.removeprefix("docker.io/").removeprefix("library/")


def _image(client: docker.DockerClient, reference: str) -> dict[str, Any] | None:
    try:
        return dict(client.images.get(reference).attrs)
    except ImageNotFound:
        return None


def _notes(client: docker.DockerClient) -> dict[str, list[Noted]]:
    """Return what each environment on the engine has noted. Raises ValueError for a note that cannot be read."""
    notes: dict[str, list[Noted]] = {}
    # An interrupted run may leave two volumes of an environment: the newer one sorts last and counts.
    for volume in sorted(client.volumes.list(filters={"label": LABEL}), key=lambda each: str(each.name)):
        labels = volume.attrs.get("Labels") or {}
        try:
            notes[labels[LABEL]] = [Noted(**each) for each in json.loads(labels[NOTED])]
        except (KeyError, TypeError, ValueError):
            raise ValueError(f"the volume {volume.name} says nothing that can be read") from None
    return notes


def _write(client: docker.DockerClient, environment: Environment, noted: Sequence[Noted]) -> None:
    """Replace the note. Labels cannot be changed, so a new volume is created before the old one is removed."""
    before = client.volumes.list(filters={"label": f"{LABEL}={environment.name}"})
    text = json.dumps([asdict(each) for each in noted], separators=(",", ":"))
    labels = {LABEL: environment.name, NOTED: text}
    client.volumes.create(f"{environment.prefix}-images-{time.time_ns():020d}", labels=labels)
    for volume in before:
        try:
            volume.remove()
        except NotFound:
            continue

"""What is in our own images, as CycloneDX: Python packages, Debian's packages, and the base images.

An image is read from the engine without being started: the package lists are in its files.
"""

from __future__ import annotations

import contextlib
import io
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from email import message_from_string
from email.message import Message
from pathlib import Path
from typing import TYPE_CHECKING

import docker
import docker.errors
from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from host.progress import Reporter
from operations.audit.licences import UnknownLicenceError, licence_of
from operations.errors import ProjectError
from stack.common.names import CARRIER_ENTRYPOINT
from stack.common.references import parse_reference
from stack.parts.api.reference import reference_image
from stack.parts.backup import spec as backup
from stack.settings.environment import Environment
from stack.spec.built_image import BuiltImage

if TYPE_CHECKING:
    from docker.models.containers import Container
    from docker.models.images import Image

_DPKG = "/var/lib/dpkg/status"
_OS_RELEASE = "/usr/lib/os-release"
_VENV = "/opt/venv/lib"
"""Where both Dockerfiles install Python packages."""


@dataclass(frozen=True, kw_only=True)
class Contents:
    """The package lists of an image."""

    packages: list[Message]
    """METADATA of each Python package."""
    dpkg: str
    """/var/lib/dpkg/status; empty for a base without it."""
    distribution: str
    """Distribution, as in a package URL: `debian-12`."""
    identifier: str
    """Id of the image: `sha256:…`."""


def write(environment: Environment, client: docker.DockerClient, folder: Path, reporter: Reporter) -> list[Path]:
    """Write `<image>.cdx.json` for each image of ours into a folder; return the files.

    An image that the engine lacks is built first. Raises ProjectError where it cannot be built.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for built in (reference_image(environment), backup.image(environment)):
        image = _ensure(client, built, reporter)
        with reporter.task(f"reading {built.name}"):
            document = render(built, read(client, image))
        path = folder / f"{built.title}.cdx.json"
        path.write_text(document, encoding="utf-8")
        written.append(path)
    return written


def read(client: docker.DockerClient, image: Image) -> Contents:
    """Read the package lists of an image, from a container that is made for it, never started, and removed."""
    container = client.containers.create(image, entrypoint=[CARRIER_ENTRYPOINT], network_disabled=True)
    try:
        metadata = [text for name, text in _files(container, _VENV) if name.endswith(".dist-info/METADATA")]
        dpkg = next((text for _, text in _files(container, _DPKG)), "")
        release = next((text for _, text in _files(container, _OS_RELEASE)), "")
    finally:
        container.remove(force=True, v=True)
    facts = dict(line.split("=", 1) for line in release.splitlines() if "=" in line)
    names = [facts.get(key, "").strip('"') for key in ("ID", "VERSION_ID")]
    return Contents(
        packages=[message_from_string(text) for text in metadata],
        dpkg=dpkg,
        distribution="-".join(name for name in names if name),
        identifier=str(image.id),
    )


def render(built: BuiltImage, contents: Contents) -> str:
    """Render CycloneDX 1.6 as JSON. Equal contents give equal components, in the same order."""
    repository, _, version = built.name.rpartition(":")
    bom = Bom()
    bom.metadata.component = Component(
        name=repository,
        version=version,
        type=ComponentType.CONTAINER,
        bom_ref=built.name,
        properties=[Property(name="samokoder:image-id", value=contents.identifier)],
    )
    components = [*_bases(built), *_python(contents), *_debian(contents)]
    for component in components:
        bom.components.add(component)
    bom.register_dependency(bom.metadata.component, components)
    return JsonV1Dot6(bom).output_as_string(indent=2) + "\n"


def _bases(built: BuiltImage) -> Iterator[Component]:
    """Yield the base images: their own publishers list what is in them beside packages."""
    for base in built.bases:
        reference = parse_reference(base.local or base.reference)
        digest = reference.digest or ""
        yield Component(
            name=reference.repository or base.title,
            version=reference.tag or digest,
            type=ComponentType.CONTAINER,
            bom_ref=f"base {base.argument} {base.local or base.reference}",
            purl=PackageURL(
                type="oci",
                name=(reference.repository or base.title).rpartition("/")[2].lower(),
                version=digest or None,
                qualifiers={"repository_url": reference.repository, "tag": reference.tag or ""},
            ),
        )


def _python(contents: Contents) -> Iterator[Component]:
    factory = LicenseFactory()
    for metadata in contents.packages:
        name, version = str(metadata["Name"]), str(metadata["Version"])
        try:
            licences = [factory.make_with_expression(licence_of(metadata))]
        except UnknownLicenceError:
            # An image of the team may hold any package; a test limits the licences of our own.
            licences = []
        purl = PackageURL(type="pypi", name=name.lower().replace("_", "-"), version=version)
        yield Component(
            name=name, version=version, type=ComponentType.LIBRARY, purl=purl, bom_ref=str(purl), licenses=licences
        )


def _debian(contents: Contents) -> Iterator[Component]:
    """Yield Debian's installed binary packages; a scanner finds the source package in the qualifier `upstream`."""
    for paragraph in contents.dpkg.split("\n\n"):
        fields = message_from_string(paragraph.strip() + "\n")
        if not str(fields["Status"] or "").endswith(" installed"):
            continue
        name, version = str(fields["Package"]), str(fields["Version"])
        source, _, its_version = str(fields["Source"] or "").partition(" ")
        upstream = f"{source}@{its_version.strip('()')}" if its_version else source
        qualifiers = {"arch": str(fields["Architecture"]), "distro": contents.distribution, "upstream": upstream}
        purl = PackageURL(
            type="deb",
            namespace=contents.distribution.partition("-")[0] or "debian",
            name=name,
            version=version,
            qualifiers={key: value for key, value in qualifiers.items() if value},
        )
        yield Component(name=name, version=version, type=ComponentType.LIBRARY, purl=purl, bom_ref=str(purl))


def _files(container: Container, path: str) -> Iterator[tuple[str, str]]:
    """Yield name and text of each file at a path of a container, of _VENV only METADATA; nothing without the path."""
    try:
        chunks, _ = container.get_archive(path)
    except docker.errors.NotFound:
        return
    # Read into memory, because the Docker SDK gives chunks and no file, and a virtual environment is some 100 MB.
    data = io.BytesIO(b"".join(chunks))
    with tarfile.open(fileobj=data) as archive:
        for member in archive:
            wanted = member.isfile() and (member.name.endswith("/METADATA") or path != _VENV)
            file = archive.extractfile(member) if wanted else None
            if file is not None:
                yield member.name, file.read().decode(errors="replace")


def _ensure(client: docker.DockerClient, built: BuiltImage, reporter: Reporter) -> Image:
    """Return the image; build it as `up` does where the engine lacks it."""
    with contextlib.suppress(docker.errors.ImageNotFound):
        return client.images.get(built.name)
    with reporter.task(f"building {built.name}"):
        try:
            for base in built.bases:
                if base.local:
                    client.images.get(base.local).tag(base.reference)
            image, _ = client.images.build(path=str(built.context), tag=built.name, buildargs=built.arguments, rm=True)
        except (docker.errors.BuildError, docker.errors.APIError) as error:
            raise ProjectError(f"{built.name} cannot be built here: {error}") from None
    return image

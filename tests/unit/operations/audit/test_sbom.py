"""The list of what is in our own images, checked against CycloneDX' own schema."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from email import message_from_string
from importlib.metadata import distribution
from types import SimpleNamespace
from typing import Any, cast

import docker
import docker.errors
import pytest
from packageurl import PackageURL
from rich.console import Console

from host.progress import Reporter
from operations.audit import sbom
from operations.audit.sbom import Contents, read, render
from stack.images import IMAGES
from stack.parts.api.reference import reference_image
from stack.parts.backup import spec as backup
from stack.settings.reading import read_environment
from stack.spec.built_image import BuiltImage


def mistake(text: str) -> object:
    """What CycloneDX' own schema says is wrong."""
    # Its import takes two seconds, which each process of every kind of tests would spend while it collects them.
    from cyclonedx.schema import SchemaVersion  # noqa: PLC0415
    from cyclonedx.validation.json import JsonStrictValidator  # noqa: PLC0415

    return JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)


#: As dpkg writes it: a package whose source has another name and version, one with the same, one that was removed.
DPKG = """Package: libssl3
Status: install ok installed
Maintainer: Debian <debian@example.org>
Architecture: amd64
Source: openssl (3.0.17-1~deb12u2)
Version: 3.0.17-1~deb12u3
Description: Secure Sockets Layer toolkit
 It has a second line.

Package: base-files
Status: install ok installed
Architecture: amd64
Version: 12.4+deb12u11

Package: gone
Status: deinstall ok config-files
Architecture: all
Version: 1
"""


def built() -> BuiltImage:
    return reference_image(read_environment("staging", {}))


def contents(**changed: Any) -> Contents:
    packages = [message_from_string(distribution(name).read_text("METADATA") or "") for name in ("pydantic", "docker")]
    given: dict[str, Any] = {
        "packages": packages,
        "dpkg": DPKG,
        "distribution": "debian-12",
        "identifier": "sha256:" + "ab" * 32,
    }
    return Contents(**given | changed)


def components(text: str) -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in json.loads(text)["components"]}


@pytest.mark.parametrize("image", [reference_image, backup.image])
def test_it_is_valid_cyclonedx(image: Any) -> None:
    text = render(image(read_environment("staging", {})), contents())
    assert mistake(text) is None, "no scanner would take it"


def test_an_image_of_a_host_without_a_registry_is_listed_too() -> None:
    local = read_environment("staging", {"samokoder:images": json.dumps({"python": "sha256:" + "1" * 64})})
    text = render(reference_image(local), contents())
    assert mistake(text) is None
    assert components(text)["reference-base"]["version"] == "sha256:" + "1" * 64, "an id is all that it has"


def test_python_packages_have_their_version_and_licence() -> None:
    found = components(render(built(), contents()))
    assert found["pydantic"]["purl"] == f"pkg:pypi/pydantic@{distribution('pydantic').version}"
    assert found["pydantic"]["licenses"][0]["expression"] == "MIT", "as the package says it"


def test_debians_packages_are_found_by_a_scanner_with_their_source() -> None:
    found = components(render(built(), contents()))
    purl = PackageURL.from_string(found["libssl3"]["purl"])
    assert (purl.type, purl.namespace, purl.version) == ("deb", "debian", "3.0.17-1~deb12u3")
    assert purl.qualifiers == {"arch": "amd64", "distro": "debian-12", "upstream": "openssl@3.0.17-1~deb12u2"}, (
        "Debian's advisories name the source package and its version"
    )
    assert "upstream" not in PackageURL.from_string(found["base-files"]["purl"]).qualifiers
    assert "gone" not in found, "what was removed is not in the image, though dpkg remembers it"


def test_the_images_that_it_stands_on_are_named_by_digest() -> None:
    found = components(render(backup.image(read_environment("staging", {})), contents()))
    for part in ("postgres", "redis"):
        digest = IMAGES[part].reference.partition("@")[2]
        assert PackageURL.from_string(found[part]["purl"]).version == digest, (
            "Redis' programs are copied from its image: no package list of ours has them"
        )


def test_the_image_itself_is_named_with_its_id() -> None:
    component = json.loads(render(built(), contents()))["metadata"]["component"]
    assert f"{component['name']}:{component['version']}" == built().name
    assert component["properties"] == [{"name": "samokoder:image-id", "value": "sha256:" + "ab" * 32}]


def test_a_package_that_does_not_say_its_licence_is_listed_all_the_same() -> None:
    nameless = message_from_string("Name: it\nVersion: 1\n")
    assert "licenses" not in components(render(built(), contents(packages=[nameless])))["it"]


class Engine:
    """An engine whose one image has these files; archives as the real one gives them, in chunks."""

    def __init__(self, files: dict[str, str]) -> None:
        self.files = files
        self.made: list[dict[str, Any]] = []
        self.removed = 0
        self.containers = SimpleNamespace(create=self.create)

    def create(self, _image: object, **options: Any) -> SimpleNamespace:
        self.made.append(options)
        return SimpleNamespace(get_archive=self.get_archive, remove=self.remove)

    def remove(self, **options: bool) -> None:
        assert options == {"force": True, "v": True}, "the nameless volumes of an image go with the container"
        self.removed += 1

    def get_archive(self, path: str) -> tuple[Iterator[bytes], dict[str, object]]:
        inside = {name: text for name, text in self.files.items() if name == path or name.startswith(f"{path}/")}
        if not inside:
            raise docker.errors.NotFound("no such path")
        data = io.BytesIO()
        with tarfile.open(fileobj=data, mode="w") as archive:
            for name, text in inside.items():
                member = tarfile.TarInfo(name.removeprefix(path.rpartition("/")[0]).lstrip("/"))
                member.size = len(text.encode())
                archive.addfile(member, io.BytesIO(text.encode()))
        raw = data.getvalue()
        return (raw[at : at + 1000] for at in range(0, len(raw), 1000)), {}


def read_from(engine: Engine) -> Contents:
    return read(cast("docker.DockerClient", engine), cast("Any", SimpleNamespace(id="sha256:1")))


def test_an_image_is_read_from_a_container_that_is_never_started_and_removed() -> None:
    engine = Engine(
        {
            "/var/lib/dpkg/status": DPKG,
            "/usr/lib/os-release": 'PRETTY_NAME="Debian"\nVERSION_ID="12"\nID=debian\n',
            "/opt/venv/lib/python3.13/site-packages/it-1.dist-info/METADATA": "Name: it\nVersion: 1\n",
            "/opt/venv/lib/python3.13/site-packages/it-1.dist-info/RECORD": "x",
            "/opt/venv/lib/python3.13/site-packages/other/METADATA": "Name: no\nVersion: 1\n",
        }
    )
    found = read_from(engine)
    assert [package["Name"] for package in found.packages] == ["it"], "only what is installed"
    assert (found.dpkg, found.distribution) == (DPKG, "debian-12")
    assert engine.made[0]["network_disabled"]
    assert engine.removed == 1, "whoever lists an image finds the engine as it was"


def test_a_container_is_removed_also_when_its_image_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine({})
    monkeypatch.setattr(engine, "get_archive", lambda _path: (_ for _ in ()).throw(docker.errors.APIError("gone")))
    with pytest.raises(docker.errors.APIError):
        read_from(engine)
    assert engine.removed == 1


def test_both_of_our_images_are_listed_one_file_each(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sbom, "_ensure", lambda *_: SimpleNamespace(id="sha256:1"))
    reporter = Reporter(Console(file=io.StringIO()))
    client = cast("docker.DockerClient", Engine({"/var/lib/dpkg/status": DPKG}))
    written = sbom.write(read_environment("staging", {}), client, tmp_path / "new", reporter)
    assert [path.name for path in written] == ["reference-app.cdx.json", "backup-server.cdx.json"]
    assert all("libssl3" in path.read_text() for path in written)

from __future__ import annotations

import pytest

from tests import goldens
from tests.recording import CASES, record_case

WHY = (
    "The identity of a resource changed: its type, logical name, parent or name on the engine. To Pulumi that is "
    "another resource: the old one is DELETED. A renamed data volume is an empty database, a renamed secret is a new "
    "password for old data. Keep the name, or give the resource an alias (`pulumi.ResourceOptions(aliases=…)`) and "
    "see in `pulumi preview` that nothing is replaced."
)


def test_no_resource_of_staging_or_prod_changed_its_identity() -> None:
    texts = {
        f"{case}.txt": "".join(f"{resource.identity}\n" for resource in record_case(case).resources)
        for case in ("staging", "prod")
    }
    goldens.compare("resources", texts, WHY)


@pytest.mark.parametrize("case", CASES)
def test_every_name_on_the_engine_carries_the_environment(case: str) -> None:
    recording = record_case(case)
    prefix = f"samokoder-{recording.environment.name}-"
    names = [
        str(resource.inputs["name"])
        for resource in recording.resources
        if resource.type.startswith("docker:") and "remoteImage" not in resource.type
    ]
    assert names, "the stack made nothing on the engine"
    strangers = [name for name in names if not name.startswith(prefix)]
    assert not strangers, f"without the environment in its name, two environments on one engine clash: {strangers}"


@pytest.mark.parametrize("case", CASES)
def test_every_name_on_the_engine_is_taken_once(case: str) -> None:
    taken: dict[tuple[str, object], str] = {}
    for resource in record_case(case).resources:
        if not resource.type.startswith("docker:"):
            continue
        key = (resource.type, resource.inputs["name"])
        assert key not in taken, f"{resource.name} and {taken[key]} both want {key}: the mocks let it pass, Docker not"
        taken[key] = resource.name


@pytest.mark.parametrize("case", CASES)
def test_every_resource_has_a_parent_but_the_stack_itself(case: str) -> None:
    orphans = [r.name for r in record_case(case).resources if not r.parent and r.type != "pulumi:pulumi:Stack"]
    assert not orphans, f"a resource without a parent is in no component and loses its provider: {orphans}"

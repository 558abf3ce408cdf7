"""A stack file that lacks a rotation which the state has is refused, with what to do."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from operations.errors import ProjectError
from operations.rotation import plan, rotate
from operations.workspace import generations, pulumi_state
from operations.workspace.generations import RotationStep, may_follow
from operations.workspace.workspace import Workspace
from stack.settings.rotation import Phase
from stack.spec.rotation import IN_USE, PHASES, SLOTTED, label, slots_of
from tests.recording import GENERATED, environment_of, record, secret_value

FILE = "Pulumi.staging.yaml"


def state(secret: str, generation: int, phase: Phase = "", *, notes_phases: bool = True) -> dict[str, Any]:
    """The state after an `up` of this step."""
    slots = slots_of(secret, generation, phase) if secret in SLOTTED else None
    passwords = [
        {
            "type": "random:index/randomPassword:RandomPassword",
            "urn": f"u::secret-{label(slot)}",
            "inputs": {"keepers": {"generation": str(each)}},
        }
        for slot, each in (slots.generations if slots else {secret: generation}).items()
    ]
    outputs: dict[str, Any] = {IN_USE: {label(secret): label(slots.in_use)} if slots else {}}
    if notes_phases:
        outputs[PHASES] = {label(secret): phase} if phase else {}
    component = {"type": "samokoder:platform:Secrets", "urn": "u::secret", "outputs": outputs}
    return {"resources": [component, *passwords]}


def refused(deployment: dict[str, Any], *, by_rotate: bool = False, **config: Any) -> str:
    """What is said where a stack file with this configuration meets the state; empty: it goes on."""
    try:
        generations.refuse_undoing(environment_of("staging", config), deployment, file=FILE, by_rotate=by_rotate)
    except ProjectError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("secret", ["postgresApp", "redisApp", "secretKey", "grafanaAdmin", "postgresExporter"])
def test_a_stack_file_that_lacks_a_rotation_is_refused_and_says_what_to_write(secret: str) -> None:
    name = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in secret)
    said = refused(state(name, 2))
    assert label(name) in said, "the role in use would be locked, and its sessions ended, while all replicas use it"
    assert f"samokoder:rotation.{secret}: 2" in said, "the line that goes on from what is there"
    assert f"make rotate SECRET={label(name)}" in said, "going back is a rotation too: the old value may have leaked"
    assert not refused(state(name, 2), rotation={secret: 2}), "and that line is taken"


def test_several_lost_rotations_are_told_at_once() -> None:
    there = state("postgres_app", 2)
    there["resources"] += state("redis_exporter", 5)["resources"][1:]
    said = refused(there)
    assert "postgres-app" in said
    assert "redis-exporter: generation 5" in said


def test_a_rotation_that_was_cut_off_after_its_up_goes_on_and_an_up_with_the_step_before_is_taken() -> None:
    there = state("postgres_app", 2, "prepare")
    assert not refused(there), "nobody uses the second value yet"
    assert not refused(there, rotation={"postgresApp": 2}, rotating={"postgresApp": "prepare"})
    assert not refused(there, rotation={"postgresApp": 2}, rotating={"postgresApp": "overlap"})
    assert not refused(state("postgres_app", 2, "overlap"), rotation={"postgresApp": 2}), "the last step"


def test_a_value_that_was_withdrawn_is_not_made_good_again() -> None:
    said = refused(state("secret_key", 2), rotation={"secretKey": 2}, rotating={"secretKey": "overlap"})
    assert "secret-key" in said, "an older commit would have the old, perhaps leaked, key verify again"


def test_grafana_may_have_taken_its_new_password_so_that_one_is_not_thrown_away() -> None:
    said = refused(state("grafana_admin", 2, "prepare"))
    assert "samokoder:rotating.grafanaAdmin: prepare" in said, "Grafana would keep a password that nobody knows"


def test_a_rotation_whose_phase_was_lost_in_a_merge_is_refused_and_can_go_on_or_be_given_up() -> None:
    for secret, field in (("redis_app", "redisApp"), ("postgres_app", "postgresApp"), ("secret_key", "secretKey")):
        there = state(secret, 3, "prepare")
        said = refused(there, rotation={field: 3})
        assert f"make rotate SECRET={label(secret)}" in said, "all replicas use the second value, which would be locked"
        assert f"write samokoder:rotation.{field}: 3 and samokoder:rotating.{field}: prepare" in said
        assert not refused(there, rotation={field: 3}, rotating={field: "prepare"}), "and that line is taken"
        assert f"at the price of errors: samokoder:rotation.{field}: 4\n    So also after an emergency" in said
        assert not refused(there, rotation={field: 4}), "so who wrote 3 by hand, and was cut off, has a way on"
        assert f"To give the rotation up: samokoder:rotation.{field}: 2" in said
        assert not refused(there, rotation={field: 2}), "and that one too, as for a rotation whose first `up` failed"


def test_grafana_has_no_step_by_hand_because_only_a_rotation_hands_it_the_value() -> None:
    two: dict[str, Any] = {"rotation": {"grafanaAdmin": 2}}
    said = refused(state("grafana_admin", 1), **two)
    assert "write samokoder:rotation.grafanaAdmin: 1, then make rotate SECRET=grafana-admin" in said
    assert "at the price of errors" not in said, "the state would call a password in use that Grafana never got"
    said = refused(state("grafana_admin", 2, "prepare"), **two)
    assert "rotating.grafanaAdmin: prepare, then make rotate SECRET=grafana-admin" in said
    assert refused(state("grafana_admin", 2, "prepare"), **two, rotating={"grafanaAdmin": "overlap"})
    assert not refused(state("grafana_admin", 2, "prepare"), by_rotate=True, **two), "its last step"
    assert refused(state("grafana_admin", 1), by_rotate=True, **two), "no step of a rotation"


def test_a_step_is_a_rotations_own_where_the_stack_file_says_that_grafana_is_prepared(tmp_path: Path) -> None:
    workspace = Workspace(stack_files=tmp_path)
    for step, own in (
        (RotationStep(generation=2, phase="prepare"), True),
        (RotationStep(generation=2, phase=""), False),
    ):
        workspace.committed_file.write_text(rotate.write("config: {}\n", "grafana_admin", step), encoding="utf-8")
        last = plan.at(workspace, "grafana_admin", RotationStep(generation=2, phase=""))
        assert generations.is_handed_over(last) is own


def test_a_step_that_is_written_as_text_is_refused_in_words(tmp_path: Path) -> None:
    workspace = Workspace(stack_files=tmp_path)
    workspace.committed_file.write_text('config:\n  samokoder:rotating: \'{"redisApp": "prepare"}\'\n')
    with pytest.raises(ProjectError, match="samokoder:rotating is written as text: write it as a mapping"):
        generations.is_handed_over(workspace)


def test_more_than_one_step_at_once_is_refused_and_the_emergency_exit_is_not() -> None:
    assert "make rotate" in refused(state("redis_app", 1), rotation={"redisApp": 3}), "no such generation is there yet"
    said = refused(state("redis_app", 1), rotation={"redisApp": 2}, rotating={"redisApp": "overlap"})
    assert "redis-app" in said, "replicas would use a value that the server does not take yet"
    for phase in ("", "prepare", "overlap"):
        assert not refused(state("redis_app", 2, phase), rotation={"redisApp": 3}), "documented for a leaked value"


def test_the_command_that_a_refusal_names_is_not_refused_in_its_turn() -> None:
    """Two people with files that differ meet in a rotation that was cut off."""
    secret, told = "redis_app", 0
    possible = [step for step in STEPS if step.generation > 1 or not step.phase]
    for there, written in itertools.product(possible, possible):
        by_rotate = plan.left(secret, written, [there])[0]
        for wanted in {written, by_rotate}:
            config: dict[str, Any] = {
                "rotation": {"redisApp": wanted.generation},
                "rotating": {"redisApp": wanted.phase},
            }
            _, is_ahead, said = refused(state(secret, there.generation, there.phase), **config).partition(
                "The next step is "
            )
            if is_ahead:
                told += 1
                file = there if said.startswith("write ") else written
                then = plan.left(secret, file, [there])[0]
                assert may_follow(secret, there, then), f"{there} is there, the file says {written}: a dead end"
    assert told > 10, "nothing was compared"


def test_a_state_from_before_phases_were_noted_is_taken_for_either() -> None:
    there = state("redis_app", 2, "overlap", notes_phases=False)
    for phase in ("", "overlap"):
        assert not refused(there, rotation={"redisApp": 2}, rotating={"redisApp": phase})
    assert refused(there), "but not for one that was not rotated"


def test_a_secret_that_is_configured_or_not_there_yet_is_nobodys_rotation() -> None:
    assert not refused({"resources": []}, rotation={"postgresApp": 7}), "a new environment"
    own = secret_value("own", 86)
    assert not refused(state("secret_key", 2), secretKey=own), "kept_secrets tells where it takes another one's place"


def test_a_key_that_opens_what_is_kept_is_refused_at_any_other_generation_also_where_it_is_not_protected() -> None:
    for there, wanted in ((1, 2), (2, 1), (1, 3)):
        said = refused(state("app_secret_key", there), rotation={"appSecretKey": wanted})
        assert "app-secret-key" in said, "the state of an earlier version does not protect it: Pulumi would destroy it"
        assert f"samokoder:rotation.appSecretKey: {there}" in said, "the line that keeps the key"
        assert "make rotate" not in said, "this one is never rotated"
    assert not refused(state("app_secret_key", 2), rotation={"appSecretKey": 2})
    assert not refused({"resources": []}, rotation={"appSecretKey": 2}), "a new environment"


def test_a_generated_key_is_not_lost_behind_a_configured_one() -> None:
    own = secret_value("own", 86)
    assert refused(state("app_secret_key", 2), appSecretKey=own), "what was encrypted before is under the generated one"
    # Which of the two is used is refused elsewhere: tests/unit/operations/workspace/test_kept_secrets.py.
    assert not refused(state("app_secret_key", 1), appSecretKey=own)


STEPS = [
    RotationStep(generation=generation, phase=phase) for generation in (1, 2, 3) for phase in ("", "prepare", "overlap")
]


@pytest.mark.parametrize("secret", SLOTTED)
def test_no_step_but_the_emergency_exit_withdraws_a_value_in_use_and_none_makes_a_withdrawn_one_good(
    secret: str,
) -> None:
    def accepted(step: RotationStep) -> dict[str, int]:
        slots = slots_of(secret, step.generation, step.phase)
        return {slot: slots.generations[slot] for slot in slots.accepted if slot in slots.generations}

    allowed = [(a, b) for a, b in itertools.product(STEPS, STEPS) if may_follow(secret, a, b)]
    assert len(allowed) > len(STEPS) + 6
    for there, wanted in allowed:
        before, after = accepted(there), accepted(wanted)
        newest = {value for value in after.values() if value not in before.values()}
        assert newest <= {there.generation + 1}, f"{there} to {wanted}: an old value would be good again"
        emergency = not wanted.phase and wanted.generation == there.generation + 1
        # Grafana has one password at a time, and `rotate` has handed it the new one before this step.
        emergency |= secret == generations.ADMIN and there.phase == "prepare" and not wanted.phase
        in_use = slots_of(secret, there.generation, there.phase).in_use
        if not emergency and in_use in before:
            assert after.get(in_use) == before[in_use], f"{there} to {wanted}: everybody is locked out"


def test_the_program_notes_what_the_comparison_reads() -> None:
    recording = record("staging", {"rotation": {"redisApp": 2}, "rotating": {"redisApp": "overlap"}})
    leaves = {leaf.path: leaf.value for leaf in recording.component_outputs}
    assert leaves["secret.phases.redis-app"] == "overlap"
    assert leaves["secret.inUse.redis-app"] == "redis-app-b"
    names = {resource.name: resource.inputs["keepers"] for resource in recording.of_type(GENERATED)}
    assert names["secret-redis-app-b"] == {"generation": "2"}
    assert pulumi_state.generations(state("redis_app", 2)) == {"redis-app": 1, "redis-app-b": 2}

"""The list of faults that `python -m tests.mutations` tries each night stays true."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import mutations
from tests.mutations import ROOT, Fault, ListError, faults

FOLDERS = ("stack", "operations", "backup_image", "offline", "host")
FAULTS = faults()


def test_each_fault_has_one_place_and_tests_that_are_there() -> None:
    wrong = []
    for fault in FAULTS:
        try:
            mutations.broken((ROOT / fault.file).read_text(encoding="utf-8"), fault)
        except ListError as error:
            wrong.append(str(error))
        wrong += [f"{fault}: there is no {test}" for test in fault.tests if not (ROOT / test).is_file()]
    assert not wrong, "a fault that cannot be tried proves nothing; write its line as it is now:\n" + "\n".join(wrong)


def test_the_list_is_long_enough_and_about_the_product() -> None:
    assert len(FAULTS) >= 60
    assert {fault.file.partition("/")[0] for fault in FAULTS} == set(FOLDERS)
    assert all(fault.why and fault.new != fault.old for fault in FAULTS)
    kept = [fault for fault in FAULTS if fault.survives]
    assert len(kept) <= len(FAULTS) * (1 - mutations.LEAST_SEEN), "a reason in the list is no test"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "part.py").write_text("def doubled(number):\n    return 2 * number\n")
    (tmp_path / "test_part.py").write_text("import part\ndef test_it():\n    assert part.doubled(3) == 6\n")
    return tmp_path


def fault(new: str, old: str = "2 * number") -> Fault:
    return Fault(file="part.py", old=old, new=new, why="it is wrong", tests=("test_part.py",))


def test_a_fault_is_seen_by_the_test_that_fails_and_one_that_no_test_sees_survives(tree: Path) -> None:
    whole = (tree / "part.py").read_text()
    assert mutations.seen_by(tree, fault("3 * number")) == "test_part.py::test_it"
    assert mutations.seen_by(tree, fault("number * 2")) == "", "nothing is wrong with it, so nothing fails"
    assert (tree / "part.py").read_text() == whole, "the next fault would be tried on top of this one"


@pytest.mark.parametrize(
    "wrong", [fault("x", old="3 * number"), fault("x", old="number"), fault("2 *")], ids=["gone", "twice", "no Python"]
)
def test_a_fault_that_cannot_be_tried_counts_as_none_that_is_seen(tree: Path, wrong: Fault) -> None:
    with pytest.raises(ListError):
        mutations.seen_by(tree, wrong)

"""What is said of a file that this user may not use."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from operations.errors import unusable


@pytest.mark.parametrize("folder", ["/", "/etc/nothing-here", "/var/lib/nothing-here"])
def test_no_folder_of_the_system_is_given_to_somebody(folder: str) -> None:
    said = unusable(PermissionError(errno.EACCES, os.strerror(errno.EACCES), f"{folder}/file"))
    assert "chown" not in said, "`chown -R` of /etc ends sudo itself"
    assert "name another folder" in said


def test_the_working_state_that_a_sudo_made_is_given_back(tmp_path: Path) -> None:
    file = tmp_path / ".samokoder" / "state"
    file.mkdir(parents=True)
    said = unusable(PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(file)))
    assert f'sudo chown -R "$(id -un)" {file}' in said


def test_a_temporary_file_that_could_not_be_made_is_told_by_its_folder(tmp_path: Path) -> None:
    error = PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(tmp_path / ".file.yaml.x1y2"))
    said = unusable(error)
    assert f"{tmp_path} belongs to" in said, "the error while an error is told would be a traceback"
    assert "x1y2 cannot be used: Permission denied." in said, "it was to be written"

"""What is said of a file that this user may not use."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from operations.errors import unusable


def test_a_temporary_file_that_could_not_be_made_is_told_by_its_folder(tmp_path: Path) -> None:
    error = PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(tmp_path / ".file.yaml.x1y2"))
    said = unusable(error)
    assert f"{tmp_path} belongs to" in said, "the error while an error is told would be a traceback"
    assert "x1y2 cannot be used: Permission denied." in said, "it was to be written"

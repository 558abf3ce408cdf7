"""The file rights in our own images, as the commands of their Dockerfiles leave them; without an engine."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.recording import ROOT

OTHERS_READ, OTHERS_ENTER = 0o004, 0o001


def _instructions(image: str) -> list[str]:
    text = (ROOT / image / "Dockerfile").read_text(encoding="utf-8")
    without = "".join(line for line in text.splitlines(keepends=True) if not line.lstrip().startswith("#"))
    return without.replace("\\\n", " ").splitlines()


@pytest.mark.parametrize(("image", "folder"), [("reference_app", "samokoder"), ("backup_image", "samokoder_backup")])
def test_a_clone_made_under_umask_077_gives_its_files_to_the_user_that_runs_in_the_image(
    tmp_path: Path, image: str, folder: str
) -> None:
    made: list[Path] = []
    instructions = _instructions(image)
    for instruction in instructions:
        match instruction.split():
            # Only root reads the list of packages, while the image is built.
            case ["COPY", source, target] if source != "requirements.txt" and not source.startswith("--"):
                made.append(tmp_path / source)
                if target.startswith("/"):
                    made[-1] = tmp_path / target.lstrip("/") / source
    assert tmp_path / folder in made
    for path in made:
        path.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / image / path.name).is_dir():
            (path / "inner").mkdir(parents=True)
            (path / "inner" / "module.py").touch()
        else:
            path.touch()
    everything = [each for path in made for each in (path, *path.rglob("*"))]
    for each in everything:
        each.chmod(0o700 if each.is_dir() or each.suffix != ".py" else 0o600)
    changes = re.findall(r"chmod [^&;]+", "\n".join(line for line in instructions if line.startswith("RUN")))
    for change in changes:
        subprocess.run(["sh", "-c", change.replace(" /", f" {tmp_path}/")], cwd=tmp_path, check=True)
    needed = {each: OTHERS_READ | (0 if each.suffix == ".py" else OTHERS_ENTER) for each in everything}
    closed = [str(each.relative_to(tmp_path)) for each, bits in needed.items() if each.stat().st_mode & bits != bits]
    assert not closed, "the part ends with `Permission denied` as it starts"

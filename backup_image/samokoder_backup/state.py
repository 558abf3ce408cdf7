"""What runs came to: kept beside the backups, so that a restart of the service forgets nothing."""

from __future__ import annotations

import json
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from samokoder_backup import clock, notes
from samokoder_backup import settings as at
from samokoder_backup.process import BackupError, exclusive, lacking, say, sealed, unsealed, write, write_instead

Known = dict[str, dict[str, Any]]

_FILE = FORGOTTEN = "state.json"
_STAMPS = {"finished", "success"}
_LOCK_SECONDS = 10.0
"""It is held for a moment; who holds it longer is not to stop the backups."""
_memory: Known = {}
"""What could not be written."""
_beside: Known = {}
"""What the file said of the same jobs then. Where it says something else now, another process has written it since."""
_guard = threading.Lock()


def read() -> Known:
    """Return what each job came to the last time, by its name; without stamps of a time to come."""
    return {
        name: {key: value for key, value in values.items() if not _ahead(key, value)} for name, values in _all().items()
    }


def ahead() -> list[str]:
    """Return the jobs with a stamp of a time to come."""
    return [name for name, values in _all().items() if any(_ahead(*each) for each in values.items())]


def _ahead(key: str, value: Any) -> bool:
    return key in _STAMPS and clock.ahead(float(value))


def _all(kept: Known | None = None) -> Known:
    found = dict(_kept()[0] if kept is None else kept)
    for name, values in list(_memory.items()):
        # Not by their stamps: the clock may have been ahead for one of them. A file that cannot be read has none.
        if found.get(name, {}) == _beside.get(name) or "finished" not in found.get(name, {}):
            found[name] = values
    return found


def _kept() -> tuple[Known, Exception | None]:
    """Return what the file says, and why it cannot be read."""
    text = ""
    try:
        text = notes.text(at.ROOT / _FILE)
        return {name: dict(values) for name, values in unsealed(text).items()}, None
    except FileNotFoundError:
        return {}, None
    except (OSError, TypeError, ValueError) as error:
        # What was bad is not known any more. This entry stays until a verification of everything has found it again.
        return {"verify": {"bad": {**_still_bad(text), FORGOTTEN: f"it cannot be read: {error}"}}}, error


def _still_bad(text: str) -> dict[str, str]:
    """Return what a changed text calls bad all the same: it is not taken for good meanwhile."""
    try:
        return {str(name): str(why) for name, why in json.loads(text)["verify"]["bad"].items()}
    except (AttributeError, KeyError, TypeError, ValueError):
        return {}


def bad() -> dict[str, str]:
    """Return what verification found bad, and why; a WAL file is called SERVER/FILE.

    FORGOTTEN is among it where nobody knows what else would be: then nothing may be removed for a newer backup.
    """
    found: dict[str, str] = read().get("verify", {}).get("bad", {})
    return found


def record(name: str, values: Mapping[str, Any]) -> None:
    """Add to what is known of a job.

    On a full disk, or where somebody holds the lock, this process still knows it, and so do its metrics. What cannot be
    read is kept beside the file that takes its place.
    """
    with _guard:
        try:
            with exclusive(at.ROOT / ".state.lock", brief=True, seconds=_LOCK_SECONDS):
                kept, error = _kept()
                if error and lacking(error):
                    raise error
                path, text = at.ROOT / _FILE, sealed(_remembered(name, values, kept))
                write_instead(path, text, at.ROOT, error) if error else write(path, text)
                _memory.clear()
                _beside.clear()
        except OSError as error:
            _remembered(name, values, _kept()[0])
            say(f"{_FILE} cannot be written: {error}")


def _remembered(name: str, values: Mapping[str, Any], kept: Known) -> Known:
    """Add to what this process knows of a job; return all that is known. kept: what the file says."""
    known = _all(kept)
    _beside[name] = kept.get(name, {})
    _memory[name] = {**known.get(name, {}), **values}
    return {**known, name: _memory[name]}


def attempt(name: str, work: Callable[[], Mapping[str, Any]]) -> bool:
    """Do a job under the lock and record what it came to; tell whether it went well."""
    started = time.time()
    values: dict[str, Any] = {"exit": 0}
    try:
        at.ROOT.mkdir(parents=True, exist_ok=True)
        with exclusive(at.ROOT / "lock"):
            started = time.time()
            values |= work()
    except Exception as error:  # whatever it is, it is one job's failure, and the next one is still to be done
        if not isinstance(error, (BackupError, OSError)):
            traceback.print_exc()
        say(f"{name}: {error}")
        values |= {"exit": 1, "error": str(error)}
    now = time.time()
    values |= {"finished": now, "seconds": now - started}
    if values["exit"] == 0:
        values |= {"success": now, "error": ""}
    record(name, values)
    return bool(values["exit"] == 0)

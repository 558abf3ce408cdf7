"""Checks and their results: one report for `smoke`, `doctor` and `check-image`."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Generic, TypeVar
from xml.etree import ElementTree as ET

from host.progress import Task
from operations.errors import FailedError, NotConfiguredError, UnavailableError

T = TypeVar("T")

_NOT_IN_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")


class Verdict(StrEnum):
    """How a check ended.

    Not available: the check could not decide, and `why` says the reason. Not configured: the settings do not ask for
    what it checks.
    """

    PASSED = "passed"
    FAILED = "failed"
    NOT_AVAILABLE = "not available"
    NOT_CONFIGURED = "not configured"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The result of one check."""

    check: str
    verdict: Verdict
    why: str
    seconds: float = 0.0
    """How long the check took; 0: not measured."""

    def as_json(self) -> dict[str, Any]:
        """Return the finding as a JSON object."""
        took = {"seconds": round(self.seconds, 3)} if self.seconds else {}
        return {"check": str(self.check), "verdict": self.verdict.value, "why": self.why, **took}


@dataclass(frozen=True, kw_only=True)
class Report:
    """The results of all checks of a command."""

    title: str
    about: Mapping[str, str]
    """What was checked, for programs: `{"environment": "staging"}`."""
    findings: Sequence[Finding]
    proposal: str = ""
    """Settings to paste, as YAML, with which fewer checks would fail; empty where there are none."""

    @property
    def failed(self) -> list[str]:
        """Names of the checks that failed."""
        return [each.check for each in self.findings if each.verdict is Verdict.FAILED]

    def without_failure(self, names: Collection[str], why: str) -> Report:
        """Return the report with these checks not available where they failed. why: text before what they found."""

        def judged(each: Finding) -> Finding:
            if each.verdict is not Verdict.FAILED or each.check not in names:
                return each
            return replace(each, verdict=Verdict.NOT_AVAILABLE, why=f"{why}: {each.why}")

        return replace(self, findings=[judged(each) for each in self.findings])

    @property
    def counts(self) -> dict[str, int]:
        """Number of findings, in total and for each verdict."""
        each = {verdict: sum(f.verdict is verdict for f in self.findings) for verdict in Verdict}
        return {"total": len(self.findings), **{verdict.value: number for verdict, number in each.items()}}

    def as_json(self) -> dict[str, Any]:
        """Return the report as a JSON object."""
        checks = [each.as_json() for each in self.findings]
        proposal = {"settings": self.proposal} if self.proposal else {}
        return {**self.about, "ok": not self.failed, "counts": self.counts, "checks": checks, **proposal}

    def junit(self) -> str:
        """Return the report as JUnit's XML, for CI systems; a check that is neither passed nor failed is skipped."""
        counts = self.counts
        suite = ET.Element(
            "testsuite",
            name=self.title,
            tests=str(counts["total"]),
            failures=str(counts[Verdict.FAILED]),
            skipped=str(counts[Verdict.NOT_AVAILABLE] + counts[Verdict.NOT_CONFIGURED]),
            errors="0",
            time=f"{sum(each.seconds for each in self.findings):.3f}",
        )
        skipped = dict.fromkeys((Verdict.NOT_AVAILABLE, Verdict.NOT_CONFIGURED), "skipped")
        elements = {Verdict.FAILED: "failure", **skipped}
        for each in self.findings:
            case = ET.SubElement(
                suite, "testcase", classname=self.title, name=str(each.check), time=f"{each.seconds:.3f}"
            )
            if element := elements.get(each.verdict):
                ET.SubElement(case, element, message=_NOT_IN_XML.sub("", each.why))
        ET.indent(suite)
        return ET.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


@dataclass(frozen=True, kw_only=True)
class Check:
    """One check. `ask` returns what is good, or raises FailedError, UnavailableError or NotConfiguredError."""

    name: str
    ask: Callable[[], str]


@dataclass
class Once(Generic[T]):
    """An answer that several checks need: the first one asks, and the others wait for it."""

    ask: Callable[[], T]
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _answer: list[T] = field(default_factory=list)
    _error: Exception | None = None

    def __call__(self) -> T:
        """Return the answer. Where the first call raised an error, each later call raises it too."""
        with self._lock:
            if self._error:
                raise self._error
            if not self._answer:
                try:
                    self._answer.append(self.ask())
                except Exception as error:
                    self._error = error
                    raise
            return self._answer[0]


def ask_all(checks: Sequence[Check], *, seconds: float, task: Task | None = None) -> list[Finding]:
    """Run all checks at once; return the findings in the order of the checks. seconds: how long each may take.

    task: shows the check that is waited for.
    """
    found: dict[int, Finding] = {}
    began = time.monotonic()

    def ask(number: int, check: Check) -> None:
        found[number] = _judged(check, began)

    # Daemon threads, because a check that hangs is reported as late, and must not keep the program from ending.
    threads = [threading.Thread(target=ask, args=each, daemon=True) for each in enumerate(checks)]
    for thread in threads:
        thread.start()
    for check, thread in zip(checks, threads, strict=True):
        if task:
            task.detail = check.name
        thread.join(max(0.0, began + seconds - time.monotonic()))
    answered = dict(found)  # answers that come later are ignored
    late = f"no answer within {seconds:g} s"
    return [
        answered.get(number, Finding(check=check.name, verdict=Verdict.FAILED, why=late, seconds=seconds))
        for number, check in enumerate(checks)
    ]


def _judged(check: Check, began: float) -> Finding:
    try:
        verdict, why = Verdict.PASSED, check.ask()
    except UnavailableError as error:
        verdict, why = Verdict.NOT_AVAILABLE, str(error)
    except NotConfiguredError as error:
        verdict, why = Verdict.NOT_CONFIGURED, str(error)
    except FailedError as error:
        verdict, why = Verdict.FAILED, str(error)
    except Exception as error:  # an unexpected error also means that the check has not passed
        text = " ".join(str(error).split())
        verdict, why = Verdict.FAILED, f"{type(error).__name__}: {text}" if text else type(error).__name__
    return Finding(check=check.name, verdict=verdict, why=why, seconds=time.monotonic() - began)

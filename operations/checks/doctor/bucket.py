"""Check of `doctor` on the bucket of the backups: what restic does there, tried with one small object.

Nothing else tells a wrong region, a missing right or a rule of the bucket that removes copies before `up`.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple
from urllib.parse import quote
from xml.etree import ElementTree as ET

import httpx

from operations.checks.doctor.asked import EnvironmentAsked, last_of
from operations.checks.doctor.outside import refuse_short
from operations.engine.redaction import in_every_form, without
from operations.errors import FailedError, NotConfiguredError, UnavailableError
from stack.common.names import PROJECT
from stack.settings.data import Offsite
from stack.settings.keys import key_of

_BODY = "written by samokoder doctor"
_OK, _NO_CONTENT, _ELSEWHERE, _BAD, _FORBIDDEN, _NOT_FOUND = 200, 204, (301, 307), 400, 403, 404
_NO_RULES = (_NOT_FOUND, 405, 501)
"""Statuses of a bucket without lifecycle rules, and of a server that has no such rules."""
_ARCHIVES = ("GLACIER", "DEEP_ARCHIVE")
"""Storage classes whose objects can be read only hours after somebody asked for them."""
_END = re.compile(r"\nsamokoder-status (\d{3})\n")


class _Request(NamedTuple):
    method: str
    path: str
    """Below the bucket, with its query, as the signature has it: sorted, and each name with an equals sign."""
    body: str = ""


class _Answer(NamedTuple):
    status: int
    text: str

    def has(self, name: str) -> str:
        """Return the content of an element of S3's error: Code, Message, Region, Endpoint; else nothing."""
        found = re.search(rf"<{name}>([^<]*)</{name}>", self.text)
        return found[1] if found else ""

    @property
    def why(self) -> str:
        """S3's own words for an error."""
        said = ": ".join(filter(None, (self.has("Code"), self.has("Message"))))
        return (said or " ".join(self.text.split()) or f"it answers {self.status}")[:200]


def ask_bucket(asked: EnvironmentAsked) -> str:
    """Write one small object beside the copies, read it, list it, read the bucket's rules; delete it for `keepDays`.

    The object has always the same name, since a good key may not delete objects.
    """
    offsite = asked.environment.offsite
    if offsite is None:
        raise NotConfiguredError(f"{key_of('backup', 'offsite')} is not set: the backups stay on that machine")
    refuse_short(httpx.URL(offsite.endpoint).host)
    prefix = offsite.prefix or f"{PROJECT}-{asked.environment.name}"
    path = f"/{quote(prefix)}/doctor"
    requests = [
        _Request("PUT", path, _BODY),
        _Request("GET", path),
        _Request("GET", f"?list-type=2&max-keys=1&prefix={quote(prefix, safe='')}%2F"),
        _Request("GET", "?lifecycle="),
        *([_Request("DELETE", path)] if offsite.keep_days else []),
    ]
    answers, problem = _answers(asked, offsite, requests)
    if not answers:
        raise FailedError(f"{offsite.endpoint} cannot be spoken to from the engine's host: {problem}")
    _judge_write(offsite, prefix, answers[0])
    if len(answers) != len(requests):
        raise UnavailableError(f"{offsite.endpoint} has answered {len(answers)} of {len(requests)} requests: {problem}")
    _, read, listed, rules, *deleted = answers
    for answer, what in ((read, "read (s3:GetObject)"), (listed, "list (s3:ListBucket)")):
        if answer.status != _OK:
            raise FailedError(f"the keys may write to {offsite.bucket}/{prefix}, but not {what}: {answer.why}")
    if deleted and deleted[0].status not in (_OK, _NO_CONTENT):
        key = key_of("backup", "offsite", "keep_days")
        text = f"{key} is {offsite.keep_days}, but the keys may not delete (s3:DeleteObject) in {prefix}"
        raise FailedError(f"{text}: {deleted[0].why}. Allow it, or set {key} to 0")
    return f"{offsite.endpoint.rstrip('/')}/{offsite.bucket}{path} was written{_judged_rules(offsite, prefix, rules)}"


def _answers(asked: EnvironmentAsked, offsite: Offsite, requests: Sequence[_Request]) -> tuple[list[_Answer], str]:
    """Send signed requests from the engine's host, with one curl; return the answers, and why there are no more."""
    keys = {name: asked.secret(name) for name in ("s3AccessKeyId", "s3SecretAccessKey")}
    each = []
    for number, request in enumerate(requests):
        content = request.body.encode()
        options = {
            "url": f"{offsite.endpoint.rstrip('/')}/{offsite.bucket}{request.path}",
            "user": ":".join(keys.values()),
            "aws-sigv4": f"aws:amz:{offsite.region}:s3",
            "request": request.method,
            "header": f"x-amz-content-sha256: {hashlib.sha256(content).hexdigest()}",
            "write-out": "\nsamokoder-status %{http_code}\n",
            # The first one also finds the name and the way; all of them together stay below the time of a check.
            "max-time": f"{asked.seconds / (10 if number else 2):g}",
        }
        lines = ["silent", "show-error", *(f"{name} = {_quoted(text)}" for name, text in options.items())]
        if content:
            # A bucket that locks its objects takes none without this sum, which restic sends too.
            digest = base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()
            lines += [f"data-binary = {_quoted(request.body)}", f"header = {_quoted(f'Content-MD5: {digest}')}"]
        each.append("\n".join(lines) + "\n")
    # curl reads the keys from standard input, because every user of the host can read a command line.
    done = asked.run("curl", "--fail-early", "--config", "-", given="next\n".join(each))
    texts = _END.split(done.stdout)
    pairs = zip(texts[::2], texts[1::2], strict=False)
    # Of a request without an answer curl prints the status 000.
    secrets = in_every_form(keys)  # some services repeat a key in what they answer
    return [_Answer(int(status), without(secrets, said)) for said, status in pairs if int(status)], last_of(done.stderr)


def _judge_write(offsite: Offsite, prefix: str, written: _Answer) -> None:
    """Raise FailedError unless the object was written."""
    key = key_of("backup", "offsite", "region")
    region = written.has("Region")
    if written.status in (*_ELSEWHERE, _BAD) and region and region != offsite.region:
        raise FailedError(f"the bucket {offsite.bucket} is in the region {region}: {key} is {offsite.region}")
    if written.status in _ELSEWHERE:
        where = written.has("Endpoint")
        hint = f" at {where}" if where else ""
        raise FailedError(f"the bucket {offsite.bucket} is elsewhere{hint}: set {key} and its endpoint")
    if written.status == _FORBIDDEN:
        what = f"refuses the keys, or their right to write to {offsite.bucket}/{prefix}"
        raise FailedError(f"{offsite.endpoint} {what}: {written.why}")
    if written.status == _NOT_FOUND:
        raise FailedError(f"{offsite.endpoint} has no bucket {offsite.bucket}")
    if written.status != _OK:
        raise FailedError(f"{offsite.endpoint} answers {written.status}: {written.why}")


def _judged_rules(offsite: Offsite, prefix: str, answer: _Answer) -> str:
    """Return what is to be added about the bucket's rules. Raises FailedError where one of them ends the copies."""
    if answer.status in _NO_RULES:
        return ""
    try:
        rules = ET.fromstring(answer.text) if answer.status == _OK else None  # noqa: S314 - of the chosen provider
    except ET.ParseError:
        rules = None
    known = rules is not None and rules.tag.endswith("LifecycleConfiguration")
    each = rules.findall("{*}Rule") if rules is not None and known else []
    # Google's rules have another form, without a status.
    if not known or not all(rule.findtext("{*}Status") for rule in each):
        return "; its rules cannot be read with these keys: see yourself that none removes objects by their age"
    for what in (found for rule in each for found in _ends_copies(rule, prefix)):
        raise FailedError(f"a rule of the bucket {offsite.bucket} {what}. Remove it: today's copy needs old objects")
    return ", and no rule of the bucket removes copies"


def _ends_copies(rule: ET.Element, prefix: str) -> Iterator[str]:
    """Yield, as the end of a sentence, what a lifecycle rule does to copies below `prefix`."""
    scope = next((each.text or "" for each in rule.findall(".//{*}Prefix")), "")
    own = f"{prefix}/"
    met = (own.startswith(scope) or scope.startswith(own)) and not scope.startswith((f"{own}locks", f"{own}doctor"))
    # Restic's objects have no tags, so a rule for a tag meets none of them.
    if rule.findtext("{*}Status") != "Enabled" or not met or rule.findall(".//{*}Tag"):
        return
    name = f"({rule.findtext('{*}ID') or 'without a name'})"
    for expiration in rule.findall("{*}Expiration"):
        if days := expiration.findtext("{*}Days"):
            yield f"{name} removes copies after {days} days"
        elif expiration.findtext("{*}Date"):
            yield f"{name} removes copies from a day on"
    for moved in rule.findall("{*}Transition"):
        if (archive := moved.findtext("{*}StorageClass")) in _ARCHIVES:
            yield f"{name} moves copies to {archive}, where nothing can be read at once"


def _quoted(text: str) -> str:
    """Quote a value for curl's configuration file."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'

"""The check of the off-site bucket before `up`: a missing bucket, right or region, and rules that end the copies.

curl is real, and so is the S3 server of the long test. The other answers are as AWS documents them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from operations.checks.doctor.bucket import ask_bucket
from operations.checks.report import Verdict
from operations.errors import FailedError
from operations.workspace.workspace import Workspace
from tests.backup_image.s3_server import ADDING, BUCKET, REGION, S3Server, built
from tests.serving import serving
from tests.unit.operations.checks.doctor.test_doctor import examined, make, verdict

__all__ = ["make"]

KEYS = {"s3AccessKeyId": "USER0123456789AB", "s3SecretAccessKey": '/+=#;"\\0123456789abcdef'}
PREFIX = "samokoder-staging"


def offsite(make: Callable[..., Workspace], endpoint: str, **more: Any) -> Workspace:
    settings = {"endpoint": endpoint, "bucket": BUCKET, "region": REGION, **more}
    return make(backup={"offsite": settings}, **{name: {"secure": "v1:x"} for name in KEYS})


def error(code: str, message: str = "as it says", more: str = "") -> str:
    return f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message>{more}</Error>"


def rules(*each: str) -> str:
    inside = "".join(f"<Rule>{rule}</Rule>" for rule in each)
    return f'<LifecycleConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{inside}</LifecycleConfiguration>'


def rule(action: str, *, scope: str = "", status: str = "Enabled") -> str:
    return f"<ID>old</ID><Filter>{scope}</Filter><Status>{status}</Status>{action}"


@contextmanager
def bucket(**answers: tuple[int, str]) -> Iterator[tuple[str, list[str]]]:
    """A server that answers as a bucket that is well, but for these; its address, and what it was asked."""
    asked: list[str] = []
    good = {"PUT": (200, ""), "GET": (200, ""), "LIST": (200, ""), "RULES": (404, error("None")), "DELETE": (204, "")}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_one(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"] or 0))
            path, _, query = self.path.partition("?")
            kind = "RULES" if query == "lifecycle=" else "LIST" if query else self.command
            asked.append(f"{self.command} {path}{'?' if query else ''}{query}")
            assert self.headers["Authorization"].startswith("AWS4-HMAC-SHA256 ")
            assert self.command != "PUT" or self.headers["Content-MD5"], "a bucket that locks objects wants it"
            status, text = {**good, **answers}[kind]
            if not status:
                self.close_connection = True
                return
            self.send_response(status)
            if status != 204:
                self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        do_GET = do_PUT = do_DELETE = handle_one  # noqa: N815 - names of the library

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with serving(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as server:
        yield f"http://127.0.0.1:{server.server_port}", asked


def found(make: Callable[..., Workspace], answers: Mapping[str, tuple[int, str]], **more: Any) -> tuple[Verdict, str]:
    """What the check says of a bucket with these answers."""
    with bucket(**answers) as (url, _), examined(offsite(make, url, **more), secrets=KEYS) as asked:
        one, said = verdict(lambda: ask_bucket(asked))
    assert KEYS["s3SecretAccessKey"] not in said
    return one, said


def test_a_bucket_that_is_well_passes_and_gets_one_object(make: Callable[..., Workspace]) -> None:
    with bucket() as (url, requests), examined(offsite(make, url), secrets=KEYS) as asked:
        assert ask_bucket(asked) == f"{url}/{BUCKET}/{PREFIX}/doctor was written"
    place = f"/{BUCKET}/{PREFIX}/doctor"
    listing = f"GET /{BUCKET}?list-type=2&max-keys=1&prefix={PREFIX}%2F"
    assert requests == [f"PUT {place}", f"GET {place}", listing, f"GET /{BUCKET}?lifecycle="], "nothing is deleted"


def test_the_right_to_delete_is_asked_for_only_where_old_copies_are_removed(make: Callable[..., Workspace]) -> None:
    with bucket() as (url, requests), examined(offsite(make, url, keepDays=90), secrets=KEYS) as asked:
        assert "was written" in ask_bucket(asked)
    assert requests[-1] == f"DELETE /{BUCKET}/{PREFIX}/doctor"
    refusal = (403, error("AccessDenied"))
    one, said = found(make, {"DELETE": refusal}, keepDays=90)
    assert one is Verdict.FAILED, "the first night would say so, or the hundredth"
    assert "may not delete (s3:DeleteObject)" in said
    assert "keepDays to 0" in said
    assert found(make, {"DELETE": refusal})[0] is Verdict.PASSED, "keys that cannot delete are the better ones"


@pytest.mark.parametrize(
    ("answers", "why"),
    [
        ({"PUT": (404, error("NoSuchBucket"))}, f"has no bucket {BUCKET}"),
        ({"PUT": (403, error("AccessDenied", "No."))}, "refuses the keys, or their right to write"),
        ({"PUT": (403, error("RetentionPolicyNotMet", "Kept."))}, "RetentionPolicyNotMet: Kept."),
        ({"PUT": (500, "oh")}, "answers 500: oh"),
        (
            {"PUT": (400, error("AuthorizationHeaderMalformed", more="<Region>eu-west-9</Region>"))},
            f"is in the region eu-west-9: samokoder:backup.offsite.region is {REGION}",
        ),
        (
            {"PUT": (301, error("PermanentRedirect", more="<Endpoint>copies.s3.example.org</Endpoint>"))},
            "is elsewhere at copies.s3.example.org",
        ),
        ({"GET": (403, error("AccessDenied"))}, "but not read (s3:GetObject)"),
        ({"LIST": (403, error("AccessDenied"))}, "but not list (s3:ListBucket)"),
    ],
)
def test_what_ends_the_first_copy_fails_before_it(
    make: Callable[..., Workspace], answers: dict[str, tuple[int, str]], why: str
) -> None:
    one, said = found(make, answers)
    assert one is Verdict.FAILED, said
    assert why in said


DAYS = "<Expiration><Days>30</Days></Expiration>"


@pytest.mark.parametrize(
    ("one", "why"),
    [
        (rule(DAYS), "(old) removes copies after 30 days"),
        (rule(DAYS, scope="<Prefix>samokoder</Prefix>"), "removes copies after 30 days"),
        (rule(DAYS, scope=f"<Prefix>{PREFIX}/data/</Prefix>"), "removes copies after 30 days"),
        (f"<Prefix/><Status>Enabled</Status>{DAYS}", "(without a name) removes copies after 30 days"),
        (rule("<Expiration><Date>2027-01-01T00:00:00Z</Date></Expiration>"), "removes copies from a day on"),
        (
            rule("<Transition><Days>1</Days><StorageClass>GLACIER</StorageClass></Transition>"),
            "moves copies to GLACIER",
        ),
    ],
)
def test_a_rule_that_takes_copies_away_fails(make: Callable[..., Workspace], one: str, why: str) -> None:
    found_, said = found(make, {"RULES": (200, rules(rule(DAYS, status="Disabled"), one))})
    assert found_ is Verdict.FAILED, "the copy is destroyed months later, and nobody is told"
    assert why in said


@pytest.mark.parametrize(
    "one",
    [
        rule(DAYS, scope=f"<Prefix>{PREFIX}/locks/</Prefix>"),
        rule(DAYS, scope=f"<Prefix>{PREFIX}/locks</Prefix>"),
        rule(DAYS, scope="<Prefix>logs/</Prefix>"),
        rule(DAYS, scope="<And><Prefix></Prefix><Tag><Key>a</Key><Value>b</Value></Tag></And>"),
        rule("<NoncurrentVersionExpiration><NoncurrentDays>30</NoncurrentDays></NoncurrentVersionExpiration>"),
        rule("<Expiration><ExpiredObjectDeleteMarker>true</ExpiredObjectDeleteMarker></Expiration>"),
        rule("<Transition><Days>1</Days><StorageClass>STANDARD_IA</StorageClass></Transition>"),
        rule("<AbortIncompleteMultipartUpload><DaysAfterInitiation>7</DaysAfterInitiation>"
             "</AbortIncompleteMultipartUpload>"),
    ],
)  # fmt: skip
def test_a_rule_that_leaves_the_copies_alone_passes(make: Callable[..., Workspace], one: str) -> None:
    found_, said = found(make, {"RULES": (200, rules(one))})
    assert found_ is Verdict.PASSED, said
    assert "no rule of the bucket removes copies" in said


OF_GOOGLE = rules("<Action><Delete/></Action><Condition><Age>30</Age></Condition>")


@pytest.mark.parametrize(
    "answer", [(403, error("AccessDenied")), (200, "<html>"), (200, "<ListBucketResult/>"), (200, OF_GOOGLE)]
)
def test_rules_that_cannot_be_read_are_left_to_people(make: Callable[..., Workspace], answer: tuple[int, str]) -> None:
    found_, said = found(make, {"RULES": answer})
    assert found_ is Verdict.PASSED, said
    assert "see yourself that none removes objects by their age" in said


def test_a_bucket_that_stops_answering_is_unknown_and_its_refusal_is_told_all_the_same(
    make: Callable[..., Workspace],
) -> None:
    for put, expected, why in (
        ((200, ""), Verdict.NOT_AVAILABLE, "has answered 1 of 4 requests"),
        ((403, error("AccessDenied")), Verdict.FAILED, "refuses the keys"),
    ):
        one, said = found(make, {"PUT": put, "GET": (0, "")})
        assert one is expected, said
        assert why in said


def test_a_bucket_that_is_out_of_reach_fails(make: Callable[..., Workspace]) -> None:
    with examined(offsite(make, "http://127.0.0.1:9"), secrets=KEYS) as asked:
        one, said = verdict(lambda: ask_bucket(asked))
    assert one is Verdict.FAILED, said
    assert "cannot be spoken to" in said


def test_a_name_that_only_the_hosts_search_domain_completes_fails_before_up(make: Callable[..., Workspace]) -> None:
    with (
        examined(offsite(make, "http://minio:9000"), secrets=KEYS) as asked,
        pytest.raises(FailedError, match="write the whole name of"),
    ):
        ask_bucket(asked)


@pytest.mark.long  # the server is built for those tests
def test_a_real_s3_server_is_judged_by_what_it_lets_its_user_do(make: Callable[..., Workspace], tmp_path: Path) -> None:
    server = S3Server(program=built(), folder=tmp_path / "s3", metadata=tmp_path / "s3-metadata")
    (tmp_path / "s3-metadata").mkdir()
    keys = {"s3AccessKeyId": server.access_key, "s3SecretAccessKey": server.secret_key}

    def said(secrets: Mapping[str, str] = keys, **more: Any) -> tuple[Verdict, str]:
        with examined(offsite(make, server.endpoint, **more), secrets=secrets) as asked:
            return verdict(lambda: ask_bucket(asked))

    server.start()
    try:
        assert said() == (Verdict.FAILED, f"{server.endpoint} has no bucket {BUCKET}")
        server.make_bucket()
        server.allow(all=ADDING)
        for _ in range(2):  # the same object again: nothing grows
            assert said()[0] is Verdict.PASSED, said()
        assert len([path for path in server.objects.rglob("*") if path.is_file()]) == 1
        # A folder with a character that a signature and an address write in another way.
        assert said(prefix="наши/копии")[0] is Verdict.PASSED, said(prefix="наши/копии")
        assert said(region="us-east-1") == (
            Verdict.FAILED,
            f"the bucket {BUCKET} is in the region {REGION}: samokoder:backup.offsite.region is us-east-1",
        )
        assert "may not delete" in said(keepDays=7)[1]
        server.allow(all=ADDING, locks=("s3:DeleteObject",))
        assert "may not delete" in said(keepDays=7)[1], "of locks alone it may"
        server.allow(all=(*ADDING, "s3:DeleteObject"))
        assert said(keepDays=7)[0] is Verdict.PASSED, said(keepDays=7)
        assert "refuses the keys" in said({**keys, "s3SecretAccessKey": "0123456789abcdef0123456789abcdef"})[1]
        server.allow(all=("s3:PutObject",))
        assert "but not read" in said()[1]
    finally:
        server.stop()

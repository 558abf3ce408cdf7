"""Registration and login."""

from __future__ import annotations

import contextlib
import json
import secrets
import time
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jwt
import pytest
from pydantic import ValidationError

from samokoder.schemas import Credentials

if TYPE_CHECKING:
    from tests.reference_app.conftest import Postgres, Service, Setup

Waiting = Callable[[str, Callable[[], object]], object]
PASSWORD = "correct horse battery"  # noqa: S105


def _somebody(api: Service) -> str:
    email = f"{uuid.uuid4().hex}@example.org"
    answer = api.post("/auth/register", json={"email": email, "password": PASSWORD})
    assert answer.status_code == 201, answer.text
    return email


def _attempts(api: Service) -> tuple[float, float]:
    success, failure = (api.metric(f'samokoder_auth_attempts_total{{result="{r}"}}') for r in ("success", "failure"))
    assert success is not None
    assert failure is not None
    return success, failure


# Letters that are more than one when they are lowered, what is no letter, and what is no character at all.
STRANGE = ["\u0130" * 131, "\u0130" * 241, "\u1e9e" * 240, "\u2126" * 240, "a\ud800", "\ufb03" * 200, "a" * 242, "\x7f"]


@pytest.mark.parametrize("local", STRANGE)
def test_what_is_checked_of_an_address_is_what_is_stored(local: str) -> None:
    try:
        email = Credentials.model_validate({"email": f"{local}@example.org", "password": PASSWORD}).email
    except ValidationError:
        return
    assert len(email) <= 254, "the database refuses it, and the answer is 500"
    assert email == email.lower()


def test_no_letter_of_unicode_makes_an_address_longer_than_the_database_takes() -> None:
    longer = [chr(code) for code in range(0x110000) if len(chr(code).lower()) > 1]
    assert longer, "then this looks for nothing"
    for letter in longer:
        for times in (120, 121, 242):
            with contextlib.suppress(ValidationError):
                made = Credentials.model_validate({"email": f"{letter * times}@example.org", "password": PASSWORD})
                assert len(made.email) <= 254


@pytest.mark.parametrize(
    "body",
    [
        {"email": "\u0130" * 131 + "@example.org", "password": PASSWORD},
        {"email": "a\ud800@example.org", "password": PASSWORD},
        {"email": "a@example.org", "password": PASSWORD, "\ud800": 1},
        {"email": float("nan"), "password": PASSWORD},
        {"email": float("inf"), "password": [PASSWORD]},
    ],
)
@pytest.mark.parametrize("path", ["/auth/register", "/auth/login", "/projects"])
def test_what_cannot_be_stored_or_written_is_refused_and_no_fault_of_the_server(
    api: Service, path: str, body: dict[str, Any]
) -> None:
    answer = api.post(path, content=json.dumps(body), headers={"content-type": "application/json"})
    assert answer.status_code == 422, answer.text


def test_who_registers_can_log_in_and_is_known_by_the_token(api: Service, postgres: Postgres) -> None:
    email = _somebody(api)
    success, failure = _attempts(api)
    answer = api.post("/auth/login", json={"email": f" {email.upper()} ", "password": PASSWORD})
    assert answer.status_code == 200, answer.text
    token = answer.json()
    assert (token["token_type"], token["expires_in"]) == ("bearer", 720 * 60)
    me = api.get("/auth/me", headers={"Authorization": f"Bearer {token['access_token']}"})
    assert me.json()["email"] == email, "the address is one, however it is written"
    assert "password" not in me.text
    assert _attempts(api) == (success + 1, failure)
    stored = postgres.ask(lambda c: c.fetchval("SELECT password_hash FROM users WHERE email = $1", email))
    assert stored.startswith("$argon2id$v=19$m=19456,t=2,p=1$"), "OWASP's least, in what the container has"
    assert PASSWORD not in stored


def test_who_leaves_is_gone_and_the_token_with_them(api: Service, postgres: Postgres) -> None:
    email = _somebody(api)
    token = api.post("/auth/login", json={"email": email, "password": PASSWORD}).json()["access_token"]
    headers = {"Authorization": f"Bearer {token}"}
    assert api.delete("/auth/me").status_code == 401, "nobody is removed without a token"
    assert api.delete("/auth/me", headers=headers).status_code == 204
    assert postgres.ask(lambda c: c.fetchval("SELECT count(*) FROM users WHERE email = $1", email)) == 0
    assert api.get("/auth/me", headers=headers).status_code == 401, "a token of nobody is worth nothing"
    assert api.post("/auth/register", json={"email": email, "password": PASSWORD}).status_code == 201


def test_a_wrong_password_and_an_unknown_user_get_the_same_answer_and_are_counted(api: Service) -> None:
    email = _somebody(api)
    success, failure = _attempts(api)
    wrong = api.post("/auth/login", json={"email": email, "password": "wrong horse battery"})
    unknown = api.post("/auth/login", json={"email": "nobody@example.org", "password": PASSWORD})
    assert wrong.status_code == unknown.status_code == 401
    assert wrong.json() == unknown.json(), "the answer must not tell who has an account"
    assert wrong.headers["www-authenticate"] == "Bearer"
    assert _attempts(api) == (success, failure + 2), "the alert on guessing counts these"


def test_the_time_of_the_answer_does_not_tell_who_has_an_account(api: Service) -> None:
    email = _somebody(api)

    with api.client() as client:

        def seconds(address: str) -> float:
            begun = time.perf_counter()
            client.post("/auth/login", json={"email": address, "password": "wrong horse battery"})
            return time.perf_counter() - begun

        pairs = [(seconds(email), seconds("nobody@example.org")) for _ in range(15)]
    known, unknown = (min(column) for column in zip(*pairs, strict=True))  # the least: what else runs only adds
    assert 0.6 < unknown / known < 1.7, f"an unknown user must cost a hash too: {known:.4f} s against {unknown:.4f} s"


def test_an_address_is_registered_once(api: Service) -> None:
    email = _somebody(api)
    errors = 'samokoder_db_errors_total{error_type="IntegrityError"}'
    before = api.metric(errors)
    again = api.post("/auth/register", json={"email": email.upper(), "password": PASSWORD})
    assert (again.status_code, again.json()["detail"]) == (409, "there is such a user already")
    assert api.metric(errors) == before, "a client's mistake is no error of the database"


@pytest.mark.parametrize(
    "body",
    [
        {"email": "no address", "password": PASSWORD},
        {"email": "a@b.c", "password": "hunter2-short"[:11]},
        {"email": "a@b.c", "password": "x" * 129},
        {"email": "a\0@b.c", "password": PASSWORD},
        {"email": "a@b.c", "password": PASSWORD, "admin": "yes"},
    ],
)
def test_wrong_credentials_are_refused_and_not_repeated(api: Service, body: dict[str, str]) -> None:
    answer = api.post("/auth/register", json=body)
    assert answer.status_code == 422
    assert body["password"] not in answer.text, "an answer may end up in somebody's log"
    assert body["password"] not in api.said()


def test_a_token_that_we_did_not_sign_or_that_is_old_is_refused(setup: Setup) -> None:
    api = setup.api()
    api.wait_until("/ready")
    email = _somebody(api)
    token = api.post("/auth/login", json={"email": email, "password": PASSWORD}).json()["access_token"]
    claims = jwt.decode(token, options={"verify_signature": False})
    key, header = setup.secrets["secret_key"], {"kid": jwt.get_unverified_header(token)["kid"]}

    def signed(key: str, algorithm: str = "HS256", **changed: object) -> str:
        kept = {name: value for name, value in (claims | changed).items() if value is not None}
        return jwt.encode(kept, key, algorithm, header)

    good = {
        "as given": (token, 200),
        "signed here": (signed(key), 200),
        "other key": (signed(setup.secrets["app_secret_key"]), 401),
        "other key's id": (jwt.encode(claims, key, "HS256", {"kid": "0" * 16}), 401),
        "no key's id": (jwt.encode(claims, key, "HS256"), 401),
        "unsigned": (signed("", "none"), 401),
        "expired": (signed(key, exp=int(time.time()) - 1), 401),
        "for ever": (signed(key, exp=None), 401),
        "other issuer": (signed(key, iss="elsewhere"), 401),
        "deleted user": (signed(key, sub=str(uuid.uuid4())), 401),
        "no id": (signed(key, sub="admin"), 401),
        "no token": ("nonsense", 401),
    }
    got = {
        name: api.get("/auth/me", headers={"Authorization": f"Bearer {value}"}).status_code
        for name, (value, _) in good.items()
    }
    assert got == {name: status for name, (_, status) in good.items()}
    assert api.get("/auth/me").status_code == 401
    assert token not in api.said()


def test_a_user_stays_logged_in_over_a_rotation_and_not_once_the_previous_key_is_gone(setup: Setup) -> None:
    old, new = setup.secrets["secret_key"], secrets.token_urlsafe(64)

    def replica(**keys: str) -> Service:
        setup.secrets = {k: v for k, v in setup.secrets.items() if not k.startswith("secret_key")} | keys
        (setup.folder / "secrets" / "secret_key_previous").unlink(missing_ok=True)
        api = setup.api()
        api.wait_until("/ready")
        return api

    def login(api: Service) -> str:
        answer = api.post("/auth/login", json={"email": email, "password": PASSWORD})
        token: str = answer.json()["access_token"]
        return token

    def status(api: Service, token: str) -> int:
        return api.get("/auth/me", headers={"Authorization": f"Bearer {token}"}).status_code

    before = replica(secret_key=old)
    email = _somebody(before)
    token = login(before)
    coming = replica(secret_key=old, secret_key_previous=new)
    during = replica(secret_key=new, secret_key_previous=old)
    assert status(during, token) == 200, "a rotation must log nobody out"
    renewed = login(during)
    kept, changed = (jwt.get_unverified_header(given)["kid"] for given in (token, renewed))
    assert kept != changed, "new tokens are signed by the new key"
    assert not any(key in f"{kept} {changed}" for key in (old, new))
    assert status(before, renewed) == 401, (
        "a replica that does not know the new key refuses it, so it has to come first"
    )
    assert status(coming, renewed) == 200, "as the second one of a replica that still signs by the old one"
    after = replica(secret_key=new)
    assert (status(after, token), status(after, renewed)) == (401, 200), "a key that leaked must be of no use at last"
    for api in (coming, during):
        assert old not in api.said()
        assert new not in api.said()


@pytest.mark.parametrize("part", ["api", "worker"])
@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("kT7" * 10, "SECRET_KEY_PREVIOUS: is shorter than 64 characters"),
        ("secret_key", "SECRET_KEY and SECRET_KEY_PREVIOUS must differ"),
        ("app_secret_key", "APP_SECRET_KEY and SECRET_KEY_PREVIOUS must differ"),
    ],
)
def test_the_previous_key_obeys_the_same_rules(setup: Setup, part: str, value: str, reason: str) -> None:
    setup.secrets["secret_key_previous"] = setup.secrets.get(value, value)
    service: Service = getattr(setup, part)()
    assert service.ended() == 78
    assert reason in service.said(), service.said()
    assert setup.secrets["secret_key_previous"] not in service.said()


def test_projects_and_jobs_need_no_login(api: Service) -> None:
    assert api.post("/projects", json={"name": "x"}).status_code == 201

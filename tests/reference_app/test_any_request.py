"""No request brings a 5xx: what the OpenAPI document allows, and what is near it, made up by Hypothesis."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import httpx
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from operations.checks.smoke import user_account

if TYPE_CHECKING:
    from tests.reference_app.conftest import Service, Setup

#: Of all kinds: letters that change their length with their case, controls, and those that no text may hold alone.
TEXT = st.text(st.characters(codec=None), max_size=40) | st.sampled_from(["", "\0", "\ud800", "İ" * 300, "x" * 70_000])
ANYTHING: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)
RARELY = 8
#: Of the strings, those whose pattern says too little of what a client sends.
EMAILS = st.builds("{}@{}.{}".format, *(st.text(min_size=1, max_size=20) for _ in range(3)))


@dataclass
class Api:
    """An API with a project and a job, and an account that a request may have removed."""

    client: httpx.Client
    document: Mapping[str, Any] = field(init=False)
    known: dict[str, str] = field(default_factory=dict)
    """Name in a path -> an id that there is."""
    account: Mapping[str, str] = field(default_factory=user_account.somebody)
    token: str = ""

    def __post_init__(self) -> None:
        self.document = self.client.get("/openapi.json").json()
        made = self.client.post("/projects", json={"name": "any", "notes": "n", "job": {}}).json()
        self.known = {"project_id": made["id"], "job_id": made["job"]["id"]}

    def log_in(self) -> str:
        """Return a token that is good; the account of the last one may be gone."""
        if not self.token or self.client.get("/auth/me", headers=self.bearer()).status_code != httpx.codes.OK:
            self.client.post("/auth/register", json=self.account)
            self.token = self.client.post("/auth/login", json=self.account).json()["access_token"]
        return self.token

    def bearer(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.token}"}

    def resolved(self, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        if "$ref" in schema:
            found: Any = self.document
            for step in schema["$ref"].removeprefix("#/").split("/"):
                found = found[step]
            return self.resolved(found)
        return schema

    def operations(self) -> list[tuple[str, str, Mapping[str, Any]]]:
        return [(m, p, what) for p, methods in self.document["paths"].items() for m, what in methods.items()]


def values(api: Api, schema: Mapping[str, Any]) -> st.SearchStrategy[Any]:
    """Make values that a schema allows."""
    schema = api.resolved(schema)
    if "anyOf" in schema:
        return st.one_of([values(api, each) for each in schema["anyOf"]])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    least, most = schema.get("minLength", 0), schema.get("maxLength", 100)
    text = st.text(min_size=least, max_size=min(most, least + 50)) | st.just("ß" * most)
    made = {name: mostly(values(api, each)) for name, each in schema.get("properties", {}).items()}
    required = {name: made.pop(name) for name in schema.get("required", ())}
    return {
        "object": st.fixed_dictionaries(required, optional=made),
        "integer": st.integers(schema.get("minimum", -(2**70)), schema.get("maximum", 2**70)),
        "null": st.none(),
        "string": EMAILS if "@" in schema.get("pattern", "") else text,
    }[schema["type"]]


def mostly(good: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Make good values, and rarely anything."""
    return st.integers(1, RARELY).flatmap(lambda number: ANYTHING if number == 1 else good)


@st.composite
def requests(draw: st.DrawFn, api: Api) -> httpx.Request:
    """Make up a request to one of the operations of the document."""
    method, path, what = draw(st.sampled_from(api.operations()))
    query: dict[str, str] = {}
    headers = draw(st.sampled_from([{}, {}, {"authorization": "Bearer x"}, {"x-request-id": "\x7f"}])).copy()
    if draw(st.booleans()):
        headers["authorization"] = f"Bearer {api.log_in()}"
    for parameter in what.get("parameters", ()):
        name, place = parameter["name"], parameter["in"]
        if place == "path":
            ids = st.just(api.known[name]) | st.uuids().map(str) | TEXT
            path = path.replace(f"{{{name}}}", quote(str(draw(ids))[:1000], safe="", errors="surrogatepass"))
        elif draw(st.booleans()):
            value = draw(mostly(values(api, parameter["schema"])))
            text = value if isinstance(value, str) else json.dumps(value)
            if place == "query":
                query[name] = text.encode("utf-8", "replace").decode()[:1000]
            else:
                sent_as = text.encode("ascii", "ignore").decode().translate(dict.fromkeys(range(33), "_"))
                headers[name] = sent_as[:5000]
    body = b""
    if "requestBody" in what:
        schema = what["requestBody"]["content"]["application/json"]["schema"]
        sent = draw(mostly(values(api, schema)))
        body = json.dumps(sent).encode() if draw(st.integers(1, RARELY)) > 1 else draw(st.binary(max_size=60))
        headers["content-type"] = draw(st.sampled_from(["application/json"] * RARELY + ["text/plain", "x"]))
    return api.client.build_request(method.upper(), path, params=query, headers=headers, content=body)


@pytest.fixture(scope="module")
def asked(api: Service) -> Iterator[Api]:
    """The API of this file's tests; its jobs are done by the worker beside it."""
    with httpx.Client(base_url=api.url, timeout=60, trust_env=False) as client:
        yield Api(client)


@settings(
    max_examples=400,
    deadline=None,
    derandomize=True,  # the same requests at each run: a test that fails once in a while is no gate
    database=None,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
)
@given(data=st.data())
def test_no_request_brings_a_5xx(asked: Api, data: st.DataObject) -> None:
    request = data.draw(requests(asked))
    answer = asked.client.send(request, stream=True)  # a job's events end when it does
    status = answer.status_code
    answer.close()
    assert status < 500, f"{request.method} {request.url} {request.content!r} brought {status}"


@pytest.mark.parametrize(
    ("email", "status"), [("İ" * 131 + "@x.yz", 422), ("İ" * 100 + "@x.yz", 201)], ids=["too long", "long"]
)
def test_an_address_that_grows_when_it_is_stored_is_judged_by_what_is_stored(
    setup: Setup, api: Service, email: str, status: int
) -> None:
    body = {"email": email, "password": uuid.uuid4().hex}
    answer = api.post("/auth/register", json=body)
    assert answer.status_code == status, answer.text

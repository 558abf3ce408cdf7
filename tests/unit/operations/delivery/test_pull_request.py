"""The comment with a preview: its Markdown, and GitHub's API as a real HTTP server on loopback."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import StringIO
from subprocess import CompletedProcess
from urllib.parse import parse_qs, urlsplit

import pytest
from rich.console import Console

from host.progress import Reporter
from operations.delivery.preview_comment import (
    AUTHOR,
    LONGEST_COMMENT,
    PullRequest,
    mark,
    not_previewed,
    preview,
    preview_comment,
)
from operations.engine.redaction import in_every_form, without
from operations.errors import ProjectError
from operations.workspace.workspace import Workspace
from tests.serving import serving

# As Pulumi 3.259 printed it for a program of three random values.
OUTPUT = """Previewing update (staging):
  pulumi:pulumi:Stack: (same)
    [urn=urn:pulumi:s1::t::pulumi:pulumi:Stack::t-s1]
    + random:index/randomPet:RandomPet: (create)
        [urn=urn:pulumi:s1::t::random:index/randomPet:RandomPet::pet]
        [provider=urn:pulumi:s1::t::pulumi:providers:random::default_4_21_4::5b4aaee4]
        prefix: "```x"
    +-random:index/randomPassword:RandomPassword: (replace)
        [id=none]
      ~ keepers        : {
          ~ a: "1" => "2"
        }
        length         : 20
        result         : [secret]
    - random:index/randomId:RandomId: (delete)
        [id=mmSWwg]
Resources:
    + 1 to create
    +-1 to replace
    - 1 to delete
    3 changes. 1 unchanged
"""


def rendered(output: str = OUTPUT, *, succeeded: bool = True) -> str:
    return preview_comment("staging", output=output, succeeded=succeeded, commit="0123456789abcdef" * 2)


def test_the_totals_stand_above_the_folded_differences() -> None:
    head = rendered().partition("<details>")[0]
    assert head.startswith(mark("staging") + "\n"), "by its first line the comment is found again"
    assert "**1 to create, 1 to replace, 1 to delete**" in head, "a reviewer reads the totals without unfolding"
    assert "0123456789ab" in head, "which commit it was belongs to it: a push in between makes it stale"


def test_signs_stand_in_the_first_column_where_github_colours_them() -> None:
    lines = rendered().splitlines()
    assert any(line.startswith("+") and "RandomPet: (create) pet" in line for line in lines), (
        "green, and with the resource's name: the type alone does not tell which one"
    )
    assert any(line.startswith("-") and "RandomId: (delete)" in line for line in lines), "red: data may be lost"
    assert any(line.startswith("!") and "RandomPassword: (replace)" in line for line in lines)
    assert any(line.startswith("!") and 'a: "1" => "2"' in line for line in lines)
    assert not any("[urn=" in line or "[provider=" in line for line in lines), "three lines of noise for each resource"


def test_a_value_with_backticks_cannot_end_the_block() -> None:
    text = rendered()
    assert text.count("\n````") == 2, "the fence is longer than the longest run of backticks in the differences"
    assert "```x" in text


def test_no_changes_are_said_in_words() -> None:
    text = rendered("Previewing update (staging):\nResources:\n    84 unchanged\n")
    assert "No changes." in text


def test_a_failed_preview_says_so_above_and_keeps_the_error() -> None:
    text = rendered("error: samokoder:telegramBotToken is missing\n", succeeded=False)
    head, _, rest = text.partition("<details>")
    assert "failed" in head
    assert "samokoder:telegramBotToken is missing" in rest, "what is wrong is what the author must read"


def test_a_secret_is_known_in_every_form_that_an_output_may_have() -> None:
    secrets = {
        "grafana-admin": 's3cret "quoted" value',
        "managedDatabaseUrl": "postgresql://me:hunter2hunter2@db.example.org:5432/samokoder",
        "SSH_PRIVATE_KEY": "-----BEGIN-----\nAAAAkeymaterial\n-----END-----\n",
        "short": "no",
    }
    printed = (
        'password: "s3cret \\"quoted\\" value"\nDSN password=hunter2hunter2 host=db.example.org\n'
        "  AAAAkeymaterial\nno changes\n"
    )
    text = without(in_every_form(secrets), printed)
    assert "s3cret" not in text, "a comment is public, and GitHub masks logs only; Pulumi escapes what it quotes"
    assert "<grafana-admin: escaped>" in text, "a reader still sees which one it was"
    assert "hunter2hunter2" not in text, "the password of an address may stand without the address"
    assert "AAAAkeymaterial" not in text, "a key is printed line by line"
    assert "no changes" in text, "a word is no secret"


class Pulumi:
    """What a preview needs of a Pulumi that is ready, answering as the real one does."""

    variables: Mapping[str, str] = {"PULUMI_CONFIG_PASSPHRASE": "the-teams-passphrase"}

    def __init__(self, output: str, returncode: int = 0) -> None:
        self.output, self.returncode = output, returncode
        self.production = False

    def pulumi(self, *words: str, **_: object) -> CompletedProcess[str]:
        assert words[:2] == ("preview", "--diff"), "nothing but a preview may run with a pull request's code"
        return CompletedProcess(words, self.returncode, self.output, "")

    def deployment(self) -> dict[str, object]:
        return {"resources": [{"type": "pulumi:pulumi:Stack", "outputs": {"production": self.production}}]}

    def configuration(self) -> dict[str, dict[str, object]]:
        return {"samokoder:smtpPassword": {"value": "mail-pass-word", "secret": True}}

    def secrets(self, *, every: bool) -> dict[str, str]:
        assert every, "the value that a rotation has retired is still a secret"
        return {"grafana-admin": "generated-value"}


def test_a_preview_shows_no_secret_on_screen_or_in_the_comment(monkeypatch: pytest.MonkeyPatch) -> None:
    printed = StringIO()
    workspace = Workspace(reporter=Reporter(Console(file=printed, width=200)))
    leaks = OUTPUT + "generated-value mail-pass-word the-teams-passphrase\n"
    monkeypatch.setattr("operations.delivery.preview_comment.prepare", lambda *_, **__: Pulumi(leaks))
    text, succeeded = preview(workspace, commit="abc")
    assert succeeded
    for secret in ("generated-value", "mail-pass-word", "the-teams-passphrase"):
        assert secret not in text + printed.getvalue(), "whatever printed it"
    assert "<samokoder:smtpPassword>" in text


def test_a_pull_request_that_makes_production_none_says_so_first(monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = Workspace(reporter=Reporter(Console(file=StringIO())))
    pulumi = Pulumi(OUTPUT)
    monkeypatch.setattr("operations.delivery.preview_comment.prepare", lambda *_, **__: pulumi)
    assert "production" not in preview(workspace, commit="abc")[0]
    pulumi.production = True
    head = preview(workspace, commit="abc")[0].partition("<details>")[0]
    assert "**staging was brought up as production, and Pulumi.staging.yaml does not say" in head, (
        "a reviewer would look for it among the differences of three volumes, and its deploy is refused"
    )


def test_a_preview_that_fails_gives_its_comment_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = Workspace(reporter=Reporter(Console(file=StringIO())))
    monkeypatch.setattr(
        "operations.delivery.preview_comment.prepare", lambda *_, **__: Pulumi("error: no\n", returncode=1)
    )
    text, succeeded = preview(workspace, commit="abc")
    assert not succeeded
    assert "error: no" in text, "the author reads the comment"


def test_a_comment_never_exceeds_githubs_limit_and_keeps_beginning_and_end() -> None:
    body = "".join(f"      ~ value{number}: {number} => {number + 1}\n" for number in range(20_000))
    text = rendered(OUTPUT.replace("Resources:\n", body + "error: the last line\nResources:\n"))
    assert LONGEST_COMMENT - 200 < len(text) <= LONGEST_COMMENT, "GitHub refuses a longer one as a whole"
    assert "(create)" in text
    assert "error: the last line" in text, "errors come last and must not be what is cut off"
    assert "lines do not fit into a comment" in text
    assert text.rstrip().endswith("</details>"), "what is cut is the inside, never the markup"
    left_out = int(text.partition(" … ")[2].partition(" ")[0])
    shown = sum(1 for line in text.splitlines() if "value" in line)
    assert left_out + shown == 20_000, "the number of lines that are missing is told truly"


def test_one_endless_line_does_not_exceed_the_limit_either() -> None:
    assert len(rendered("x" * 200_000)) <= LONGEST_COMMENT


@dataclass
class GitHub:
    """Comments of one pull request, on loopback: what GitHub's API does with them, page by page."""

    comments: list[dict[str, object]] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)
    refuse: int = 0
    page: int = 2
    """Comments on one page."""
    url: str = ""

    def pull_request(self) -> PullRequest:
        return PullRequest(api=self.url, repository="team/samokoder", number=7, token="t0ken")  # noqa: S106 - a test's


class Server(ThreadingHTTPServer):
    state: GitHub


class Handler(BaseHTTPRequestHandler):
    server: Server

    def answer(self, code: int, body: object, **headers: str) -> None:
        text = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text)

    def begin(self) -> dict[str, object] | None:
        """Note the request and return its body; None when it was refused."""
        state = self.server.state
        given: dict[str, object] = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
        state.tokens.add(self.headers.get("Authorization", ""))
        if not state.refuse:
            return given
        self.answer(state.refuse, {"message": "Resource not accessible by integration"})
        return None

    def do_GET(self) -> None:
        if self.begin() is None:
            return
        state, parts = self.server.state, urlsplit(self.path)
        number = int(parse_qs(parts.query).get("page", ["1"])[0])
        shown = state.comments[(number - 1) * state.page : number * state.page]
        following = f'<{state.url}{parts.path}?per_page=100&page={number + 1}>; rel="next"'
        self.answer(200, shown, **({"Link": following} if number * state.page < len(state.comments) else {}))

    def do_POST(self) -> None:
        if (body := self.begin()) is not None:
            comments = self.server.state.comments
            comments.append({"id": 1000 + len(comments), "user": {"login": AUTHOR}, **body})
            self.answer(201, comments[-1])

    def do_PATCH(self) -> None:
        if (body := self.begin()) is not None:
            wanted = int(self.path.rpartition("/")[2])
            (found,) = [comment for comment in self.server.state.comments if comment["id"] == wanted]
            found.update(body)
            self.answer(200, found)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def github() -> Iterator[GitHub]:
    with serving(Server(("127.0.0.1", 0), Handler)) as server:
        server.state = GitHub(url=f"http://127.0.0.1:{server.server_address[1]}")
        yield server.state


def test_the_first_preview_writes_a_comment_and_the_next_edits_it(github: GitHub) -> None:
    assert github.pull_request().publish(not_previewed("staging", why="first")) == "written"
    assert github.pull_request().publish(not_previewed("prod", why="another environment")) == "written"
    assert github.pull_request().publish(not_previewed("staging", why="second")) == "edited"
    bodies = [str(comment["body"]) for comment in github.comments]
    assert len(bodies) == 2, "one comment for an environment, however often somebody pushes"
    assert "second" in bodies[0]
    assert "another environment" in bodies[1], "an environment's name is whole: its comment is its own"
    assert github.tokens == {"Bearer t0ken"}


def test_the_comment_is_found_on_a_later_page(github: GitHub) -> None:
    github.comments += [{"id": n, "user": {"login": "somebody"}, "body": "talk"} for n in range(5)]
    github.comments.append({"id": 99, "user": {"login": AUTHOR}, "body": mark("staging") + "\r\nold"})
    assert github.pull_request().publish(not_previewed("staging", why="new")) == "edited"
    assert "new" in str(github.comments[5]["body"]), "a long discussion must not get a second comment"


def test_somebody_elses_comment_with_the_mark_is_left_alone(github: GitHub) -> None:
    github.comments.append({"id": 1, "user": {"login": "somebody"}, "body": mark("staging") + "\nforged"})
    github.comments.append({"id": 2, "user": None, "body": None})
    assert github.pull_request().publish(not_previewed("staging", why="true")) == "written"
    assert "forged" in str(github.comments[0]["body"]), "nobody else's words are overwritten"


def test_a_refusal_says_which_permission_is_missing_and_not_the_token(github: GitHub) -> None:
    github.refuse = 403
    with pytest.raises(ProjectError) as caught:
        github.pull_request().publish(not_previewed("staging", why="x"))
    assert "pull-requests: write" in str(caught.value), "the person who set the workflow up must read what to add"
    assert "t0ken" not in str(caught.value)


def test_no_answer_is_an_error_with_the_address() -> None:
    gone = PullRequest(api="http://127.0.0.1:9", repository="a/b", number=1, token="t0ken")  # noqa: S106 - a test's
    with pytest.raises(ProjectError, match=r"127\.0\.0\.1:9 did not answer"):
        gone.publish(not_previewed("staging", why="x"))

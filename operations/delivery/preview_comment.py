"""What a pull request would change, as one comment for each environment that is edited in place.

`preview` asks Pulumi, `preview_comment` makes text of its answer, `PullRequest.publish` speaks to GitHub's HTTP API.
The first and the last run in different jobs: the one that has the secrets may not write comments, and the one that
writes comments has no secrets.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from operations.engine.redaction import without
from operations.errors import ProjectError
from operations.lifecycle.prepare import prepare
from operations.workspace import known, pulumi_state
from operations.workspace.every_secret import every_secret
from operations.workspace.workspace import Workspace

LONGEST_COMMENT = 65_536
"""Characters that GitHub takes in one comment."""
AUTHOR = "github-actions[bot]"
"""User as which GITHUB_TOKEN writes. A comment of another user is never edited, even with our mark in it."""
_SECONDS = 30.0
_PER_PAGE = 100

# Pulumi prints three lines of identity for each resource; a reviewer needs only the name at the end of the urn.
_IDENTITY = re.compile(r"\s*\[(?P<kind>urn|provider|id)=.*?(?P<name>[^:]*)\]")
_SIGN = re.compile(r"(?P<indent>\s*)(?P<sign>\+-|-\+|\+\+|--|[-+~])(?P<rest>.*)")


def preview(workspace: Workspace, *, commit: str) -> tuple[str, bool]:
    """Run `pulumi preview --diff`; return the comment, and whether the preview succeeded.

    Everything that Pulumi says goes to the screen too, secrets removed. Raises ProjectError, EngineError and
    InvalidSettingsError where Pulumi cannot be asked at all.
    """
    run = prepare(workspace, images=False)
    with workspace.reporter.task("pulumi preview --diff"):
        done = run.pulumi(
            *(
                "preview",
                "--diff",
                "--non-interactive",
                "--color",
                "never",
                "--suppress-outputs",
                "--suppress-progress",
            ),
            check=False,
            capture=True,
        )
    output = without(every_secret(run), "\n".join(part for part in (done.stdout, done.stderr) if part))
    workspace.reporter.say(output)
    succeeded = done.returncode == 0
    lost = known.production_lost(workspace, was=pulumi_state.is_production(run.deployment()))
    text = preview_comment(workspace.environment, output=output, succeeded=succeeded, commit=commit, warning=lost)
    return text, succeeded


def preview_comment(environment: str, *, output: str, succeeded: bool, commit: str, warning: str = "") -> str:
    """Render the output of `pulumi preview --diff` as Markdown that fits into a comment of GitHub.

    output: without secrets. commit: what was previewed. warning: what stands above everything else. What does not fit
    is left out in the middle of the diff, so that errors and totals always stay.
    """
    text = output.replace("\r", "")
    total = _total(text) if succeeded else "The preview failed; nothing can be deployed like this."
    lines = _diff(text)
    fence = _fence(text)
    of = f" of {commit[:12]}" if commit else ""
    warned = f"**{warning}**\n\n" if warning else ""
    head = (
        f"{mark(environment)}\n### {environment}: `pulumi preview`{of}\n\n{warned}{total}\n\n"
        f"<details><summary>Differences</summary>\n\n{fence}diff\n"
    )
    foot = f"\n{fence}\n</details>\n"
    return head + _fitting(lines, LONGEST_COMMENT - len(head) - len(foot)) + foot


def not_previewed(environment: str, *, why: str) -> str:
    """Render the comment for an environment that could not be previewed."""
    return f"{mark(environment)}\n### {environment}: not previewed\n\n{_fence(why)}\n{why}\n{_fence(why)}\n"


def _fence(text: str) -> str:
    """Return a Markdown fence longer than any in the text, so that no value in the text can end the code block."""
    return "`" * max([3, *(len(run) + 1 for run in re.findall(r"`+", text))])


def mark(environment: str) -> str:
    """Return the first line of an environment's comment, by which it is found again."""
    return f"<!-- samokoder preview: {environment} -->"


def _total(text: str) -> str:
    """Return Pulumi's own totals in one line: "1 to create, 2 to replace, 7 unchanged"."""
    totals = text.rpartition("\nResources:\n")[2].splitlines() if "\nResources:\n" in text else []
    found = [match[1] for line in totals if (match := re.match(r"\s*[-+~ ]*(\d+ (?:to [a-z -]+|unchanged))\s*$", line))]
    changes = [entry for entry in found if "unchanged" not in entry]
    return f"**{', '.join(changes)}**" if changes else "No changes."


def _diff(text: str) -> list[str]:
    """Return the lines with their sign in the first column, where GitHub's colours look for it."""
    lines: list[str] = []
    for line in text.splitlines():
        if identity := _IDENTITY.fullmatch(line):
            if identity["kind"] == "urn" and lines:
                lines[-1] += f" {identity['name']}"
            continue
        found = _SIGN.fullmatch(line)
        if found is None:
            lines.append(line if not line or line[0] == " " else f" {line}")
            continue
        # GitHub colours a changed line only with "!"; a replacement is a change too.
        column = found["sign"] if found["sign"] in {"+", "-"} else "!"
        sign = "  " if found["sign"] in {"+", "-", "~"} else f"{found['sign']} "
        lines.append(f"{column}{found['indent']}{sign}{found['rest'].lstrip()}".rstrip())
    return lines


def _fitting(lines: list[str], room: int) -> str:
    """Join the lines; where they do not fit, leave out whole ones in the middle, and say how many."""
    text = "\n".join(lines)
    if len(text) <= room:
        return text
    end: list[str] = []
    kept = len("\n … 99999999 lines do not fit into a comment; all are in the job's log …\n")
    # Errors and totals come last; a quarter of the room is theirs.
    for line in reversed(lines):
        if kept + len(line) + 1 > room // 4:
            break
        kept += len(line) + 1
        end.insert(0, line)
    begin: list[str] = []
    for line in lines:
        if kept + len(line) + 1 > room:
            break
        kept += len(line) + 1
        begin.append(line)
    left_out = len(lines) - len(begin) - len(end)
    return "\n".join([*begin, f" … {left_out} lines do not fit into a comment; all are in the job's log …", *end])


@dataclass(frozen=True, kw_only=True)
class PullRequest:
    """One pull request of a repository, as GitHub's API knows it."""

    api: str
    """GITHUB_API_URL, such as https://api.github.com."""
    repository: str
    """GITHUB_REPOSITORY: owner/name."""
    number: int
    token: str

    def publish(self, body: str) -> str:
        """Write the comment, in place of an earlier one with the same first line; return what was done.

        Raises ProjectError when GitHub refuses or does not answer.
        """
        first = body.partition("\n")[0]
        try:
            with self._client() as client:
                for comment in self._comments(client):
                    ours = (comment.get("user") or {}).get("login") == AUTHOR
                    if ours and str(comment.get("body") or "").partition("\n")[0].rstrip() == first:
                        path = f"/repos/{self.repository}/issues/comments/{comment['id']}"
                        _checked(client.patch(path, json={"body": body}))
                        return "edited"
                _checked(client.post(self._path, json={"body": body}))
                return "written"
        except httpx.HTTPError as error:
            raise ProjectError(f"GitHub's API at {self.api} did not answer: {type(error).__name__}: {error}") from None

    @property
    def _path(self) -> str:
        return f"/repos/{self.repository}/issues/{self.number}/comments"

    def _client(self) -> httpx.Client:
        return httpx.Client(
            base_url=self.api,
            timeout=_SECONDS,
            transport=httpx.HTTPTransport(retries=3),
            headers={
                "Authorization": f"Bearer {self.token}",
                "Accept": "application/vnd.github+json",
                "X-GitHub-Api-Version": "2022-11-28",
            },
        )

    def _comments(self, client: httpx.Client) -> Iterator[Mapping[str, Any]]:
        """Yield every comment, page by page."""
        url: str | httpx.URL = f"{self._path}?per_page={_PER_PAGE}"
        while url:
            answer = _checked(client.get(url))
            yield from answer.json()
            url = answer.links.get("next", {}).get("url", "")


def _checked(answer: httpx.Response) -> httpx.Response:
    """Return the answer. Raises ProjectError, with what to do, where GitHub refused the request."""
    if answer.is_success:
        return answer
    try:
        message = str(answer.json().get("message") or "")
    except (ValueError, AttributeError):
        message = ""
    advice = {
        401: "GITHUB_TOKEN is not valid: pass `github.token` to this step.",
        403: "The job needs `permissions: pull-requests: write`.",
        404: "There is no such pull request, or the job lacks `permissions: pull-requests: write`.",
    }.get(answer.status_code, "")
    said = f"GitHub answered {answer.status_code} to {answer.request.method} {answer.request.url.path}: {message}"
    raise ProjectError(f"{said} {advice}".strip())

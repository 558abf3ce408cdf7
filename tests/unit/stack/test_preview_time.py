"""What a preview would do again and again, although once is enough."""

from __future__ import annotations

from typing import Any

import pytest

from tests import recording
from tests.recording import NETWORK, Recording, case_config, record_anew, wire_config


def previewed() -> Recording:
    stack, values = case_config("without-grafana")
    return record_anew(stack, wire_config(values), preview=True)


def test_a_previews_program_ends_when_its_resources_are_registered() -> None:
    preview = previewed()
    assert len(preview.resources) > 100, "all of them are there all the same"
    assert preview.left < 100, "Pulumi looks at every Output that is not ready whenever one is: once for each resource"


@pytest.mark.timeout(60)
def test_a_refused_resource_ends_the_preview_with_its_own_error(monkeypatch: pytest.MonkeyPatch) -> None:
    register = recording._Monitor.RegisterResource

    def refuse_networks(self: Any, request: Any) -> Any:
        if request.type == NETWORK:
            raise ValueError("the provider refuses networks")
        return register(self, request)

    monkeypatch.setattr(recording._Monitor, "RegisterResource", refuse_networks)
    with pytest.raises(Exception, match="the provider refuses networks"):
        previewed()

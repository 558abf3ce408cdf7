"""What the pages say of the bucket that the off-site copy is in."""

from __future__ import annotations

import re

from operations.clone import ROOT


def test_no_text_says_that_a_bucket_may_remove_objects_by_their_age() -> None:
    """Each copy needs objects of the first day."""
    advice = re.compile(r"bucket's (own )?rules|rules for old objects", re.IGNORECASE)
    patterns = ("docs/**/*.md", "stack/**/*.py", "backup_image/**/*.py", "*.md", "Pulumi*.yaml")
    paths = [path for pattern in patterns for path in ROOT.glob(pattern)]
    found = [str(path.relative_to(ROOT)) for path in paths if advice.search(path.read_text(encoding="utf-8"))]
    assert not found, "who follows this has no copy on the day that the rule first works"

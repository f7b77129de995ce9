"""The page about bundles names every way in which one can be refused."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_every_code_is_explained() -> None:
    sources = [*(ROOT / "src/allod/models/bundle").glob("*.py"), ROOT / "src/allod/cli/bundle.py"]
    raised = {code for path in sources for code in re.findall(r'"(bundle\.[a-z-]+)"', path.read_text())}
    explained = set(re.findall(r"`(bundle\.[a-z-]+)`", (ROOT / "docs/bundles.md").read_text()))
    assert raised - explained == set()
    assert explained - raised == set()

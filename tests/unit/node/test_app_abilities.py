"""What a model can do is read from what lies in its folder, hostile or absent, and never guessed."""

from __future__ import annotations

from pathlib import Path

import pytest

from allod.app.services import sees_images


@pytest.mark.parametrize(
    ("config", "sees"),
    [
        ('{"vision_config": {"hidden_size": 8}}', True),
        ('{"model_type": "mistral"}', False),
        ('{"vision_config": null}', False),
        ('["vision_config"]', False),
        ("{", False),
        ("[" * 100_000, False),
        ("\udcff", False),
        (None, False),
    ],
)
def test_a_model_sees_only_where_its_own_configuration_has_a_vision_part(
    tmp_path: Path, config: str | None, sees: bool
) -> None:
    if config is not None:
        (tmp_path / "config.json").write_bytes(config.encode(errors="surrogateescape"))
    assert sees_images(tmp_path) is sees

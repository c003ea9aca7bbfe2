"""What protects each of the apps: few lines, and all of them about podproof."""

from __future__ import annotations

import pytest

from tests.apps.versions import APPS, changed_lines


@pytest.mark.parametrize("app", APPS)
def test_at_most_five_lines_protect_an_app(app: str) -> None:
    assert 1 <= len(changed_lines(app)) <= 5, changed_lines(app)

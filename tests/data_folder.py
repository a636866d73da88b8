"""Where the tests find inputs that this project did not make; they skip where the folder is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

DATA = Path(__file__).parents[2] / "shared" / "data"
needs_data = pytest.mark.skipif(
    not DATA.is_dir(), reason="the third-party inputs (../shared/data) are not here"
)

"""Where the tests find inputs that this project did not make; they skip where the folder is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

DATA = Path(__file__).parents[2] / "shared" / "data"
# What others reported: inputs, and beside them what must come out.
REPORTS = DATA.parent / "reports"
needs_data = pytest.mark.skipif(
    not DATA.is_dir(), reason="the third-party inputs (../shared/data) are not here"
)
needs_reports = pytest.mark.skipif(
    not REPORTS.is_dir(), reason="the reported inputs (../shared/reports) are not here"
)

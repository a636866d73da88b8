"""Headless Chromium for the tests of pages: its flags, and one page with a probe in it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

needs_browser = pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium")
# Nothing of it may reach the network or wait for a person.
CHROMIUM = (
    "chromium",
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
CATCH = "<script>window.failures = []; window.onerror = text => window.failures.push(text)</script>"


def dump_page(html: str, probe: str, folder: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """The DOM of a page after its scripts and a probe have run, as standard output.

    Args:
        html: the page.
        probe: a script element that runs last; `window.failures` has the errors so far.
        folder: of the page's copy and of the browser's profile.
        flags: more words for the browser.
    """
    page = folder / "page.html"
    page.write_text(
        html.replace("<head>", "<head>" + CATCH, 1).replace("</body>", probe + "</body>"),
        encoding="utf-8",
    )
    words = (
        *CHROMIUM,
        "--enable-logging=stderr",
        "--host-resolver-rules=MAP * ~NOTFOUND",
        f"--user-data-dir={folder / 'profile'}",
        "--virtual-time-budget=2000",
        *flags,
        "--dump-dom",
        page.as_uri(),
    )
    return subprocess.run(words, capture_output=True, text=True, timeout=120)

"""What the README points to exists."""

import re
from pathlib import Path

from editbench.cli import COMMANDS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_every_picture_and_page_that_it_shows_exists():
    for link in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / link).exists(), link


def test_every_command_that_it_shows_exists():
    assert set(re.findall(r"^editbench (\w+)", README, re.M)) <= set(COMMANDS)

"""What the README and the pages of docs/ point to exists, and their commands are valid."""

import re
import shlex
from contextlib import suppress
from pathlib import Path

import pytest

from editbench.base.errors import EditbenchError
from editbench.cli import COMMANDS, main
from editbench.run.compose import sweep_settings
from editbench.run.overrides import check_overrides

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
WITH_OVERRIDES = ("run", "plan", "demo", "atlas")
# Signs of a file or an option of the reader's own.
OWN = ("FOLDER", "RUN_ID", "...", ".yaml", "--config-dir", "scorer=mine", "scorer=my_attributes")


def documented_commands() -> list[str]:
    """Every `editbench` command in a block of code of the pages."""
    found = set()
    for page in PAGES:
        for block in re.findall(r"```\w*\n(.*?)```", page.read_text(), re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                if re.match(r"\s*editbench [a-z]", line):
                    found.add(shlex.join(shlex.split(line, comments=True)))
    return sorted(found)


DOCUMENTED = documented_commands()
JOBS = [
    line
    for line in DOCUMENTED
    if line.split()[1] in WITH_OVERRIDES and not any(own in line for own in OWN)
]


def test_every_picture_and_page_that_it_shows_exists():
    for link in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / link).exists(), link


def test_every_documented_command_and_flag_exists(capsys):
    assert len(DOCUMENTED) > 90
    helps: dict[tuple[str, ...], str] = {}
    for line in DOCUMENTED:
        words = shlex.split(line)[1:]
        assert words[0] in COMMANDS, line
        command = (words[0],)
        # `world train-gan` has a help of its own.
        if len(words) > 1 and re.fullmatch(r"[a-z][a-z-]+", words[1]):
            command = (words[0], words[1])
        if command not in helps:
            with suppress(SystemExit):  # which argparse raises
                main([*command, "--help"])
            helps[command] = capsys.readouterr().out
        for word in words:
            if re.match(r"--?[a-z]", word):
                assert re.search(rf"(?<![\w-]){word}\b", helps[command]), f"{line}: {word}"


@pytest.mark.parametrize("line", JOBS)
def test_every_documented_job_can_be_composed(line):
    words = [word for word in shlex.split(line) if re.match(r"\+?[\w./@]+=", word)]
    check_overrides(words)
    try:
        words_of_job, settings = next(sweep_settings(words))
    except EditbenchError as error:
        raise AssertionError(f"{line}: {error}") from error
    for word in words_of_job:
        if word.startswith("method="):
            assert settings.method.name == word.partition("=")[2]

"""Text that leaves and enters: terminals without UTF-8, readers that go away, names that are no text, no home folder."""

from __future__ import annotations

import ast
import errno
import io
import json
import os
import pwd
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import numpy as np
import pytest
from PIL import Image

from editbench.base.attributes import Attribute, Attributes
from editbench.base.errors import BadFile, EditbenchError
from editbench.base.files import (
    lock,
    read_json,
    usable_folder,
    user_cache,
    write_atomic,
    write_json,
)
from editbench.base.output import Output, steady_output
from editbench.base.progress import print_message
from editbench.base.text import path_key, printable, read_text
from editbench.cli import main
from editbench.inversion.images import FolderImages
from editbench.networks import registry
from editbench.report import Results, load
from editbench.run import answer_cache
from editbench.run.compose import compose_settings
from editbench.studies.scorer_check.sources import FolderPictures
from tests.fake_records import fake_run

ROOT = Path(__file__).parents[1]
UGLY = os.fsdecode(b"caf\xe9.png")
SHOWN = r"caf\xe9.png"


# -- names -----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b"plain.png", "plain.png"),
        ("σ 猫 😀.png".encode(), "σ 猫 😀.png"),
        (b"caf\xe9.png", r"caf\xe9.png"),
        (b"\xff\x80\n.png", "\\xff\\x80\n.png"),
        ("\xe9".encode() + b"\xe9", "\xe9\\xe9"),
    ],
)
def test_a_name_is_shown_as_python_escapes_bytes(raw: bytes, shown: str) -> None:
    assert printable(os.fsdecode(raw)) == raw.decode("utf-8", "backslashreplace") == shown
    assert printable(shown) == shown
    shown.encode("utf-8")


def test_a_lone_surrogate_of_json_is_shown_too() -> None:
    assert printable("a\ud800b") == r"a\ud800b"


def test_one_path_has_one_key() -> None:
    ways = ["x/cafe\u0301.png", "x/café.png", "./x/café.png", ".//x/./café.png ", "x//café.png"]
    assert {path_key(way) for way in ways} == {"x/café.png"}
    assert path_key("x/../café.png") == "x/../café.png" and path_key("X") != path_key("x")


def picture_folder(root: Path) -> Path:
    root.mkdir()
    for seed, name in enumerate((UGLY, "a\nb.png", "<b>&.png")):
        pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(pixels).save(root / name)
    (root / os.fsdecode(b"bro\xe9ken.png")).write_bytes(b"x")
    return root


def test_any_file_name_reaches_tables_pages_and_json(tmp_path: Path) -> None:
    root = picture_folder(tmp_path / os.fsdecode(b"in\xe9"))
    part = FolderImages(root, 3, 8).read(0, 4, Attributes([Attribute("a", ("n", "y"))]))
    assert part.names == ["<b>&.png", "a\nb.png", SHOWN]
    assert part.skipped == {r"bro\xe9ken.png": "not a PNG, JPEG or WebP image"}
    about = FolderPictures(root, 9, 8).about
    assert r"in\xe9; 1 left out: bro\xe9ken.png (not a PNG" in about
    out = tmp_path / "out"
    words = ["dataset", "pack", str(root), "--resolution", "8", "--max-broken", "1"]
    assert main([*words, "--out", str(out)]) == 0
    assert r"bro\xe9ken.png" in (out / "problems.csv").read_text(encoding="utf-8")
    shard = (out / "shard-00000" / "shard.json").read_bytes()
    assert json.loads(shard.decode("ascii"))["problems"][0][0] == r"bro\xe9ken.png"


def test_a_page_with_any_name_is_written_and_a_path_in_json_comes_back(tmp_path: Path) -> None:
    write_atomic(tmp_path / "page.html", f"<p>{UGLY} σ")
    assert (tmp_path / "page.html").read_bytes() == f"<p>{SHOWN} σ".encode()
    # A path that is read back must still open the file, so it stays what it is.
    write_json(tmp_path / "a.json", {"path": Path(UGLY)})
    assert read_json(tmp_path / "a.json") == {"path": UGLY}


def test_a_folder_that_parquet_cannot_open_is_refused_before_work(tmp_path: Path) -> None:
    ugly = tmp_path / os.fsdecode(b"r\xe9")
    for key in ("out", "cache"):
        with pytest.raises(
            EditbenchError, match=r"bytes that are not UTF-8.*choose another folder"
        ):
            compose_settings([f"{key}='{ugly}'"])
    assert usable_folder(tmp_path / "ré σ") == tmp_path / "ré σ" and not ugly.exists()


def test_a_report_on_such_a_folder_calls_no_record_damaged(tmp_path: Path) -> None:
    """The folder may have been named on another machine, with another encoding."""
    fake_run(tmp_path / "runs", "alpha", "smile")
    runs = tmp_path / UGLY
    (tmp_path / "runs").rename(runs)
    with pytest.raises(EditbenchError, match="bytes that are not UTF-8") as error:
        load(runs)
    assert "Delete" not in str(error.value) and "choose another folder" in str(error.value)


def test_what_people_write_is_read_as_utf8_with_or_without_a_mark(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    for raw in ("é: 1\r\n".encode(), "é: 1\r\n".encode("utf-8-sig")):
        path.write_bytes(raw)
        assert read_text(path) == "é: 1\r\n"
    path.write_bytes("a: 1\né: 1\n".encode("latin-1"))
    with pytest.raises(BadFile, match=r"line 2: byte 0xe9 is not UTF-8.*save it as UTF-8"):
        read_text(path)
    with pytest.raises(BadFile, match="cannot be read"):
        read_text(tmp_path)


def test_every_text_file_is_opened_with_its_encoding() -> None:
    """Without one, Python takes that of the locale, which differs between machines."""
    bare = []
    for folder in ("editbench", "methods", "metrics", "benchmarks"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            text = path.read_text(encoding="utf-8")
            # Most modules open nothing, and parsing is what takes time.
            if not re.search(r"read_text|write_text|open\(|text=|universal_newlines", text):
                continue
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.Call) and _takes_the_locale(node):
                    bare.append(f"{path.relative_to(ROOT)}:{node.lineno}: {ast.unparse(node)}")
    assert bare == []


def _takes_the_locale(call: ast.Call) -> bool:
    keys = {keyword.arg for keyword in call.keywords}
    if "encoding" in keys:
        return False
    if keys & {"text", "universal_newlines"}:
        return ast.unparse(call.func).startswith("subprocess.")
    if isinstance(call.func, ast.Name):
        # Mode is the second argument of the function, and the first of the method.
        return call.func.id == "open" and _is_text_mode(call.args[1:])
    name = call.func.attr if isinstance(call.func, ast.Attribute) else ""
    if name == "open":
        first = call.args[0] if call.args else None
        is_mode = isinstance(first, ast.Constant) and re.fullmatch("[rwax]t?[+]?", str(first.value))
        return bool(is_mode)
    return name == "write_text" or (name == "read_text" and not call.args)


def _is_text_mode(arguments: list[ast.expr]) -> bool:
    return not arguments or "b" not in ast.unparse(arguments[0])


# -- output ----------------------------------------------------------------------------------------
class Terminal(io.TextIOWrapper):
    """A strict stream of an encoding, as PYTHONIOENCODING=ascii makes it."""

    def __init__(self, encoding: str) -> None:
        super().__init__(io.BytesIO(), encoding=encoding, errors="strict")

    def content(self) -> bytes:
        self.flush()
        assert isinstance(self.buffer, io.BytesIO)
        return self.buffer.getvalue()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8", "utf-16-le"])
def test_output_takes_every_letter(encoding: str) -> None:
    terminal = Terminal(encoding)
    text = f"{UGLY}: σ → 猫 é"
    assert Output(terminal).write(text) == len(text)
    expected = f"{SHOWN}: σ → 猫 é".encode(encoding, "backslashreplace")
    assert terminal.content() == expected


def test_a_report_is_shown_on_any_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_run(tmp_path, "gradctrl", "smile")
    terminal = Terminal("ascii")
    monkeypatch.setattr(sys, "stdout", terminal)
    assert main(["report", str(tmp_path), "--table"]) == 0
    assert b"at an achieved effect of 1 \\u03c3 on the target" in terminal.content()
    assert terminal.content().isascii() and sys.stdout is terminal


@contextmanager
def closed_pipe(encoding: str = "utf-8") -> Iterator[TextIO]:
    """A pipe whose reader has gone, as that of `| head -1` has."""
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w", encoding=encoding) as stream:
        yield stream


def test_a_closed_pipe_is_no_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    with closed_pipe() as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        assert main(["list", "methods"]) == 141
    # What the command found wrong counts more.
    with closed_pipe() as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        assert main(["list", "method"]) == 2


def test_a_report_into_a_closed_pipe_is_made_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for method in ("gradctrl", "random"):
        fake_run(tmp_path, method, "smile")
    made = []

    def draw(results: Results, *others: object, **more: object) -> Path:
        made.append(results.root)
        return results.root / "index.html"

    # It comes after the table, which goes into the pipe; drawing it takes seconds.
    monkeypatch.setattr("editbench.commands.report.write_report", draw)
    with closed_pipe() as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        assert main(["report", str(tmp_path)]) == 141
    assert made == [tmp_path]


def test_nobody_listens_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a service or `>&-` starts the command without the two streams."""
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    assert main(["list", "methods"]) == 0
    assert main(["list", "method"]) == 2
    print_message("nothing")


def test_a_full_disk_behind_standard_output_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with open("/dev/full", "w", encoding="utf-8") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert main(["list", "methods"]) == 1
    assert "standard output is lost (No space left on device)" in capsys.readouterr().err


def test_a_worker_speaks_into_a_closed_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    with closed_pipe("ascii") as pipe:
        monkeypatch.setattr(sys, "stderr", pipe)
        for _ in range(3):
            print_message("job: σ")


@pytest.mark.parametrize("number", [0, 1, 2])
def test_no_file_gets_the_number_of_a_stream_that_is_missing(number: int) -> None:
    """A worker process would take it for its own standard error, and end."""
    # The child has the other two streams of this process.
    code = (
        "import os, sys\n"
        "from editbench.base.output import steady_output\n"
        "with steady_output():\n"
        "    low = min(os.pipe()) < 3\n"
        f"    sys.exit(low or not os.get_inheritable({number}))\n"
    )
    child = os.fork()
    if child == 0:
        os.close(number)
        os.execv(sys.executable, [sys.executable, "-c", code])
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def test_streams_are_put_back_whatever_happens() -> None:
    before = (sys.stdout, sys.stderr)
    with pytest.raises(RuntimeError), steady_output() as output:
        assert sys.stdout is output and output.lost is None  # type: ignore[comparison-overlap]
        assert output.isatty() == before[0].isatty()
        raise RuntimeError
    assert (sys.stdout, sys.stderr) == before


# -- no home folder --------------------------------------------------------------------------------
@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A user who has no home in the list of users, in an empty folder."""

    def unknown(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in ("HOME", "XDG_CACHE_HOME", "EDITBENCH_NETWORKS", "EDITBENCH_MIRROR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("home", [None, "", "/nonexistent", "/dev/null", "/dev/null/x"])
def test_no_home_folder_is_needed(
    homeless: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, home: str | None
) -> None:
    if home is not None:
        monkeypatch.setenv("HOME", home)
    assert registry.folder() == registry.HOMELESS
    assert main(["fetch"]) == 0
    assert f"folder: {registry.HOMELESS}" in capsys.readouterr().out
    # Looking makes nothing.
    assert not any(homeless.iterdir())
    assert registry.make_folder().is_dir()
    monkeypatch.setenv("EDITBENCH_MIRROR", "http://127.0.0.1:9")  # nobody answers there
    assert main(["fetch", "vgg16"]) == 1
    assert f"put it at {registry.HOMELESS}" in capsys.readouterr().err
    # What list and plan remember has no place then.
    answer_cache.keep_answer(["question"], 1, [])
    assert answer_cache.recall_answer(["question"]) is None
    assert not Path("/nonexistent").exists() and not (homeless / "~").exists()


def test_a_home_that_cannot_be_written_is_not_used(
    homeless: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = homeless / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    assert registry.folder() == home / ".cache" / "editbench" / "networks"
    allowed = os.access
    # Root may write everywhere, so the system's answer is changed and not the folder.
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != home and allowed(path, mode))
    assert registry.folder() == registry.HOMELESS
    # What an administrator has put there is found all the same.
    (home / ".cache" / "editbench" / "networks").mkdir(parents=True)
    assert registry.folder() == home / ".cache" / "editbench" / "networks"


def test_a_home_that_nobody_else_may_look_into_is_not_used(
    homeless: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HOME is root's, in a container that runs as another user."""
    home = homeless / "root"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    looked_up = os.stat

    def stat(path: str | Path, **options: object) -> os.stat_result:
        if home in Path(path).parents:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return looked_up(path, **options)  # type: ignore[arg-type]

    allowed = os.access
    monkeypatch.setattr(os, "stat", stat)
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != home and allowed(path, mode))
    assert user_cache("networks") is None


def test_a_folder_that_cannot_be_written_names_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    monkeypatch.setenv("EDITBENCH_NETWORKS", str(tmp_path))
    with pytest.raises(EditbenchError, match=r"set \$EDITBENCH_NETWORKS to a folder"):
        registry.make_folder()
    with pytest.raises(EditbenchError, match=re.escape(os.strerror(errno.EACCES))):
        lock(tmp_path / "bank")

"""Fetching networks from a server on this machine: whole, cut off, resumed, wrong, absent, unpinned, at once."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from editbench.base.errors import BadFile, EditbenchError
from editbench.cli import main
from editbench.commands import fetch as command
from editbench.commands.fetch import network_state
from editbench.networks import registry
from editbench.networks.fetch import fetch_file, locate_file
from editbench.networks.registry import Published

pytestmark = pytest.mark.usefixtures("networks")

CONTENT = bytes(range(256)) * 2000  # 512 kB
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Gives `content`; cuts answers off after `limit` bytes; knows ranges unless told not to."""

    content, limit, ranges = CONTENT, len(CONTENT), True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.asked.append(wanted)
        begin = int(re.findall(r"\d+", wanted)[0]) if wanted and self.server.ranges else 0
        body = self.server.content[begin:]
        if self.path == "/missing.pt":
            self.send_error(404)
            return
        if begin and not body:
            self.send_error(416)
            return
        self.send_response(206 if begin else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: self.server.limit])

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    one = Server()
    thread = threading.Thread(target=one.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield one
    one.shutdown()
    one.server_close()


def file_of(server: Server, sha256: str | None = SHA256, name: str = "net.pt") -> Published:
    return Published(name, f"{server.url}/{name}", sha256, len(CONTENT))


def left(folder: Path) -> set[str]:
    """Files of a folder but for its locks."""
    return {path.name for path in folder.iterdir() if path.is_file()} if folder.exists() else set()


def test_a_file_is_fetched_once_and_found_from_then_on(server: Server, networks: Path) -> None:
    found = fetch_file(file_of(server))
    assert found.path.read_bytes() == CONTENT and found.sha256 == SHA256
    assert locate_file(file_of(server)).path == found.path == networks / "net.pt"
    assert len(server.asked) == 1 and left(networks) == {"net.pt"}


def test_another_content_is_refused_and_nothing_is_kept(server: Server, networks: Path) -> None:
    server.content = b"<html>please sign in</html>"
    with pytest.raises(BadFile, match=rf"not net\.pt: 27 bytes.*expected {SHA256}"):
        fetch_file(file_of(server))
    assert left(networks) == set()


def test_a_download_that_broke_off_goes_on_where_it_stopped(server: Server, networks: Path) -> None:
    server.limit = 131_072
    with pytest.raises(EditbenchError, match=r"broke off.*131072 bytes are kept"):
        fetch_file(file_of(server))
    assert left(networks) == {".partial-net.pt"}
    server.limit = len(CONTENT)
    assert fetch_file(file_of(server)).path.read_bytes() == CONTENT
    assert server.asked == [None, "bytes=131072-"] and left(networks) == {"net.pt"}


def test_capital_digits_of_a_checksum_are_the_same_ones(server: Server, networks: Path) -> None:
    networks.mkdir()
    (networks / ".partial-net.pt").write_bytes(CONTENT[:100_000])
    assert fetch_file(file_of(server, SHA256.upper())).sha256 == SHA256
    assert server.asked == ["bytes=100000-"]
    assert locate_file(file_of(server, SHA256.upper())).path == networks / "net.pt"


def test_a_folder_that_cannot_be_made_names_its_variable(server: Server, networks: Path) -> None:
    networks.write_text("in the way")
    with pytest.raises(EditbenchError, match=rf"cannot write .*set \${registry.FOLDER}"):
        fetch_file(file_of(server))


@pytest.mark.parametrize("partial", [b"of something else", CONTENT + b"more"])
def test_a_rest_that_does_not_fit_is_thrown_away(
    server: Server, networks: Path, partial: bytes
) -> None:
    networks.mkdir()
    (networks / ".partial-net.pt").write_bytes(partial)
    assert fetch_file(file_of(server)).path.read_bytes() == CONTENT
    assert len(server.asked) == 2 and server.asked[1] is None


def test_a_server_without_ranges_gives_all_again(server: Server, networks: Path) -> None:
    server.limit, server.ranges = 100_000, False
    with pytest.raises(EditbenchError, match="the connection broke off"):
        fetch_file(file_of(server))
    server.limit = len(CONTENT)
    assert fetch_file(file_of(server)).path.read_bytes() == CONTENT


def test_no_connection_and_no_such_file_are_said_in_a_line(server: Server, networks: Path) -> None:
    nowhere = Published("net.pt", "http://127.0.0.1:9/net.pt", SHA256)
    with pytest.raises(
        EditbenchError, match=r"could not fetch net\.pt from http://127.*refused.*put it at"
    ):
        fetch_file(nowhere)
    with pytest.raises(EditbenchError, match="404"):
        fetch_file(file_of(server, name="missing.pt"))
    assert left(networks) <= {".partial-net.pt", ".partial-missing.pt"}


def test_without_a_published_checksum_the_first_fetch_pins_it(
    server: Server, networks: Path
) -> None:
    file = file_of(server, sha256=None)
    assert fetch_file(file).sha256 == SHA256
    assert json.loads((networks / registry.LOCK).read_text())["net.pt"] == SHA256
    assert network_state("net", file).text == "installed, checksum correct"
    server.content = CONTENT[::-1]
    with pytest.raises(BadFile, match="expected"):
        fetch_file(file, again=True)
    assert locate_file(file).sha256 == SHA256  # the old one stays
    (networks / "net.pt").write_bytes(b"altered")
    with pytest.raises(BadFile, match="expected"):
        locate_file(file)


def test_processes_that_want_the_same_file_fetch_it_once(server: Server) -> None:
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(fetch_file, [file_of(server)] * 4))
    assert len(server.asked) == 1 and len({item.path for item in found}) == 1


def test_the_command_lists_fetches_and_checks(
    server: Server,
    networks: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    known = {"net": file_of(server), "gone": file_of(server, name="missing.pt")}
    monkeypatch.setattr(command, "published", lambda: known)
    assert main(["fetch"]) == 0
    text = capsys.readouterr().out
    assert "not installed" in text
    assert server.url in text
    assert str(networks) in text
    assert not server.asked
    assert main(["fetch", "all"]) == 1  # one of two does not exist, the other comes
    out, err = capsys.readouterr()
    assert SHA256 in out and "as published" in out and "404" in err
    assert main(["fetch"]) == 0 and "checksum correct" in capsys.readouterr().out
    (networks / "net.pt").write_bytes(CONTENT[:-1])
    assert main(["fetch"]) == 1 and "511999 bytes of 512000" in capsys.readouterr().out
    assert main(["fetch", "nett"]) == 2 and "Did you mean 'net'" in capsys.readouterr().err


def test_the_command_keeps_to_offline_and_the_mirror(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    known = {"net": Published("net.pt", "http://127.0.0.1:9/elsewhere/net.pt", SHA256)}
    monkeypatch.setattr(command, "published", lambda: known)
    monkeypatch.setenv(registry.OFFLINE, "1")
    assert main(["fetch", "net"]) == 1 and registry.OFFLINE in capsys.readouterr().err
    monkeypatch.delenv(registry.OFFLINE)
    monkeypatch.setenv(registry.MIRROR, server.url + "/")
    assert main(["fetch", "net"]) == 0 and server.asked == [None]


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"name": {}}, r"file\.name=\{\} must be text"),
        ({"sha256": 12}, r"file\.sha256=12 must be text"),
        ({"sha256": "12"}, "64 hexadecimal digits"),
        ({"size": "big"}, r"file\.size=big must be a whole number"),
        ({"name": "folder/net.pt"}, "without folders"),
    ],
)
def test_what_a_configuration_says_of_a_file_is_checked(
    changed: dict[str, object], message: str
) -> None:
    about: dict[str, object] = {"name": "net.pt", "url": "http://localhost/net.pt"}
    with pytest.raises(EditbenchError, match=message):
        Published(**(about | changed))  # type: ignore[arg-type]

"""The raters' page in headless Chromium, by the DevTools protocol: real keys, a reload, a saved
file, no network.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from editbench.studies.human.draw import MethodComparison, questions
from editbench.studies.human.responses import read_sheet
from editbench.studies.human.study import StudyDesign, _key, render
from tests.browser import CHROMIUM, needs_browser

pytestmark = needs_browser
KEYS = {
    "ArrowLeft": 37,
    "ArrowUp": 38,
    "ArrowRight": 39,
    "ArrowDown": 40,
    "Backspace": 8,
    "1": 49,
    "2": 50,
    "3": 51,
}
METHODS = ("alphamethod", "betamethod")


class Browser:
    """One page of headless Chromium, driven over a pair of pipes: messages are JSON, ended by a
    zero byte.
    """

    def __init__(self, profile: Path, downloads: Path, url: str) -> None:
        to_browser, self.out = os.pipe()
        self.inp, from_browser = os.pipe()
        words = [
            *CHROMIUM,
            "--disable-dev-shm-usage",
            "--host-resolver-rules=MAP * ~NOTFOUND",
            "--window-size=1280,900",
            f"--user-data-dir={profile}",
            "--remote-debugging-pipe",
            "about:blank",
        ]
        script = f'exec "$@" 3<&{to_browser} 4>&{from_browser}'
        self.process = subprocess.Popen(
            ["bash", "-c", script, "bash", *words],
            pass_fds=(to_browser, from_browser),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for end in (to_browser, from_browser):
            os.close(end)
        self.events: list[dict] = []
        self.rest, self.number, self.session = b"", 0, ""
        target = next(
            one for one in self.send("Target.getTargets")["targetInfos"] if one["type"] == "page"
        )
        self.session = self.send(
            "Target.attachToTarget", targetId=target["targetId"], flatten=True
        )["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.send(f"{domain}.enable")
        self.send("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(downloads))
        self.load("Page.navigate", url=url)

    def send(self, method: str, **params: object) -> dict:
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if self.session and not method.startswith("Browser."):
            message["sessionId"] = self.session
        os.write(self.out, json.dumps(message).encode() + b"\0")
        while True:
            told = self._next()
            if told.get("id") == self.number:
                assert "error" not in told, told
                return told["result"]
            self.events.append(told)

    def _next(self) -> dict:
        while b"\0" not in self.rest:
            chunk = os.read(self.inp, 1 << 20)
            assert chunk, "chromium has gone"
            self.rest += chunk
        line, self.rest = self.rest.split(b"\0", 1)
        return json.loads(line)

    def load(self, method: str, **params: object) -> None:
        seen = len(self.events)
        self.send(method, **params)
        while not any(one.get("method") == "Page.loadEventFired" for one in self.events[seen:]):
            self.events.append(self._next())

    def js(self, code: str) -> Any:
        found = self.send(
            "Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def press(self, *keys: str) -> None:
        for key in keys:
            common = {
                "key": key,
                "windowsVirtualKeyCode": KEYS[key],
                **({"text": key} if key.isdigit() else {}),
            }
            self.send("Input.dispatchKeyEvent", type="keyDown", **common)
            self.send("Input.dispatchKeyEvent", type="keyUp", **common)

    def text(self, chosen: str) -> str:
        return self.js(f"document.querySelector({json.dumps(chosen)}).innerText")

    def wait(self, done: Callable[[], Any]) -> Any:
        """What `done` gives once it gives something; Chromium writes files when it pleases."""
        for _ in range(400):
            if found := done():
                return found
            time.sleep(0.02)
        raise AssertionError("it never came")

    def trouble(self) -> list:
        """Console messages, exceptions, and requests to anywhere but the page's own file and
        data.
        """
        found = []
        for one in self.events:
            url = one.get("params", {}).get("request", {}).get("url", "")
            if one["method"] in (
                "Runtime.consoleAPICalled",
                "Runtime.exceptionThrown",
                "Log.entryAdded",
            ) or (
                one["method"] == "Network.requestWillBeSent"
                and not url.startswith(("file:", "data:"))
            ):
                found.append(one)
        return found

    def close(self) -> None:
        os.write(self.out, json.dumps({"id": 0, "method": "Browser.close"}).encode() + b"\0")
        self.process.wait(20)
        os.close(self.inp)
        os.close(self.out)


def make_page(folder: Path, asked: tuple[str, ...] = ("change", "identity")) -> tuple[Path, dict]:
    """Four comparisons and one repeat; each method's edit has a grey level of its own, which tells
    it by its pixels.
    """
    drawn = [
        MethodComparison(f"c{k}", "hair_color", 40 + k, "red", "<b>blond</b>", *METHODS)
        for k in range(4)
    ]
    grey = dict(zip(METHODS, (100, 200)))
    pictures = {
        (one.attribute, one.start, name): (
            np.full((3, 8, 8), 10 + k, np.uint8),
            np.full((3, 8, 8), grey[name] + k, np.uint8),
        )
        for k, one in enumerate(drawn)
        for name in METHODS
    }
    design = StudyDesign(asked=asked, intro="First line.\nSecond </script><b>line</b>.")
    page = questions(drawn, "1", 0.25, 0)
    key = _key({"1": page}, design)
    path = folder / "page-1.html"
    path.write_text(render("1", page, pictures, key["study"], design), encoding="utf-8")
    return path, key


@pytest.fixture
def open_browser(tmp_path: Path) -> Iterator[Callable[[Path], Browser]]:
    opened: list[Browser] = []

    def start(page: Path) -> Browser:
        opened.append(Browser(tmp_path / "profile", tmp_path, page.as_uri()))
        return opened[-1]

    yield start
    for one in opened:
        one.close()


PIXEL = """(async side => { const image = document.getElementById(side); await image.decode();
  const canvas = document.createElement("canvas"), pen = canvas.getContext("2d");
  pen.drawImage(image, 0, 0); return pen.getImageData(0, 0, 1, 1).data[0]; })"""


def begin(browser: Browser, rater: str = "r-7") -> None:
    browser.js(
        f"document.getElementById('rater').value = '{rater}'; document.querySelector('#enter "
        "button').click()"
    )


def test_a_rater_answers_by_keys_closes_the_tab_and_saves(tmp_path: Path, open_browser) -> None:
    page, key = make_page(tmp_path)
    browser = open_browser(page)
    order = [one["id"] for one in browser.js("data.questions")]
    assert sorted(order) == sorted(key["questions"]) and len(order) == 5
    browser.press("ArrowLeft")  # nothing is answered before a rater is named
    assert browser.js("state.answers") == {}
    assert "Second </script><b>line</b>." in browser.text("#begin .intro")
    begin(browser)
    assert (
        browser.text("fieldset.active legend")
        == "Which changes hair color better towards ‘<b>blond</b>’?"
    )
    assert browser.text("#place") == "1 of 5"
    assert browser.js("document.activeElement.tagName") == "BODY"

    # The pictures are those of the key's methods, on its sides.
    base = dict(zip(METHODS, (100, 200)))
    one, k = key["questions"][order[0]], key["questions"][order[0]]["start"] - 40
    seen = {side: browser.js(f"{PIXEL}('{side}')") for side in ("left", "original", "right")}
    assert seen == {
        "left": base[one["left"]] + k,
        "original": 10 + k,
        "right": base[one["right"]] + k,
    }
    assert (
        browser.js("getComputedStyle(document.getElementById('left')).imageRendering")
        == "pixelated"
    )
    assert browser.js("document.getElementById('left').clientWidth") == 256

    bold = "[...document.querySelectorAll('fieldset.active legend b')].map(node => node.innerText).join('|')"
    assert browser.js(bold) == "hair color|‘<b>blond</b>’"
    browser.press("ArrowLeft")
    assert (
        browser.text("fieldset.active legend")
        == "Which better keeps the original, apart from hair color?"
    )
    assert browser.js(bold) == "hair color"
    browser.press("ArrowDown", "3", "1")  # the rest of screens 1 and 2
    browser.js(
        "document.querySelector('[data-asked=identity] [data-answer=right]').click()"
    )  # screen 3, Q2 first
    assert browser.text("fieldset.active legend").startswith("Which changes")
    browser.press("2", "ArrowRight")
    assert browser.text("#place") == "4 of 5"
    assert browser.js(
        "localStorage.getItem(place) === JSON.stringify(state)"
    )  # each screen is kept as it is answered
    browser.press(
        "Backspace", "ArrowUp", "ArrowLeft"
    )  # back to screen 3, its first question, answered anew
    wanted = {
        order[0]: {"change": "left", "identity": "none"},
        order[1]: {"change": "right", "identity": "left"},
        order[2]: {"change": "left", "identity": "right"},
    }
    assert browser.js("state.answers") == wanted

    def reopened() -> bool:
        browser.load("Page.reload")  # a tab that is closed and opened again
        return browser.js("state.answers") == wanted

    # The browser stores in a process of its own, which may be behind a reload that comes at once.
    assert browser.wait(reopened) and browser.text("#place") == "3 of 5"
    assert browser.js("document.getElementById('bar').value") == 3
    browser.press("ArrowRight", "ArrowRight")  # the open screen's answers again: Q1 and Q2
    browser.press("1", "2", "3", "ArrowDown")
    assert "All 5 screens are answered." in browser.text("#told")
    browser.press("ArrowLeft")  # past the end nothing is answered
    browser.js("document.querySelector('#done .save').click()")
    (saved,) = browser.wait(lambda: list(tmp_path.glob("responses-*.json")))
    browser.wait(lambda: saved.stat().st_size > 0)
    assert saved.name == f"responses-{key['study']}-1-r-7.json"
    sheet = read_sheet(saved, key)
    assert (sheet.rater, sheet.page, sheet.given, sheet.missing, sheet.unknown, sheet.invalid) == (
        "r-7",
        "1",
        10,
        0,
        0,
        0,
    )
    assert sheet.answers == wanted | {
        order[2]: {"change": "right", "identity": "right"},
        order[3]: {"change": "left", "identity": "none"},
        order[4]: {"change": "right", "identity": "none"},
    }
    assert set(sheet.seconds) == set(order)
    assert browser.trouble() == []


def test_one_question_pages_keep_two_raters_apart_and_do_not_reach_the_network(
    tmp_path: Path, open_browser
) -> None:
    page, key = make_page(tmp_path, ("identity",))
    browser = open_browser(page)
    browser.js(
        "document.getElementById('rater').value = '=cmd()'; document.querySelector('#enter "
        "button').click()"
    )
    assert browser.js("document.getElementById('ask').hidden")  # no code of a rater
    begin(browser, "one")
    assert browser.text("fieldset.active legend") == "Which better keeps the original?"
    browser.press(*"12312")
    assert (
        browser.js("Object.values(state.answers).map(one => one.identity).join()")
        == "left,none,right,left,none"
    )
    browser.js("window.confirm = () => true; document.getElementById('clear').click()")
    assert browser.js("JSON.parse(localStorage.getItem(place)).answers") == {}
    assert browser.text("#begin h1")
    begin(browser, "two")
    browser.press("1")
    browser.js("document.querySelector('#ask .save').click()")  # half-way
    (saved,) = browser.wait(lambda: list(tmp_path.glob("responses-*-two.json")))
    browser.wait(lambda: saved.stat().st_size > 0)
    sheet = read_sheet(saved, key)
    assert (sheet.rater, sheet.given, sheet.missing) == ("two", 1, 4)
    assert browser.trouble() == []
    blocked = browser.js("fetch('https://example.org/').then(() => 'open', () => 'blocked')")
    assert blocked == "blocked" and "Content Security Policy" in json.dumps(
        browser.trouble()
    )  # the page's own no

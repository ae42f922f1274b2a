"""The gate explorer in the app, in one browser session: links, pins, pages, files, the keyboard alone, both themes."""

from __future__ import annotations

import csv
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from explore_run import K_STORED, store_run
from lab import APP_OPTIONS, ROOT, app_served, chromium, copy_with, needs_chromium, offline_page
from synthetic_run import make_run, make_samples, write_answers, write_verdicts

N = 9000  # samples of POPE
POPE = tuple(f"pope/{split}" for split in ("random", "popular", "adversarial"))
NEEDED = ("threshold", "search", "samples", "pin", "sound", "save", "copy link")  # reached by the tab key

# texts of less than 4.5 : 1 to what is behind them, those of disabled controls and labels with a rim left out
FAINT = """root => {
    const channels = (color) => {
        const [r, g, b, a = 1] = color.match(/[\\d.]+/g).map(Number);
        return { rgb: [r, g, b], a };
    };
    const over = (top, under) => top.rgb.map((c, i) => c * top.a + under[i] * (1 - top.a));
    const light = (rgb) => {
        const [r, g, b] = rgb.map((c) => ((c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const behind = (element) => {
        if (!element) return [255, 255, 255];
        const { rgb, a } = channels(getComputedStyle(element).backgroundColor);
        return a === 1 ? rgb : over({ rgb, a }, behind(element.parentElement));
    };
    const faint = [];
    for (const element of root.querySelectorAll("*")) {
        const text = [...element.childNodes].filter((n) => n.nodeType === 3).map((n) => n.data.trim()).join("");
        if (!text || !element.checkVisibility()) continue;
        if (element.closest("[disabled], .se-box-label, option, title")) continue;
        const style = getComputedStyle(element);
        const color = element.namespaceURI.endsWith("svg") ? style.fill : style.color;
        const ground = behind(element);
        const [a, b] = [light(over(channels(color), ground)), light(ground)];
        const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        if (ratio < 4.5) faint.push(`${element.className} ${text.slice(0, 30)} ${ratio.toFixed(2)}`);
    }
    return faint;
}"""
FOCUSED = """() => {
    const e = document.activeElement;
    return e.getAttribute("aria-label") || e.labels?.[0]?.textContent || e.textContent;
}"""


@pytest.fixture(scope="module")
def home(tmp_path_factory, scene_samples, benchmark_root) -> Path:
    needs_chromium()
    home = tmp_path_factory.mktemp("app")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPECEYES_RUNS", str(home / "runs"))
        store_run("small", scene_samples, benchmark_root)
        arms, judged = make_run(samples=make_samples(N // len(POPE), POPE))
        write_answers("many", {"collect": arms["collect"]})
        write_verdicts("many", {"collect": judged["collect"]})
    (home / "notebooks").mkdir()
    for path in (ROOT / "notebooks").glob("explore_*.ipynb"):  # the app holds all of them
        shutil.copy(path, home / "notebooks")
    copy_with("explore_traces", home / "notebooks", run="small")
    copy_with("explore_gating", home / "notebooks", run="small", threshold=0.9, k=K_STORED, author="Ada")
    return home


@pytest.fixture(scope="module")
def app(home) -> Iterator[str]:
    with app_served(home, home / "notebooks", home / "runs") as address:
        yield address


def test_the_app_is_served_as_make_does_and_to_this_machine_only(app):
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for option in (*APP_OPTIONS, "scripts/app/notebooks.py", 'JUPYTER_PATH="$$PWD/scripts/app"'):
        assert option in makefile
    port = app.rsplit(":", 1)[1]
    for host, status in (("localhost", 200), ("somewhere.example", 403)):
        with httpx2.Client(trust_env=False) as client:
            assert client.get(app, headers={"Host": f"{host}:{port}"}).status_code == status


class Gate:
    """The explorer on a page, and what a person does to it."""

    def __init__(self, page) -> None:
        self.page = page

    @property
    def explorer(self):
        return self.page.locator(".se-explorer.widget-vbox").first

    def wait(self) -> None:
        self.explorer.locator(".se-samples tbody tr").first.wait_for()

    def until(self, condition: str, argument: object = None) -> None:
        self.page.wait_for_function(condition, arg=argument)

    def hash(self) -> str:
        return self.page.evaluate("location.hash")

    def caption(self) -> str:
        return self.explorer.locator(".se-caption").first.inner_text()

    def threshold(self) -> str:
        return self.explorer.locator("[role=slider]").first.get_attribute("aria-valuetext")

    def open(self, fragment: str) -> None:
        self.page.evaluate("f => { location.hash = f; }", fragment)


def test_a_view_is_linked_pinned_paged_and_kept(app, home):
    with chromium() as browser:
        page, foreign = offline_page(browser, app, 1440, 900)
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        faults: list[str] = []
        page.on("pageerror", lambda error: faults.append(str(error)))
        gate = Gate(page)
        page.goto(app)
        page.get_by_text("The gate", exact=True).click()
        gate.wait()

        fits_the_screen(gate, home)
        a_link_survives(gate)
        the_keyboard_is_enough(gate)
        a_pin_stays(gate, home)
        texts_are_read_in_both_themes(gate, home)
        all_pages_are_there(gate)

        page.locator(".se-home").click()
        page.get_by_role("heading", name="SpecEyes explorers").wait_for()
        page.get_by_text("The agent", exact=True).click()
        gate.wait()
        assert foreign == []
        assert faults == []


def fits_the_screen(gate: Gate, home: Path) -> None:
    """The explorer is first, and charts and sample are inside the window."""
    picture = gate.explorer.locator(".se-stage img")
    gate.until("i => i.complete && i.naturalWidth > 50", picture.element_handle())
    gate.page.screenshot(path=home / "gate_1440.png")
    assert gate.explorer.bounding_box()["y"] < 60
    for part in (
        gate.explorer.locator("svg.se-chart").nth(0),
        gate.explorer.locator("svg.se-chart").nth(1),
        gate.explorer.locator(".se-stage"),
        gate.explorer.locator(".se-tokens"),
    ):
        box = part.bounding_box()
        assert box["y"] + box["height"] <= 900
        assert box["x"] + box["width"] <= 1440
    assert gate.page.evaluate("document.documentElement.scrollWidth") <= 1440


def a_link_survives(gate: Gate) -> None:
    """A view is in the address: after a reload, back and forward, and for a person who gets the copied link."""
    gate.until("() => location.hash.startsWith('#gate=small')")
    before = gate.hash()
    gate.explorer.locator(".se-count:not([disabled])").first.click()
    gate.until("() => location.hash.includes('list=decision')")
    decision = gate.hash()
    gate.explorer.locator(".se-samples tbody tr").nth(1).click()
    gate.until("h => location.hash !== h", decision)
    shown, listed = gate.hash(), gate.caption()
    gate.page.reload()
    gate.wait()
    gate.until("c => document.querySelector('.se-caption')?.textContent === c", listed)
    assert gate.hash() == shown
    chosen = gate.explorer.locator(".se-samples tr.se-chosen").get_attribute("data-id")
    assert f"sample={chosen.replace('/', '%2F')}" in shown
    gate.explorer.get_by_role("button", name="copy link").click()
    gate.explorer.get_by_text("copied").wait_for()
    assert gate.page.evaluate("navigator.clipboard.readText()") == gate.page.url
    gate.explorer.get_by_role("button", name="show all samples").click()
    gate.until("() => !location.hash.includes('list=')")
    gate.page.go_back()
    gate.until("c => document.querySelector('.se-caption').textContent === c", listed)
    gate.page.go_forward()
    gate.until("() => document.querySelector('.se-caption').textContent.startsWith('all samples: 52')")
    gate.open("gate=small&threshold=high")
    gate.explorer.get_by_text("threshold is 'high', expected a number").wait_for()
    gate.open(before.removeprefix("#"))
    gate.until("() => document.querySelector('.se-message').textContent.trim() === ''")


def the_keyboard_is_enough(gate: Gate) -> None:
    """The tab key reaches every kind of control, each with a name; marks of a chart act on Enter."""
    page, names = gate.page, []
    gate.explorer.locator("select").first.focus()
    for _ in range(90):
        names.append(page.evaluate(FOCUSED).strip())
        page.keyboard.press("Tab")
    assert all(names)
    for needed in NEEDED:
        assert needed in names
    assert [n for n in names if re.fullmatch(r"accepted, draft right: \d+", n)]
    assert [n for n in names if re.fullmatch(r"gained \(.+\), samples: \d+.*", n)]
    gate.explorer.locator("rect.se-clickable[tabindex='0']").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    gate.until("() => /drafts, confidence/.test(document.querySelector('.se-caption').textContent)")


def a_pin_stays(gate: Gate, home: Path) -> None:
    """A pinned setting stays as line and ring while the threshold moves; the list holds what flips, as files too."""
    page = gate.page
    gate.explorer.get_by_role("button", name="pin", exact=True).press("Enter")
    gate.until("() => document.querySelectorAll('.se-ghost').length === 2")
    before = gate.threshold()
    gate.explorer.locator("[role=slider]").first.focus()
    page.keyboard.press("PageUp")
    gate.until("t => document.querySelector('[role=slider]').getAttribute('aria-valuetext') !== t", before)
    gate.until("() => /^flipped .*: [1-9]/.test(document.querySelector('.se-caption').textContent)")
    assert gate.explorer.locator(".se-against").count() == 4
    assert gate.explorer.locator("line.se-ghost title").text_content() == f"pinned {before}"
    n = int(re.search(r": (\d+) of 52", gate.caption())[1])
    assert gate.explorer.locator(".se-samples tbody tr").count() == n
    for what in ("list (CSV)", "contact sheet of the list (PNG)"):
        gate.explorer.get_by_label("file", exact=True).select_option(what)
        with page.expect_download() as download:
            gate.explorer.get_by_role("button", name="save").click()
        download.value.save_as(home / download.value.suggested_filename)
    with (home / "small_list.csv").open() as file:
        assert len(list(csv.DictReader(file))) == n
    assert (home / "small_contact.png").read_bytes().startswith(b"\x89PNG")
    gate.explorer.get_by_role("button", name="thumbnails").click()
    thumb = gate.explorer.locator(".se-thumb img").first
    gate.until("i => i.complete && i.naturalWidth > 10", thumb.element_handle())


def texts_are_read_in_both_themes(gate: Gate, home: Path) -> None:
    grounds = []
    for scheme in ("light", "dark"):
        gate.page.emulate_media(color_scheme=scheme)
        gate.until("s => document.body.dataset.jpThemeLight === String(s === 'light')", scheme)
        assert gate.page.evaluate(FAINT, gate.explorer.element_handle()) == []
        grounds.append(gate.page.evaluate("getComputedStyle(document.body).backgroundColor"))
        gate.page.screenshot(path=home / f"gate_{scheme}.png")
    assert len(set(grounds)) == 2


def all_pages_are_there(gate: Gate) -> None:
    """All 9,000 rows of a large run, by keys and by number."""
    gate.open("gate=many&threshold=0.5&order=id")
    gate.until("() => document.querySelector('.se-caption').textContent === 'all samples: 9000 of 9000'")
    frame = gate.explorer.locator(".se-frame")
    frame.focus()
    gate.page.keyboard.press("PageDown")
    gate.until("() => document.querySelector('[aria-label=page]').value === '2'")
    gate.page.keyboard.press("End")
    gate.until("() => document.querySelector('[aria-label=page]').value === '90'")
    assert frame.locator("tbody tr").count() == 100
    assert frame.locator("tr").last.get_attribute("class") == "se-chosen"
    field = gate.explorer.get_by_label("page", exact=True)
    field.fill("45")
    field.press("Enter")
    gate.until("() => document.querySelector('[aria-label=page]').value === '45'")

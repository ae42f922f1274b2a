"""A person explores a run in JupyterLab: drags, clicks, marks; the page and the disk agree."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from explore_run import store_run
from lab import OUTPUTS, chromium, copy_with, needs_chromium, offline_page, run_all, served

HEIGHT = 2400  # tall enough for a whole explorer: JupyterLab draws what is in view


@pytest.fixture(scope="module")
def home(tmp_path_factory, scene_samples, benchmark_root) -> Path:
    """A run, and the explorers' notebooks set to open it."""
    needs_chromium()
    home = tmp_path_factory.mktemp("explorers")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPECEYES_RUNS", str(home / "runs"))
        store_run("small", scene_samples, benchmark_root)
    (home / "notebooks").mkdir()
    copy_with("explore_gating", home / "notebooks", run="small", threshold=0.9, k=32, author="Ada")
    copy_with("explore_traces", home / "notebooks", run="small", other_run="small")
    return home


@pytest.fixture(scope="module")
def browser() -> Iterator:
    needs_chromium()
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def lab(home, browser) -> Iterator[tuple]:
    with served(home, home / "notebooks", home / "runs") as address:
        yield browser, address


def opened(lab, name: str) -> tuple:
    """The explorer of a notebook after all cells ran, alone on the screen: (page, what it wanted from elsewhere)."""
    browser, address = lab
    page, foreign = offline_page(browser, address, 1500, HEIGHT)
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    run_all(page, address, name)
    outputs = page.evaluate(OUTPUTS)
    assert [o for o in outputs if o["output_type"] == "error" or o.get("name") == "stderr"] == []
    explorer = page.locator(".se-explorer.widget-vbox").first
    explorer.scroll_into_view_if_needed()
    explorer.locator(".se-samples tbody tr").first.wait_for()
    return page, explorer, foreign, faults


def test_the_gate_is_explored_and_a_mark_is_on_disk(lab, home):
    page, explorer, foreign, faults = opened(lab, "explore_gating")
    handle = explorer.locator("[role=slider]").first
    accuracy = explorer.locator(".se-card-value").first

    # the threshold: by keys, by typing, by the mouse
    before = handle.get_attribute("aria-valuetext")
    assert before == "0.9000"
    handle.focus()
    page.keyboard.press("PageUp")
    changed(handle, "aria-valuetext", before)
    field = explorer.get_by_label("threshold", exact=True).locator("visible=true").first
    field.fill("0.5")
    field.press("Enter")
    page.wait_for_function("h => h.getAttribute('aria-valuetext') === '0.5000'", arg=handle.element_handle())
    box = explorer.locator("svg.se-chart").first.bounding_box()
    grip = explorer.locator(".se-grip").first.bounding_box()
    page.mouse.move(grip["x"] + grip["width"] / 2, grip["y"] + grip["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + 60, steps=4)
    page.mouse.up()
    changed(handle, "aria-valuetext", "0.5000")
    assert re.fullmatch(r"\d+\.\d %", accuracy.inner_text())

    # a click on a cell and on a bar filters the list
    caption = explorer.locator(".se-caption").first
    cell = explorer.locator(".se-count:not([disabled])").first
    cell.click()
    page.wait_for_function("c => !c.textContent.startsWith('all samples')", arg=caption.element_handle())
    n_found = re.search(r": (\d+) of 52", caption.inner_text())[1]
    assert explorer.locator(".se-samples tbody tr").count() == int(n_found) == int(cell.inner_text())
    explorer.locator("rect.se-clickable").last.click()
    page.wait_for_function("c => /drafts, confidence/.test(c.textContent)", arg=caption.element_handle())
    explorer.get_by_role("button", name="show all samples").click()
    page.wait_for_function(
        "c => c.textContent.startsWith('all samples: 52 of 52')", arg=caption.element_handle()
    )

    # a sample: its picture is decoded, its tokens are shown, and text stays text
    explorer.locator(".se-samples tbody tr").nth(4).click()
    chosen = explorer.locator(".se-samples tr.se-chosen").get_attribute("data-id")
    picture = explorer.locator(".se-stage img")
    page.wait_for_function("i => i.complete && i.naturalWidth > 50", arg=picture.element_handle())
    assert explorer.locator(".se-token").count() >= 1
    assert explorer.locator(".se-alternative").count() >= 5
    assert explorer.locator(".se-turn").count() >= 1
    explorer.locator(".se-stage").focus()
    page.keyboard.press("+")
    page.wait_for_function(
        "l => /scale\\(1\\.5\\)/.test(l.style.transform)", arg=explorer.locator(".se-layer").element_handle()
    )
    page.screenshot(path=home / "explore_gating.png")

    # marked by a key: on disk at once, and the next sample is up
    explorer.locator(".se-frame").focus()
    page.keyboard.press("u")
    page.wait_for_function(
        "([t, id]) => t.querySelector('tr.se-chosen').dataset.id !== id",
        arg=[explorer.locator(".se-frame").element_handle(), chosen],
    )
    marks = pd.read_csv(home / "runs" / "small" / "human_checks.csv")
    assert marks[["id", "mark", "author"]].to_numpy().tolist() == [[chosen, "unsound", "Ada"]]
    assert foreign == []
    assert faults == []
    page.close()


def changed(handle, attribute: str, before: str) -> None:
    handle.page.wait_for_function(
        "([h, name, old]) => h.getAttribute(name) !== old", arg=[handle.element_handle(), attribute, before]
    )


def test_trajectories_are_searched_and_compared(lab, home):
    page, explorer, foreign, faults = opened(lab, "explore_traces")
    caption = explorer.locator(".se-caption").first
    assert caption.inner_text().startswith("52 of 52 trajectories")
    search = explorer.get_by_label("search", exact=True).locator("visible=true").first
    search.fill("zoom")
    search.press("Enter")
    page.wait_for_function("c => !c.textContent.startsWith('52 of')", arg=caption.element_handle())
    n_found = explorer.locator(".se-samples tbody tr").count()
    assert 0 < n_found < 52
    explorer.locator("mark").first.wait_for()  # the words, where they occur
    explorer.locator(".se-frame").focus()
    first = explorer.locator("tr.se-chosen").get_attribute("data-id")
    page.keyboard.press("j")
    page.wait_for_function(
        "([t, id]) => t.querySelector('tr.se-chosen').dataset.id !== id",
        arg=[explorer.locator(".se-frame").element_handle(), first],
    )
    text = explorer.inner_text()
    assert "small · collect" in text
    assert "small · baseline" in text
    assert "word for word the same" in text
    page.screenshot(path=home / "explore_traces.png")
    assert foreign == []
    assert faults == []
    page.close()

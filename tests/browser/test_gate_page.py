"""The gate of a run as one file, opened from disk without a network: its numbers are those of the explorer."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlencode

import hostile
import numpy as np
import pandas as pd
import pytest
from explore_run import K_STORED, store_run
from lab import chromium, needs_chromium, offline_page

from speceyes_lib.explore import explain, gate_page, gating, links
from speceyes_lib.explore.gating import Gating
from speceyes_lib.explore.state import Chosen, GateView
from speceyes_lib.formats import import_table
from speceyes_lib.runs import recorded_run
from speceyes_lib.stats.paired import paired_test

VIEW = GateView(threshold=0.9, k=K_STORED)
CARDS = {
    "accuracy": "accuracy",
    "predicted speedup": "speedup",
    "coverage (accepted)": "accepted",
    "selective risk": "risk",
}
READY = "() => document.documentElement.dataset.ready === 'true'"
# goes to each view, and returns what its cards, counts and sentence hold
VISIT = """async (views) => {
    const shown = [];
    for (const view of views) {
        const arrived = new Promise((resolve) => addEventListener('hashchange', resolve, {once: true}));
        location.hash = view;
        await arrived;
        const cards = [...document.querySelectorAll('.card')]
            .map((card) => [card.dataset.name, {...card.dataset, text: card.innerText}]);
        const counts = [...document.querySelectorAll('.tables td button')].map((cell) => Number(cell.textContent));
        shown.push({
            cards: Object.fromEntries(cards), counts, why: document.querySelector('.why').textContent,
        });
    }
    return shown;
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator:
    needs_chromium()
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def data(tmp_path_factory, scene_samples, benchmark_root) -> Iterator[Gating]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPECEYES_RUNS", str(tmp_path_factory.mktemp("runs")))
        store_run("small", scene_samples, benchmark_root, failed=3)
        yield Gating(recorded_run.open("small", strict=False))


@pytest.fixture(scope="module")
def page_file(data, tmp_path_factory) -> Path:
    """The file of the run, at VIEW."""
    path = tmp_path_factory.mktemp("page") / "gate.html"
    gate_page.write_gate_page(data, VIEW, path)
    return path


@pytest.fixture
def opened(browser, tmp_path):
    """Opens a file and returns its page; no page may fail, or ask for anything but the file."""
    pages = []

    def open_page(path: Path, fragment: str = "", width: int = 1440, height: int = 900):
        page, foreign = offline_page(browser, "file:", width, height)
        faults: list[str] = []
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda line: faults.append(line.text))
        page.context.set_offline(True)
        page.goto(path.as_uri() + fragment)
        page.wait_for_function(READY)
        pages.append((page, foreign, faults))
        return page

    yield open_page
    for page, foreign, faults in pages:
        page.close()
        assert foreign == []
        assert faults == []


def fragment(**parts) -> str:
    return urlencode(parts)


def number(text: str) -> float:
    return float(text.replace("NaN", "nan"))


@pytest.mark.parametrize("protocol", ["", "paper"])
def test_the_numbers_are_those_of_the_explorer(data, opened, tmp_path, protocol):
    view = replace(VIEW, protocol=protocol)
    gate_page.write_gate_page(data, view, tmp_path / "gate.html")
    page = opened(tmp_path / "gate.html")
    inside = data.part("all", protocol).score("min", K_STORED)
    thresholds = [0.0, 0.5, float(np.median(inside[np.isfinite(inside)])), 0.97, 1.0]
    views = [
        replace(view, task=task, score=score, threshold=threshold)
        for task, score, threshold in itertools.product(
            ["all", "pope", "hr/hr_bench_4k"], ["min", "entropy"], thresholds
        )
    ]
    sample = data.part("all", protocol).ids[-1]
    shown = page.evaluate(
        VISIT,
        [fragment(task=v.task, score=v.score, threshold=repr(v.threshold), sample=sample) for v in views],
    )
    for each, on_page in zip(views, shown, strict=True):
        summary = gating.gate_summary(data, each)
        for name, part in CARDS.items():
            expected, card = getattr(summary, part), on_page["cards"][name]
            found = [number(card[key]) for key in ("value", "low", "high")]
            assert found == pytest.approx(
                [expected.value, expected.low, expected.high], rel=1e-9, abs=1e-9, nan_ok=True
            ), (each, name)
            assert int(card["n"]) == expected.n
            if np.isfinite(expected.value):
                assert expected.shown().split(" [")[0] in card["text"]
        assert summary.difference_pp.shown() in on_page["cards"]["accuracy"]["text"]
        decided = data.decided(each)
        counts = [*gating.decisions_of(decided).to_numpy().ravel(), *gating.ledger_totals(decided)["n"]]
        assert on_page["counts"] == counts


def test_the_sentence_on_a_sample_is_that_of_the_explorer(data, opened, page_file):
    page = opened(page_file)
    decided = data.decided(VIEW)
    ids = decided.groupby(["decision", "outcome"])["id"].first().tolist()
    assert len(ids) > 5
    shown = page.evaluate(VISIT, [fragment(threshold=0.9, sample=id_) for id_ in ids])
    rows = decided.set_index("id", drop=False)
    for id_, on_page in zip(ids, shown, strict=True):
        sentence = explain.reason(rows.loc[id_], explain.answers_of(data, id_), VIEW)
        assert on_page["why"] == sentence


def test_two_thresholds_are_compared_on_the_same_samples_and_sent(data, opened, page_file, tmp_path):
    page = opened(page_file, "#other=0.98")
    first, second = (data.decided(replace(VIEW, threshold=threshold)) for threshold in (0.9, 0.98))
    test = paired_test(second["right"], first["right"], second["group"])
    versus = page.locator(".versus").inner_text()
    assert f"{test.difference.value:+.1f} pp [" in versus
    assert f"McNemar p={test.p_value:.3f} ({test.b} against {test.c})" in versus
    moved = first["id"][first["decision"] != second["decision"]].tolist()
    page.get_by_role("button", name="list them").click()
    assert sorted(
        page.evaluate("[...document.querySelectorAll('tr[data-id]')].map(row => row.dataset.id)")
    ) == sorted(moved)

    # moved on, then saved: the copy opens at the same view, by itself
    page.get_by_label("compare with").fill("0.95")
    page.get_by_label("compare with").press("Enter")
    with page.expect_download() as download:
        page.get_by_role("button", name="save with this view").click()
    download.value.save_as(tmp_path / "copy.html")
    copy = opened(tmp_path / "copy.html")
    assert copy.get_by_label("compare with").input_value() == "0.95"
    assert copy.locator(".versus").inner_text() == page.locator(".versus").inner_text()
    assert copy.locator(".list select").input_value() == "moved"
    # and so does a link to the file
    linked = opened(page_file, f"#{fragment(threshold=0.9, other=0.95, show='moved')}")
    assert linked.locator(".versus").inner_text() == page.locator(".versus").inner_text()
    linked.reload()
    linked.wait_for_function(READY)
    assert linked.get_by_label("compare with").input_value() == "0.95"


def test_a_link_that_does_not_fit_is_named_and_the_rest_of_it_is_shown(opened, page_file):
    page = opened(page_file, "#score=maximum&threshold=high&task=pope&other=0.5")
    message = page.locator(".controls ~ .message").inner_text()
    assert 'score "maximum"' in message
    assert 'threshold "high"' in message
    assert page.get_by_label("task").input_value() == "pope"
    assert page.get_by_label("compare with").input_value() == "0.5"


def test_page_and_explorer_open_each_others_links(opened, page_file):
    view = replace(
        VIEW, task="pope", score="entropy", threshold=0.97, search="the", order="-confidence",
        chosen=Chosen("decision", "accepted right"),
    )  # fmt: skip
    view = replace(view, pin=replace(view, threshold=0.95).pinned("small"))
    flipped = replace(view, chosen=Chosen("flipped"), search="", order="nearest", pin=view.pin)
    page = opened(page_file, f"#{links.fragment_of('small', view)}")
    for each in (view, flipped):
        page.evaluate("f => { location.hash = f; }", links.fragment_of("small", each))
        page.get_by_role(
            "button", name="copy as text"
        ).click()  # a click comes after the change of the address
        page.wait_for_function("() => location.hash.includes('sample=')")
        run, on_page = links.view_of(page.evaluate("location.hash"))
        assert (run, replace(on_page, sample="")) == ("small", each)
        assert on_page.sample in page.evaluate(
            "[...document.querySelectorAll('tr[data-id]')].map(r => r.dataset.id)"
        )
    elsewhere = replace(view, k=4, chosen=Chosen("random", n=3), pin=replace(view, k=2).pinned("other"))
    page.evaluate("f => { location.hash = f; }", links.fragment_of("small", elsewhere))
    page.wait_for_function(
        "() => document.querySelector('.controls ~ .message').textContent.includes('does not have')"
    )
    message = page.locator(".controls ~ .message").inner_text()
    for named in ('k "4"', 'list "random"', 'pin "other"', 'pin_k "2"'):
        assert named in message
    assert page.get_by_label("compare with").input_value() == ""
    assert page.get_by_label("task").input_value() == "pope"


def test_keys_alone_reach_everything(opened, page_file):
    page = opened(page_file, width=1000)
    focused = "document.activeElement"

    def tab_to(found: str) -> None:
        for _ in range(60):
            page.keyboard.press("Tab")
            if page.evaluate(f"{found}.includes({focused})"):
                return
        pytest.fail(f"no way by the Tab key to {found}")

    tab_to("[...document.querySelectorAll('input[type=range]')]")
    field = page.get_by_label("threshold", exact=True).first
    at = [float(field.input_value())]
    for key in ("ArrowRight", "PageUp", "PageDown", "ArrowLeft"):
        page.keyboard.press(key)
        at.append(float(field.input_value()))
    assert at[4] <= at[0] < at[1] == at[3] < at[2]
    tab_to("[...document.querySelectorAll('.tables button')]")
    page.keyboard.press("Enter")
    n = int(page.evaluate(f"{focused}.textContent"))
    assert page.locator("tr[data-id]").count() == n > 0
    tab_to("[...document.querySelectorAll('.frame')]")
    chosen = page.locator("tr[aria-current=true]").get_attribute("data-id")
    page.keyboard.press("ArrowDown")
    assert page.locator("tr[aria-current=true]").get_attribute("data-id") != chosen
    tab_to("[...document.querySelectorAll('.token')]")
    page.keyboard.press("Enter")
    assert page.evaluate(f"{focused}.getAttribute('aria-pressed')") == "true"


def test_the_list_is_searched_sorted_and_turned_over_nine_thousand_rows(opened, tmp_path, monkeypatch):
    monkeypatch.setenv("SPECEYES_RUNS", str(tmp_path / "runs"))
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"id": [f"s{i:05d}" for i in range(9000)], "confidence": rng.random(9000).round(6)})
    table["draft_right"] = (rng.random(9000) < table["confidence"]).astype(int)
    import_table(table, "many")
    notes: list[str] = []
    gate_page.export_gate_page("many", tmp_path / "gate.html", [0.5], notes.append)
    assert (tmp_path / "gate.html").stat().st_size < 10_000_000
    page = opened(tmp_path / "gate.html")
    ids = "[...document.querySelectorAll('tr[data-id]')].map(row => row.dataset.id)"
    page.locator("th[data-name=confidence] button").click()
    page.locator("th[data-name=confidence] button").click()
    highest = table.sort_values("confidence", ascending=False)["id"].head(50)
    assert set(page.evaluate(ids)) == {f"table/all/{id_}" for id_ in highest}
    assert page.get_by_text("page 1 of 180").is_visible()
    page.get_by_role("button", name="next page").click()
    assert page.get_by_text("page 2 of 180").is_visible()
    assert not set(page.evaluate(ids)) & {f"table/all/{id_}" for id_ in highest}
    page.get_by_label("find").fill("S01234")
    assert page.evaluate(ids) == ["table/all/s01234"]
    # accuracy is not known without an agent; coverage and risk are
    accepted = table["confidence"] > 0.5
    cards = {
        card["name"]: card
        for card in page.evaluate("[...document.querySelectorAll('.card')].map(c => ({...c.dataset}))")
    }
    assert number(cards["coverage (accepted)"]["value"]) == pytest.approx(100 * accepted.mean())
    assert number(cards["selective risk"]["value"]) == pytest.approx(
        100 * (1 - table["draft_right"][accepted].mean())
    )
    assert np.isnan(number(cards["accuracy"]["value"]))
    assert page.locator(".chart .title").all_text_contents() == [
        "Drafts by score",
        "Wrong among the accepted",
        "Accepted",
    ]
    assert "agent's answer is not recorded" in page.locator(".card").first.inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 1000])
def test_texts_are_readable_and_nothing_is_cut(opened, page_file, scheme, width):
    page = opened(page_file, "#other=0.5", width=width)
    page.emulate_media(color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(CONTRAST) == []
    pdf = page.pdf(prefer_css_page_size=True)
    assert pdf.startswith(b"%PDF")
    page.emulate_media(media="print", color_scheme=scheme)
    assert page.evaluate(CONTRAST) == []


# texts whose contrast with what is behind them is below 4.5 (tokens have colours of their own)
CONTRAST = """() => {
    const channels = (color) => color.match(/[\\d.]+/g).map(Number);
    const linear = (v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    const light = ([r, g, b]) => [r, g, b].map((v) => linear(v / 255))
        .reduce((sum, v, k) => sum + v * [0.2126, 0.7152, 0.0722][k], 0);
    const behind = (element) => {
        for (; element; element = element.parentElement) {
            const color = channels(getComputedStyle(element).backgroundColor);
            if (color.length < 4 || color[3] > 0) return color;
        }
        return [255, 255, 255];
    };
    const low = [];
    for (const element of document.querySelectorAll('body *')) {
        if (element.closest('.token, script, style, noscript') || !element.checkVisibility()) continue;
        if (![...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim())) continue;
        const style = getComputedStyle(element);
        const ink = channels(element.closest('svg') ? style.fill : style.color);
        const [a, b] = [light(ink), light(behind(element))].sort((x, y) => y - x);
        if ((a + 0.05) / (b + 0.05) < 4.5) low.push(`${element.tagName}: ${element.textContent.slice(0, 30)}`);
    }
    return low;
}"""


def test_markup_from_scripts_is_refused_and_foreign_scripts_do_not_run(browser, page_file, tmp_path):
    html = page_file.read_text("utf-8")
    evil = "<script>window.attacked=1</script><img src=x onerror=window.attacked=1>"
    (tmp_path / "evil.html").write_text(html.replace("<main></main>", f"<main></main>{evil}"), "utf-8")
    page, _ = offline_page(browser, "file:", 1000, 800)
    page.goto(page_file.as_uri())
    page.wait_for_function(READY)
    refused = "() => { try { document.body.innerHTML = '<b>x</b>'; } catch (error) { return error.name; } }"
    assert page.evaluate(refused) == "TypeError"
    other, _ = offline_page(browser, "file:", 1000, 800)
    other.goto((tmp_path / "evil.html").as_uri())
    other.wait_for_function(READY)
    assert other.evaluate("window.attacked") is None
    other.close()
    page.close()


def evil(value, place: str = "text"):
    """The value with an attack before every text in it; the attack names the text's key."""
    if isinstance(value, dict):
        return {key: evil(item, key.lower()) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [evil(item, place) for item in value]
    free = isinstance(value, str) and place not in ("color", "ink", "kind", "decision", "verdict")
    return f"{hostile.attack(place)} {value}" if free else value


def test_text_from_outside_stays_text_wherever_it_is_shown(data, opened, tmp_path):
    whole = gate_page.page_data(data, VIEW, other=0.95)
    texts = ("run", "commit", "names", "notes", "details", "scoreLabels", "origin", "costNote")
    whole |= {name: evil(whole[name], name.lower()) for name in texts}
    (tmp_path / "evil.html").write_bytes(gate_page.page_html(whole))
    page = opened(tmp_path / "evil.html")
    shown = set()
    for id_ in whole["ids"][::5]:
        page.evaluate(VISIT, [fragment(sample=id_, find="evil")])
        shown |= hostile.places(page.locator("body").inner_text())
    assert page.evaluate("window.attacked") is None
    active = (
        "iframe, object, plaintext, svg[onload], img:not([src^='data:']), main script, main style, [onerror]"
    )
    assert page.locator(active).count() == 0
    assert {"run", "names", "question", "options", "answer", "text", "title", "by", "head"} <= shown

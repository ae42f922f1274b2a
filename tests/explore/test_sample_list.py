"""The list of samples: every row is on some page, a search and a header change it, and it can be kept as files."""

from __future__ import annotations

import csv
import io
import shutil

import pytest
from explore_run import K_STORED
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from speceyes_lib.errors import UserError
from speceyes_lib.explore import gating
from speceyes_lib.explore.browser_parts import PAGE, SampleList
from speceyes_lib.explore.gating_explorer import FILES, GatingExplorer
from speceyes_lib.explore.state import Chosen, GateView
from speceyes_lib.judging import human

VIEW = GateView(threshold=0.9, k=K_STORED)
N = 9000


def filled(n: int, chosen: str = "") -> SampleList:
    samples = SampleList(columns=[{"title": "sample"}])
    samples.fill(
        [f"id{i}" for i in range(n)],
        lambda start, stop: [{"id": f"id{i}", "cells": [str(i)]} for i in range(start, stop)],
        chosen,
    )
    return samples


def test_every_row_of_9000_is_on_one_page_and_the_browser_holds_one_page():
    samples = filled(N)
    assert (samples.n_pages, samples.page) == (N // PAGE, 0)
    seen = []
    for _ in range(samples.n_pages):
        assert len(samples.rows) == PAGE
        seen += [row["id"] for row in samples.rows]
        samples.chosen = samples.rows[-1]["id"]
        samples.walk(1)
    assert seen == samples.ids
    assert samples.chosen == f"id{N - 1}"  # the end is the end


@given(n=st.integers(1, 350), at=st.integers(0, 400), by=st.integers(-500, 500))
def test_walking_opens_the_page_of_the_row_it_comes_to(n, at, by):
    at = min(at, n - 1)
    samples = filled(n, f"id{at}")
    assert samples.rows[at % PAGE]["id"] == f"id{at}"
    samples.walk(by)
    assert samples.chosen == f"id{min(max(at + by, 0), n - 1)}"
    assert samples.chosen in [row["id"] for row in samples.rows]


def test_an_empty_list_has_one_page_and_nowhere_to_walk():
    samples = filled(0)
    samples.walk(1)
    assert (samples.n_pages, samples.rows, samples.chosen) == (1, [], "")


@pytest.fixture
def explorer(tmp_path, monkeypatch, stored_run) -> GatingExplorer:
    monkeypatch.setenv("SPECEYES_RUNS", str(tmp_path / "runs"))
    shutil.copytree(stored_run, tmp_path / "runs")
    return GatingExplorer("small", VIEW, author="Ada")


def ids(explorer) -> list[str]:
    return [row["id"] for row in explorer.samples.rows]


def test_a_search_looks_into_questions_options_and_answers(explorer, scene_samples):
    question = scene_samples[10].question
    explorer.search.value = question.upper()
    words = question.casefold().split()
    asked = {s.id for s in scene_samples if all(word in s.question.casefold() for word in words)}
    assert asked <= set(ids(explorer)) != set()
    assert len(ids(explorer)) < len(scene_samples)
    explorer.search.value = "no such words <b>"
    assert ids(explorer) == []
    assert explorer.samples.caption.endswith(": 0 of 52")
    explorer.search.value = ""
    assert len(ids(explorer)) == 52


def test_a_header_sorts_up_then_down_then_as_before(explorer):
    nearest, decided = ids(explorer), explorer.decided.set_index("id")

    def click(key):
        explorer.follow_list({"sort": key})

    click("confidence")
    up = decided["confidence"].loc[ids(explorer)].dropna().tolist()
    assert up == sorted(up)
    assert explorer.samples.order == explorer.order.value == "confidence"
    click("confidence")
    down = decided["confidence"].loc[ids(explorer)].dropna().tolist()
    assert down == up[::-1]
    click("confidence")
    assert ids(explorer) == nearest
    click("draft")
    right = decided["draft_right"].loc[ids(explorer)].dropna().astype(bool).tolist()
    assert right == sorted(right)
    linked = GatingExplorer("small", VIEW)
    linked.open_link(explorer.page.fragment)
    assert ids(linked) == ids(explorer)
    click("no such column")
    assert explorer.samples.order == "draft"


def test_rows_in_view_get_their_pictures(explorer, monkeypatch):
    sent = []
    monkeypatch.setattr(explorer.samples, "send", lambda *message: sent.append(message))
    shown = ids(explorer)[:3]
    explorer.follow_list({"thumbs": [*shown, "no/such/sample"]})
    ((message, buffers),) = sent
    assert message == {"thumbs": [*shown, "no/such/sample"]}
    assert [len(b) > 100 for b in buffers] == [True, True, True, False]
    assert max(Image.open(io.BytesIO(buffers[0])).size) <= 214


def test_the_list_is_kept_as_csv_with_what_the_setting_does(explorer):
    explorer.put_mark("unsound")
    explorer.pin.click()
    explorer.threshold.value = 0.999
    rows = list(csv.DictReader(io.StringIO(explorer.file_of("list (CSV)").decode())))
    listed = explorer.decided[explorer.decided["flip"] != ""]
    assert {row["id"] for row in rows} == set(listed["id"])
    assert {row["threshold"] for row in rows} == {"0.999"}
    assert {(row["there"], row["decision"]) for row in rows} == {("accepted", "rejected")}
    explorer.unpin.click()
    (marked,) = [r for r in csv.DictReader(io.StringIO(explorer.file_of("list (CSV)").decode())) if r["mark"]]
    assert marked["mark"] == "unsound"


@pytest.mark.parametrize(
    ("what", "begins"),
    [
        ("charts (SVG)", b"<?xml"),
        ("charts (PNG)", b"\x89PNG"),
        ("sample (HTML)", b"<!doctype html>"),
        ("contact sheet of the list (PNG)", b"\x89PNG"),
    ],
)
def test_what_is_shown_is_kept_as_a_file(explorer, monkeypatch, what, begins):
    sent = []
    monkeypatch.setattr(explorer.page, "send", lambda *message: sent.append(message))
    explorer.file.value = what
    explorer.save.click()
    ((message, (data,)),) = sent
    assert data.startswith(begins)
    assert message["download"] == f"small_{what.split()[0]}.{FILES[what][0]}"
    explorer.search.value = "no such words"
    if not what.startswith("charts"):
        with pytest.raises(UserError, match="the list is empty"):
            explorer.file_of(what)


def test_a_page_to_keep_escapes_what_comes_from_outside(explorer):
    id_ = ids(explorer)[0]
    explorer.open_sample(id_)
    human.append_override(
        "small",
        id=id_,
        answer=explorer.gating.run.judged("collect")[id_].verdicts[0].answer,
        verdict="wrong",
        reason="<script>alert(1)</script>",
        author="<i>Ada",
    )
    explorer.gating.read_checks()
    page = explorer.file_of("sample (HTML)").decode()
    assert "&lt;script&gt;alert(1)" in page
    assert "<script" not in page
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")


def test_a_list_of_another_kind_is_not_cut(explorer):
    explorer.choose(Chosen("disagree"))
    rows = gating.listed(explorer.decided, explorer.view)
    assert ids(explorer) == rows["id"].tolist()

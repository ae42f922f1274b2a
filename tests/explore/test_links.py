"""A link holds a whole view: written and read again it is the same, and nothing from outside passes unchecked."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from explore_run import K_STORED
from hypothesis import given
from hypothesis import strategies as st

from speceyes_lib.errors import UserError
from speceyes_lib.explore import links
from speceyes_lib.explore.gating_explorer import GatingExplorer
from speceyes_lib.explore.state import Chosen, GateView, Pin
from speceyes_lib.params import GatingExplorerParams

VIEW = GateView(threshold=0.9, k=K_STORED)
SHARE = st.floats(0, 1)
named = [(kind, name) for kind, names in links.LISTS.items() for name in names or ("",)]
chosen = st.builds(
    lambda kind, low, high, n: Chosen(
        *kind,
        *((low, high) if kind[0] in ("bar", "moved") else (0.0, 1.0)),
        **({"n": n, "seed": 7} if kind[0] in ("random", "borderline") else {}),
    ),
    st.sampled_from(named),
    SHARE,
    SHARE,
    st.integers(1, 10**6),
)
views = st.builds(
    GateView,
    task=st.sampled_from(["all", "hr", "pope/random"]),
    score=st.text(min_size=1, max_size=20),
    k=st.integers(2, 10**6),
    slope=st.floats(1e-3, 100),
    router=st.sampled_from(["large", "small", "none"]),
    threshold=SHARE,
    protocol=st.sampled_from(["", "strict", "paper"]),
    chosen=chosen,
    sample=st.text(max_size=40),
    pin=st.none()
    | st.builds(
        Pin,
        run=st.text(min_size=1, max_size=20),
        score=st.sampled_from(["min", "é&="]),
        k=st.integers(2, 99),
        slope=st.floats(1e-3, 100),
        router=st.sampled_from(["large", "none"]),
        threshold=SHARE,
        protocol=st.sampled_from(["", "paper"]),
    ),
)


@given(view=views, run=st.text(min_size=1, max_size=30))
def test_a_link_read_again_is_the_view_it_was_made_of(view, run):
    fragment = links.fragment_of(run, view)
    assert links.view_of(fragment) == (run, view)
    assert links.view_of(f"http://localhost:8866/voila/render/explore_gating.ipynb?a=1#{fragment}") == (
        run,
        view,
    )


@pytest.mark.parametrize(
    ("link", "fault"),
    [
        ("", "names no run"),
        ("#gate=", "names no run"),
        ("#score=min", "names no run"),
        ("#gate=demo&treshold=1", "a field 'treshold'"),
        ("#gate=demo&threshold=1e99", "the link's threshold is '1e99', expected a number from -1e"),
        ("#gate=demo&threshold=nan", "the link's threshold is 'nan'"),
        ("#gate=demo&k=2.5", "the link's k is '2.5', expected a whole number"),
        ("#gate=demo&router=huge", "the link's router is 'huge', expected one of large, small, none"),
        ("#gate=demo&list=gold", "the link's list is 'gold'"),
        ("#gate=demo&list=outcome&name=won", "name of the list 'outcome' is 'won', expected one of gained"),
        ("#gate=demo&list=all&name=x", "name of the list 'all' is 'x', expected none"),
        ("#gate=demo&pin=demo&pin_threshold=high", "the link's pin_threshold is 'high'"),
        ("#gate=demo&list=flipped&name=gold", "expected one of , better, worse, same"),
        ("#gate=demo&sample=" + "x" * 5000, "expected at most 4000"),
    ],
)
def test_a_field_without_such_a_value_is_named(link, fault):
    with pytest.raises(UserError, match=fault):
        links.view_of(link)


@pytest.fixture
def runs(tmp_path, monkeypatch, stored_run) -> Path:
    monkeypatch.setenv("SPECEYES_RUNS", str(tmp_path / "runs"))
    return shutil.copytree(stored_run, tmp_path / "runs")


def test_a_link_opens_what_was_shown(runs):
    first = GatingExplorer("small", VIEW)
    first.task.value = "hr"
    first.threshold.value = 0.95
    first.choose(Chosen("disagree"))
    first.step(2)
    second = GatingExplorer("small", VIEW)
    second.open_link(first.page.fragment)
    assert second.view == first.view
    assert second.page.fragment == first.page.fragment
    assert second.samples.caption == first.samples.caption
    assert second.microscope.question.value == first.microscope.question.value
    assert (second.task.value, second.threshold.value, second.queue.value) == ("hr", 0.95, "disagree")
    second.open_link(links.fragment_of("small", VIEW))  # back
    assert (second.task.value, second.view.chosen) == ("all", Chosen())
    assert second.message.value == ""


def test_the_notebook_begins_at_a_link(runs):
    link = f"http://x/#{links.fragment_of('small', replace(VIEW, threshold=0.5))}"
    params = GatingExplorerParams(run="small", threshold=0.9, k=K_STORED, link=link)
    assert GatingExplorer.of(params).threshold.value == 0.5


def test_a_link_that_cannot_be_opened_changes_nothing(runs):
    explorer = GatingExplorer("small", VIEW)
    before = explorer.view
    for link in ("#gate=../../etc", "#gate=small&threshold=inf", "#gate=%3Cb%3E"):
        with pytest.raises(UserError):
            explorer.open_link(link)
        assert explorer.view == before


def test_what_the_run_cannot_show_of_a_link_is_named(runs):
    explorer = GatingExplorer("small", VIEW)
    explorer.open_link("#gate=small&score=%3Cb%3E&k=4096&split=gold&sample=a/b/c&threshold=0.5")
    for name in (
        "score &#x27;&lt;b&gt;&#x27;",
        "k 4096",
        "task &#x27;gold&#x27;",
        "sample &#x27;a/b/c&#x27;",
    ):
        assert name in explorer.message.value
    assert explorer.view.threshold == 0.5
    assert explorer.numbers.value
    explorer.open_link("#gate=small&threshold=7")  # confidences of this run lie within 0 and 1
    assert "threshold 7" in explorer.message.value
    assert explorer.view.threshold == VIEW.threshold

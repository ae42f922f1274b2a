"""The explorers without a browser: controls are attributes, and they show what the view functions return."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from explore_run import K_STORED, store_run
from synthetic_run import write_run

from speceyes_lib.explore import browser_parts, gating, stills
from speceyes_lib.explore.gating_explorer import GatingExplorer
from speceyes_lib.explore.state import Chosen, GateView, TraceView
from speceyes_lib.explore.trace_explorer import TraceExplorer
from speceyes_lib.formats.importing import import_files
from speceyes_lib.formats.speceyes_export import export
from speceyes_lib.judging import human
from speceyes_lib.paths import run_dir, stage_dir
from speceyes_lib.report.sample_page import short_id
from speceyes_lib.runs import recorded_run

VIEW = GateView(threshold=0.9, k=K_STORED)
ACCEPTED_RIGHT = Chosen("decision", "accepted right")


@pytest.fixture
def runs(tmp_path, monkeypatch, stored_run) -> Path:
    monkeypatch.setenv("SPECEYES_RUNS", str(tmp_path / "runs"))
    return shutil.copytree(stored_run, tmp_path / "runs")


@pytest.fixture
def explorer(runs) -> GatingExplorer:
    explorer = GatingExplorer("small", VIEW, author="Ada")
    assert explorer.message.value == ""
    return explorer


def shown_ids(explorer) -> list[str]:
    return [row["id"] for row in explorer.samples.rows]


def counted(explorer, key: str) -> int:
    """The number on a button of the tables of counts."""
    cells = [c for table in (explorer.decisions, explorer.ledger) for row in table.rows for c in row["cells"]]
    return next(int(cell["text"].split()[0]) for cell in cells if cell["key"] == key)


# ------------------------------------------------------------------ the gate


def test_the_explorer_shows_what_the_view_functions_return(explorer):
    explorer.threshold.value = 0.95
    assert explorer.view.threshold == 0.95
    summary = gating.gate_summary(explorer.gating, explorer.view)
    assert explorer.numbers.value == gating.summary_html(summary, "strict")
    decided = explorer.gating.decided(explorer.view)
    assert (
        counted(explorer, "decision:accepted right") == gating.decisions_of(decided).loc["accepted", "right"]
    )
    assert explorer.trade_off.dot == gating.current_dot(summary)
    assert shown_ids(explorer) == gating.listed(decided, explorer.view)["id"].tolist()


def test_dragging_and_typing_and_stepping_move_the_same_threshold(explorer):
    explorer.distribution.marker = 2.0
    assert explorer.threshold.value == pytest.approx(0.8807971)
    before = counted(explorer, "decision:accepted right")
    explorer.follow({"step": 1})
    explorer.follow({"step": -1})
    assert counted(explorer, "decision:accepted right") == before
    explorer.back.click()
    assert explorer.view.threshold == 0.9


def test_the_ends_of_the_axis_accept_everything_and_nothing(explorer):
    explorer.distribution.marker = explorer.distribution.spec["x"]["high"]
    assert explorer.view.threshold == 1.0
    explorer.distribution.marker = explorer.distribution.spec["x"]["low"]
    assert explorer.view.threshold == 0.0
    assert counted(explorer, "decision:rejected right") == 0


def test_clicks_on_cells_entries_bars_and_points_filter_the_list(explorer):
    explorer.choose(ACCEPTED_RIGHT)
    assert len(shown_ids(explorer)) == counted(explorer, "decision:accepted right")
    assert explorer.decisions.on == "decision:accepted right"
    explorer.choose(Chosen("outcome", "both right"))
    assert explorer.samples.caption.startswith("both right: draft and agent right: ")
    bar = explorer.distribution.spec["bars"][0]
    explorer.follow({"clicked": bar["id"]})
    assert len(shown_ids(explorer)) == int(bar["title"].split()[0])
    point = explorer.trade_off.spec["dots"][-1]["id"]
    explorer.follow({"clicked": point})
    assert explorer.view.threshold == point["threshold"]
    assert explorer.samples.caption.startswith("decided differently at ")
    explorer.show_all.click()
    assert len(shown_ids(explorer)) == 52


def test_every_control_of_the_setting_changes_the_view(explorer):
    for name, value in {
        "task": "pope",
        "score": "log",
        "k": 8,
        "router": "none",
        "protocol": "paper",
    }.items():
        getattr(explorer, name).value = value
        assert getattr(explorer.view, name) == value
        assert explorer.message.value == ""
    assert {i.split("/")[0] for i in shown_ids(explorer)} == {"pope"}
    assert "protocol paper" in explorer.numbers.value


def test_choosing_a_sample_opens_it(explorer):
    other = shown_ids(explorer)[3]
    explorer.samples.chosen = other
    assert explorer.view.sample == other
    assert short_id(other) in explorer.microscope.question.value
    assert explorer.microscope.picture.data[:2] in (b"\xff\xd8", b"\x89P")
    assert explorer.microscope.tokens.tokens
    explorer.next.click()
    assert explorer.view.sample == shown_ids(explorer)[4]
    explorer.previous.click()
    assert explorer.samples.chosen == other


def test_a_mark_is_on_disk_at_once_and_the_next_sample_is_up(explorer):
    first, second = shown_ids(explorer)[:2]
    explorer.note.value = 'é; the token "yes", twice'
    explorer.mark["unsound"].click()
    (line,) = human.read_gating_marks("small").to_dict("records")
    assert (line["id"], line["mark"], line["author"], line["arm"]) == (first, "unsound", "Ada", "collect")
    assert line["reason"] == 'é; the token "yes", twice'
    assert explorer.view.sample == second
    assert explorer.note.value == ""
    assert explorer.samples.rows[0]["cells"][-1] == "unsound"
    assert "1 of 52 marked" in explorer.review_note.value


def test_a_mark_is_put_and_taken_back(explorer):
    explorer.put_mark("sound")
    explorer.previous.click()
    explorer.put_mark(human.WITHDRAWN)
    assert len(human.read_checks("small")) == 2
    assert human.read_gating_marks("small").empty


def test_reopening_resumes_at_the_first_unmarked_sample(explorer):
    for _ in range(3):
        explorer.mark["sound"].click()
    assert GatingExplorer("small", VIEW).view.sample == explorer.view.sample


def test_without_an_author_nothing_is_kept_and_the_buttons_say_why(explorer):
    explorer.author.value = " "
    explorer.mark["sound"].click()
    assert "name" in explorer.mark_note.value
    assert not human.checks_path("small").exists()
    explorer.author.value = "Ada"
    explorer.mark["sound"].click()
    assert explorer.mark_note.value == ""
    assert human.checks_path("small").exists()


def test_the_author_is_the_user_of_git(runs, monkeypatch):
    for name, value in {"COUNT": "1", "KEY_0": "user.name", "VALUE_0": "Ada <b> Lovelace"}.items():
        monkeypatch.setenv(f"GIT_CONFIG_{name}", value)
    human.git_user.cache_clear()
    assert GatingExplorer("small", VIEW).author.value == "Ada <b> Lovelace"
    assert GatingExplorer("small", VIEW, author="Bob").author.value == "Bob"
    human.git_user.cache_clear()


def test_a_threshold_that_is_no_share_is_refused_in_words(explorer):
    for value in (1.5, -0.1, float("nan")):
        explorer.threshold.value = value
        assert f"a threshold of {value:g} is refused" in explorer.message.value
        assert explorer.threshold.value == explorer.view.threshold == 0.9
    explorer.threshold.value = 1.0
    assert explorer.message.value == ""


def test_overruling_a_verdict_needs_a_reason_and_shows_in_the_numbers(explorer):
    explorer.choose(ACCEPTED_RIGHT)
    explorer.verdict.value = "wrong"
    explorer.overrule.click()
    assert "reason is empty" in explorer.message.value
    explorer.note.value = "it is blue"
    explorer.overrule.click()
    assert explorer.message.value == ""
    assert "with 1 verdicts by people" in explorer.numbers.value
    assert "Ada: it is blue" in explorer.microscope.verdicts.value


def test_the_queues_for_review(explorer):
    explorer.queue.value = "random"
    explorer.half_width.value = 20
    assert explorer.review_n.value == gating.sample_size(20, 52)
    assert len(shown_ids(explorer)) == explorer.review_n.value
    explorer.queue.value = "disagree"
    assert explorer.samples.caption.startswith("draft and agent disagree: ")
    explorer.show_all.click()
    assert explorer.queue.value == ""


def test_the_size_of_a_queue_leaves_another_list_alone(explorer):
    explorer.choose(ACCEPTED_RIGHT)
    before = shown_ids(explorer)
    explorer.half_width.value = 20
    assert explorer.samples.caption.startswith("accepted, draft right: ")
    assert shown_ids(explorer) == before


def test_export_writes_what_was_marked(explorer):
    explorer.export.click()
    assert "nothing" in explorer.mark_note.value
    assert not (run_dir("small") / gating.REVIEW_FILE).exists()
    explorer.mark["sound"].click()
    explorer.export.click()
    assert "human_review.csv" in explorer.review_note.value
    assert (run_dir("small") / gating.REVIEW_FILE).read_text().count("\n") == 2


def test_nothing_is_written_by_looking(explorer):
    before = {p: p.stat().st_mtime_ns for p in run_dir("small").rglob("*")}
    explorer.threshold.value = 0.99
    explorer.step(1)
    explorer.router.value = "none"
    assert {p: p.stat().st_mtime_ns for p in run_dir("small").rglob("*")} == before


# ------------------------------------------------------------------ odd runs


def test_a_missing_run_is_reported_and_another_can_be_opened(runs):
    explorer = GatingExplorer("nowhere", VIEW)
    assert "run nowhere" in explorer.message.value
    assert explorer.numbers.value == ""
    explorer.run.value = "small"
    assert explorer.message.value == ""
    assert shown_ids(explorer)


def test_nothing_breaks_while_no_run_is_open(runs):
    explorer = GatingExplorer("nowhere", VIEW)
    for act in (
        lambda: setattr(explorer.threshold, "value", 0.5),
        lambda: setattr(explorer.half_width, "value", 5),
        explorer.next.click,
        explorer.mark["sound"].click,
        explorer.show_all.click,
        explorer.export.click,
    ):
        act()
        assert explorer.numbers.value == ""


def test_a_broken_file_of_checks_is_reported_and_hides_nothing_else(runs):
    human.checks_path("small").write_text("time_utc,author\n1,2\n")
    explorer = GatingExplorer("small", VIEW, author="Ada")
    assert "human_checks.csv: the first line is" in explorer.message.value
    assert len(shown_ids(explorer)) == 52
    explorer.mark["sound"].click()
    assert "human_checks.csv: the first line is" in explorer.message.value
    assert "Draft, token by token" in stills.sample_still(explorer.gating, explorer.view)._repr_html_()
    assert human.checks_path("small").read_text() == "time_utc,author\n1,2\n"


def test_a_run_with_fewer_alternatives_than_the_setting_uses_those_it_has(runs):
    explorer = GatingExplorer("small", replace(VIEW, k=64))
    assert explorer.view.k == explorer.k.value == K_STORED
    assert GatingExplorer("small", replace(VIEW, k=24)).view.k == 24


def test_a_run_in_progress_shows_the_tasks_that_are_done(runs):
    for task in ("hr/hr_bench_4k", "pope/random"):
        (stage_dir("small", "02_collect", task) / "manifest.json").unlink()
    explorer = GatingExplorer("small", VIEW)
    assert explorer.message.value.count("in progress") == 2
    assert len(shown_ids(explorer)) == 52 - 8 - 8


def test_missing_pictures_and_evidence_and_error_records_are_sentences(runs, scene_samples, tmp_path):
    store_run("bare", scene_samples, tmp_path / "gone")
    for task in recorded_run.open("bare", strict=False).tasks:
        (stage_dir("bare", "01_draft", task) / "manifest.json").unlink()
    explorer = GatingExplorer("bare", replace(VIEW, k=64))
    assert explorer.message.value == ""
    failed = scene_samples[0].id
    for id_ in (failed, scene_samples[1].id):
        explorer.open_sample(id_)
        assert explorer.microscope.picture.width == 0
        assert "not on this machine" in explorer.microscope.picture.message
        assert explorer.microscope.tokens.message
    explorer.open_sample(failed)
    assert "Failed (image_error)" in explorer.microscope.agent.value


def test_what_a_run_lacks_is_reported_and_the_way_back_is_open(runs, scene_samples, benchmark_root, tmp_path):
    """The original's files of a gated run: the agent answered only where the draft was not accepted."""
    write_run("ours", scene_samples, benchmark_root, ["collect", "gated"])
    files = [p for p in export("ours", tmp_path / "out") if "_min_" in p.name and p.suffix == ".jsonl"]
    import_files("speceyes", files, "theirs", str(benchmark_root))
    explorer = GatingExplorer("small", VIEW)
    explorer.run.value = "theirs"
    assert explorer.message.value.count("<p>") == len(explorer.gating.gaps()) == 2
    assert explorer.view.threshold == explorer.gating.own_threshold(0.5, explorer.view) != 0.5
    assert "not timed" in explorer.numbers.value
    assert "where its answer is recorded" in explorer.numbers.value
    assert [entry["label"] for entry in explorer.trade_off.spec["legend"]] == ["by threshold"]
    explorer.threshold.value = 0.9999999
    assert explorer.message.value == ""
    assert "the agent&#39;s answer is not recorded" in explorer.numbers.value
    assert "not known" in explorer.numbers.value
    assert explorer.distribution.spec["bars"]
    explorer.back.click()
    assert "the agent&#39;s answer is not recorded" not in explorer.numbers.value
    assert TraceExplorer("theirs").message.value == ""


# ------------------------------------------------------------------ trajectories


@pytest.fixture
def traces(runs) -> TraceExplorer:
    return TraceExplorer("small", TraceView(), other=("small", "baseline"))


def test_trajectories_are_listed_and_sifted(traces):
    assert traces.message.value == ""
    everything = shown_ids(traces)
    assert len(everything) == 52
    traces.text.value = "ZOOM"
    zoomed = shown_ids(traces)
    assert zoomed
    assert all(
        any(t.text == "zoom" for t in traces.data.records("collect")[i].trajectory.turns) for i in zoomed
    )
    assert "<mark>zoom</mark>" in traces.left.value
    traces.turns.value = (0, 1)
    assert shown_ids(traces) == []
    assert traces.samples.caption == "0 of 52 trajectories"
    traces.text.value, traces.turns.value = "", (0, 2)
    traces.verdict.value = "error"
    assert len(shown_ids(traces)) == 1
    assert "Failed (image_error)" in traces.left.value


def test_two_arms_stand_side_by_side(traces):
    traces.samples.chosen = shown_ids(traces)[5]
    assert "small · collect" in traces.left.value
    assert "small · baseline" in traces.right.value
    assert "same answer; " in traces.difference.value
    assert "word for word the same" in traces.difference.value
    traces.other_run.value = ""
    assert traces.right.value == traces.difference.value == ""


def test_the_order_slowest_lists_the_slowest_first(traces):
    traces.order.value = "slowest"
    walls = [traces.data.records("collect")[i].wall_s for i in shown_ids(traces)]
    assert walls == sorted(walls, reverse=True)
    traces.least_ms.value = 1000 * walls[3]
    assert len(shown_ids(traces)) in (3, 4)


def test_another_arm_shows_all_its_turns(traces):
    assert traces.view.turns == traces.turns.value == (0, 2)
    for id_, record in traces.data.records("baseline").items():
        turns = record.trajectory.turns if record.trajectory else ()
        path = record.trajectory and record.trajectory.model_copy(update={"turns": turns * 3})
        traces.data.records("baseline")[id_] = record.model_copy(update={"trajectory": path})
    traces.arm.value = "baseline"
    assert traces.turns.value == (0, 6)
    assert len(shown_ids(traces)) == 52
    traces.turns.value = (0, 3)
    traces.arm.value = "collect"
    assert traces.turns.value == (0, 2)


def test_an_arm_in_progress_is_shown_as_far_as_it_is(runs):
    folder = stage_dir("small", "02_baseline", "pope/random")
    (folder / "manifest.json").unlink()
    traces = TraceExplorer("small", TraceView(arm="baseline"))
    assert "in progress: 8 records so far" in traces.message.value
    assert len(shown_ids(traces)) == 52
    assert TraceExplorer("nowhere").message.value


# ------------------------------------------------------------------ parts


def test_scripts_and_styles_lie_in_the_package_and_fetch_nothing():
    files = sorted(browser_parts.STATIC.iterdir())
    assert {f.name for f in files} == {
        "chart.js",
        "counts.js",
        "explained.js",
        "gate_page.css",
        "gate_page.js",
        "page.js",
        "picture.js",
        "samples.js",
        "tokens.js",
    }
    for file in (*files, browser_parts.STYLE):
        text = file.read_text("utf-8")
        assert "innerHTML" not in text
        assert "import " not in text
        assert text.replace("http://www.w3.org/2000/svg", "").count("http") == 0


def test_what_goes_to_the_browser_is_json(explorer, traces):
    for widget in (
        explorer.distribution,
        explorer.trade_off,
        explorer.decisions,
        explorer.ledger,
        explorer.samples,
        explorer.microscope.tokens,
        traces.samples,
    ):
        state = {k: v for k, v in widget.get_state().items() if not k.startswith("_")}
        state.pop("layout", None)
        state.pop("tabbable", None), state.pop("tooltip", None)
        json.dumps(state, allow_nan=False)

"""Orders of options: what is shown, what is recorded, and what the panel makes of it."""

from __future__ import annotations

import warnings
from collections import Counter

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic_run import make_samples

from speceyes_lib.analysis import position_bias
from speceyes_lib.errors import ConfigError, DataError, StageError
from speceyes_lib.inference.stages import load_samples, run_agent_stage, run_draft_stage
from speceyes_lib.judging.stage import judge_record
from speceyes_lib.params import AgentParams, DraftParams, PositionBiasParams
from speceyes_lib.report import tables
from speceyes_lib.report.columns import as_text
from speceyes_lib.report.plots import position_bias as position_bias_plot
from speceyes_lib.runs.reading import read_stage
from speceyes_lib.runs.records import AgentRecord, DraftRecord
from speceyes_lib.stats.resampling import Bootstrap
from speceyes_lib.tasks import registry
from speceyes_lib.tasks.sample import LETTERS, ShownOptions, arranged, shown_as
from tests.conftest import MODELS

SAMPLES = make_samples(per_task=24)
CHOICE = [s for s in SAMPLES if s.options]
ORDERS = ("as_published", "rotated_1", "rotated_2", "rotated_3", "shuffled")


# ------------------------------------------------------------------------------------------- one sample


@given(st.sampled_from(CHOICE), st.sampled_from(ORDERS), st.integers(0, 2**32))
def test_the_right_letter_moves_with_its_option(sample, order, seed):
    [shown] = arranged([sample], order, seed)
    assert shown.answer_text == sample.answer_text
    assert sorted(shown.options) == sorted(sample.options)
    assert shown_as(sample, shown.options_shown) == shown


def test_a_rotation_moves_each_option_that_many_places_later():
    [sample] = [s for s in CHOICE if s.benchmark == "vstar"][:1]
    assert [arranged([sample], f"rotated_{n}")[0].answer for n in (1, 2, 3, 4)] == ["B", "C", "D", "A"]
    assert arranged([sample], "rotated_1")[0].options == (sample.options[-1], *sample.options[:-1])


def test_a_shuffle_depends_on_seed_and_sample_alone():
    whole = {s.id: s.options for s in arranged(CHOICE, "shuffled", 3)}
    alone = {s.id: arranged([s], "shuffled", 3)[0].options for s in reversed(CHOICE)}
    assert alone == whole
    assert {s.id: s.options for s in arranged(CHOICE, "shuffled", 4)} != whole
    # drawn once and written down: other machines and versions must draw the same
    assert [s.options_shown.order for s in arranged(CHOICE[:3], "shuffled", 3)] == [
        (1, 3, 0, 2),
        (1, 3, 2, 0),
        (1, 3, 2, 0),
    ]


def test_shuffling_spreads_the_right_answer_over_all_places():
    vstar = make_samples(per_task=400, tasks=("vstar/direct_attributes",))
    places = Counter(s.answer for s in arranged(vstar, "shuffled"))
    assert all(70 <= places[letter] <= 130 for letter in "ABCD")  # 100 +- 3.5 standard deviations


def test_questions_without_options_and_the_published_order_stay_as_they_are():
    yes_no = [s for s in SAMPLES if s.options is None]
    assert arranged(yes_no, "shuffled") == yes_no
    assert arranged(SAMPLES, "as_published") == SAMPLES


@pytest.mark.parametrize("order", [(0, 1), (0, 1, 2, 2), (1, 2, 3, 4)])
def test_an_order_of_other_options_is_refused(order):
    with pytest.raises(DataError, match="not the benchmark"):
        shown_as(CHOICE[0], ShownOptions(order=order))


def test_letters_are_judged_in_the_order_shown():
    [sample] = [s for s in CHOICE if s.benchmark == "vstar"][:1]
    shown = arranged([sample], "rotated_2")[0]
    record = AgentRecord(
        id=sample.id, run_mode="baseline", status="ok", decision="baseline", used="large", answer="C",
        options_shown=shown.options_shown,
    )  # fmt: skip
    for protocol in ("strict", "paper"):
        [verdict] = judge_record(sample, record, protocol).verdicts
        assert (verdict.verdict, verdict.standard) == ("right", f"C. {sample.options[0]}")
        [verdict] = judge_record(sample, record.model_copy(update={"answer": "A"}), protocol).verdicts
        assert verdict.verdict == "wrong"


@pytest.mark.parametrize("order", ["rotated_0", "rotated_", "random", "rotated_-1", "Shuffled"])
def test_other_orders_are_refused_by_name(order):
    with pytest.raises(ValueError, match="option_order"):
        DraftParams(option_order=order)


# --------------------------------------------------------------------------------------------- the panel


def frame_of(prefers_first: bool) -> pd.DataFrame:
    """Answers of a model that always takes the first option, or always knows."""
    rows = []
    for order in ORDERS:
        for sample in arranged(CHOICE, order):
            named = 0 if prefers_first else LETTERS.index(sample.answer)
            right = named == LETTERS.index(sample.answer)
            rows.append(
                {
                    "order": order, "id": sample.id, "task": sample.task, "benchmark": sample.benchmark,
                    "group": sample.meta["group"], "options": 4, "right_place": LETTERS.index(sample.answer),
                    "named_place": float(named), "answer": sample.options[named],
                    "verdict": "right" if right else "wrong", "right": right,
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


def test_a_model_that_always_takes_the_first_option_is_found_out():
    orders = position_bias.by_order(frame_of(prefers_first=True), bootstrap=Bootstrap(draws=200)).set_index(
        ["task", "order"]
    )
    vstar = orders.loc["vstar/direct_attributes"]
    assert vstar["accuracy_pct"].to_list()[:4] == [100.0, 0.0, 0.0, 0.0]
    assert vstar.loc["rotated_1", "diff_pp"] == -100.0
    assert vstar.loc["rotated_1", "changed"] == 24
    assert vstar.loc["rotated_1", "p_value"] < 1e-6
    assert (vstar["first_pct"] == 100.0).all()
    assert 5 < vstar.loc["shuffled", "accuracy_pct"] < 50
    places = position_bias.by_place(frame_of(prefers_first=True), bootstrap=Bootstrap(draws=200))
    assert places["accuracy_pct"].to_list() == [100.0, 0.0, 0.0, 0.0]
    assert places["n"].to_list() == [len(CHOICE)] * 4  # every question once at each place


def test_a_model_that_reads_is_the_same_in_every_order_and_place():
    orders = position_bias.by_order(frame_of(prefers_first=False), bootstrap=Bootstrap(draws=200))
    places = position_bias.by_place(frame_of(prefers_first=False), bootstrap=Bootstrap(draws=200))
    assert set(orders["accuracy_pct"]) == {100.0}
    assert orders["changed"].dropna().eq(0).all()
    assert places["accuracy_pct"].eq(100).all()
    assert places["n"].eq(96).all()


def test_table_and_figure_show_every_order():
    frame = frame_of(prefers_first=True)
    orders, places = (
        position_bias.by_order(frame, bootstrap=Bootstrap(draws=200)),
        position_bias.by_place(frame, bootstrap=Bootstrap(draws=200)),
    )
    table = as_text(orders, tables.TABLES["position_bias"]).set_index(["task", "order"])
    assert table.loc[("V* direct", "rotated 1"), "difference [95 %]"].startswith("-100.0 pp")
    assert table.loc[("V* direct", "as published"), "difference [95 %]"] == ""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        left, right = position_bias_plot.accuracy_by_place(orders, places).axes
    assert [t.get_text() for t in left.get_xticklabels()] == [o.replace("_", " ") for o in ORDERS]
    assert [t.get_text() for t in right.get_xticklabels()] == list("ABCD")


# ------------------------------------------------------------------------------------------ with the model

TASKS = ["vstar/direct_attributes"]


@pytest.fixture(scope="module")
def drafted(benchmark_root, tmp_path_factory):
    """A run with its drafts, and the parameters that go on from there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPECEYES_RUNS", str(tmp_path_factory.mktemp("runs")))
        drafting = DraftParams(
            run="r",
            tasks=TASKS,
            data_root=str(benchmark_root),
            draft_model=str(MODELS / "draft"),
            device="cpu",
        )
        run_draft_stage(drafting)
        yield (
            drafting,
            PositionBiasParams(run="r", tasks=TASKS, orders=["rotated_1", "shuffled"], bootstrap=200),
        )


def test_every_order_is_drafted_once_and_its_records_keep_what_was_shown(drafted, tmp_path):
    drafting, params = drafted
    seen = []
    passes = position_bias.run_orders(params, lambda *progress: seen.append(progress))
    published = {s.id: s for s in load_samples(drafting, TASKS[0])}
    for order, recorded in passes.runs.items():
        assert len(recorded.drafts()) == 6
        assert recorded.config("01_draft")["option_order"] == order
        for id_, record in recorded.drafts().items():
            expected = arranged([published[id_]], order)[0].options_shown
            assert record.options_shown == expected
    again = position_bias.run_orders(params, lambda *progress: None)
    assert {len(recorded.drafts()) for recorded in again.runs.values()} == {6}
    assert sum(done == 6 for done, *_ in seen) >= 2
    frame = passes.answers()
    assert len(frame) == 18
    assert (frame["right_place"] == 0).sum() < 18
    right = frame[frame["verdict"] == "right"]
    assert (right["named_place"] == right["right_place"]).all()
    orders = position_bias.by_order(frame, bootstrap=Bootstrap(draws=200))
    folder = passes.write(orders, position_bias.by_place(frame, bootstrap=Bootstrap(draws=200)))
    assert sorted(p.name for p in folder.iterdir()) == ["by_order.csv", "by_place.csv", "manifest.json"]


def test_the_agent_is_shown_the_same_order_as_the_draft_it_goes_with(drafted):
    drafting, params = drafted
    position_bias.run_orders(params, lambda *progress: None)
    arguments = {
        "run": "r_rotated_1",
        "tasks": TASKS,
        "data_root": drafting.data_root,
        "device": "cpu",
        "max_turns": 2,
    }
    arguments |= {
        "draft_model": drafting.draft_model,
        "agent_model": str(MODELS / "agent"),
        "arms": ["collect"],
        "limit": 2,
    }
    with pytest.raises(StageError, match="option_order = 'rotated_1', but this stage has 'as_published'"):
        run_agent_stage(AgentParams(**arguments))
    run_agent_stage(AgentParams(**arguments, option_order="rotated_1"))
    for record in read_stage("r_rotated_1", "02_collect", TASKS[0], AgentRecord).records.values():
        assert record.options_shown.order[0] == len(record.options_shown.order) - 1
        assert record.draft.options_shown == record.options_shown


def test_runs_that_cannot_be_drafted_again_are_refused(drafted):
    _, params = drafted
    position_bias.run_orders(params, lambda *progress: None)
    with pytest.raises(ConfigError, match="as_published"):
        position_bias.drafting(params.model_copy(update={"run": "r_shuffled"}), "rotated_1")
    record = read_stage("r", "01_draft", TASKS[0], DraftRecord).records
    assert all(r.options_shown is None for r in record.values())
    assert registry.load_task(TASKS[0], drafted[0].data_root)[0].options_shown is None

"""What the layers of the embedded draft model predict: recorded once, compared, replayed, and left out in words."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from synthetic_run import write_answers, write_drafts, write_verdicts

from speceyes_lib.analysis import confidence_data, layer_gates
from speceyes_lib.errors import ConfigError
from speceyes_lib.inference.loaded_models import LoadedModels
from speceyes_lib.inference.stages import load_samples, preview_drafts, run_draft_stage
from speceyes_lib.judging.stage import judge_record
from speceyes_lib.params import ConfidenceParams, DraftParams, LayerGatesParams
from speceyes_lib.report import tables
from speceyes_lib.report.columns import as_text
from speceyes_lib.report.plots import layers as layer_plots
from speceyes_lib.runs import recorded_run
from speceyes_lib.runs.records import AgentRecord, DraftRecord, RouterRecord, Trajectory, Turn
from tests.conftest import MODELS

TASKS = ["vstar/direct_attributes", "pope/popular"]


def judge_all(run: str, samples: list, drafts: dict[str, DraftRecord], config: dict) -> None:
    """Store `collect` and its verdicts: every sample is routed to the draft, and every agent is right."""
    turn = Turn(text="<answer>", n_tokens=9, turn_s=0.05, action="answer")
    arm = {
        s.id: AgentRecord(
            id=s.id,
            run_mode="collect",
            status="ok",
            decision="collected",
            used="large",
            answer=s.answer_text,
            router=RouterRecord(verdict="no", text="no", router_s=0.005),
            draft=drafts[s.id],
            trajectory=Trajectory(status="ok", answer=s.answer_text, answer_from="tag", turns=(turn,)),
        )
        for s in samples
    }
    write_answers(run, {"collect": arm}, config)
    judged = {s.id: judge_record(s, arm[s.id]) for s in samples}
    write_verdicts(run, {"collect": judged}, config={"data_root": config["data_root"]})


@pytest.fixture(scope="module")
def drafting(benchmark_root, tmp_path_factory) -> DraftParams:
    """Two runs: `inside` recorded layers, `plain` neither layers nor evidence, and one of its answers is another."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPECEYES_RUNS", str(tmp_path_factory.mktemp("runs")))
        params = DraftParams(
            run="inside",
            tasks=TASKS,
            data_root=str(benchmark_root),
            draft_model=str(MODELS / "draft"),
            device="cpu",
            layers=2,
        )
        run_draft_stage(params)
        samples = [s for task in TASKS for s in load_samples(params, task)]
        drafts = recorded_run.open("inside", tasks=TASKS).drafts()
        config = params.model_copy(update={"layers": 0}).stage_config()
        judge_all("inside", samples, drafts, config)
        changed = {**drafts, samples[0].id: drafts[samples[0].id].model_copy(update={"answer": "magenta"})}
        write_drafts("plain", {"collect": {i: SimpleNamespace(draft=d) for i, d in changed.items()}}, config)
        judge_all("plain", samples, changed, config)
        yield params


def params(run: str) -> LayerGatesParams:
    return LayerGatesParams(run=run, tasks=TASKS, threshold_from="", bootstrap=100, repeats=2)


@pytest.fixture(scope="module")
def inside(drafting) -> layer_gates.LayerRun:
    def refuse(*_: object) -> None:
        raise AssertionError("a run with layers was drafted again")

    return layer_gates.look_inside(params("inside"), refuse)


@pytest.fixture(scope="module")
def plain(drafting) -> layer_gates.LayerRun:
    return layer_gates.look_inside(params("plain"), lambda *_: None)


def test_a_stage_records_layers_and_the_state_of_the_deciding_token(drafting):
    recorded = recorded_run.open("inside", tasks=TASKS)
    assert recorded.config("01_draft")["layers"] == 2
    for id_, record in recorded.drafts().items():
        one = recorded.evidence(id_)
        assert one.layers.numbers.tolist() == [1, 3]
        assert one.layers.top_ids.shape == (one.n_tokens, 2, 16)
        assert one.layers.hidden.shape == (1 if record.deciding_token is not None else 0, 128)


def test_a_run_with_layers_has_their_scores_in_the_table_of_notebook_04(drafting):
    gate = {"tasks": TASKS, "threshold_from": "", "bootstrap": 100}
    result = confidence_data.gather_confidence(ConfidenceParams(run="inside", **gate))
    assert {"settling", "layer_agreement", "layer_margin"} <= set(result.scores)
    assert result.missing["probe"]  # too few wrong drafts to learn from
    bare = confidence_data.gather_confidence(ConfidenceParams(run="plain", **gate))
    assert not {"settling", "probe"} & set(bare.scores)
    assert "layers = 0" in bare.missing["settling, layer_agreement, layer_margin, probe"]


def test_a_run_without_layers_is_drafted_again_and_other_answers_are_left_out(plain, inside):
    assert (inside.recorded_in, inside.n_other) == ("inside", 0)
    assert (plain.recorded_in, plain.n_other) == ("plain_layers", 1)
    assert len(plain.evidence) == len(inside.evidence) - 1
    every = next(iter(plain.evidence.values())).layers
    assert every.numbers.tolist() == [1, 2, 3]
    left_out = plain.run.frame["id"].isin(plain.evidence)
    assert plain.run.scores.loc[left_out, "settling"].notna().all()
    assert plain.run.scores.loc[~left_out, "settling"].isna().all()


def test_the_last_row_of_a_draft_is_what_it_answers(plain):
    for id_ in list(plain.evidence)[:3]:
        table = plain.layer_by_layer(id_)
        assert table["layer"].tolist() == [1, 2, 3, 4]
        assert table["predicts"].iloc[-1] in plain.evidence[id_].token_texts
        assert (table["p_answer"] <= table["p_predicted"] + 1e-3).all()


def test_leaving_at_a_layer_gives_the_answers_of_the_model_cut_off_there(plain, drafting):
    """For answers of one token, which the embedded draft gives; its end is not replayed."""
    ids, data = plain.predictions
    samples = [s for task in TASKS for s in load_samples(drafting, task) if s.id in plain.evidence]
    backend = LoadedModels(drafting, ["draft"])["draft"]
    for layer in (2, 3):
        with backend.cut_off_behind(layer):
            cut = {r.id: e for r, e in preview_drafts(drafting.model_copy(update={"layers": 0}), samples)}
        at = list(data.numbers).index(layer)
        for i, id_ in enumerate(ids):
            first = cut[id_].token_ids[:1].tolist()  # none where the cut model ends at once
            assert first in ([], [data.predicted[data.offsets[i], at]])


def test_exits_begin_with_the_ceiling_and_end_with_the_whole_draft(plain):
    exits = plain.early_exits(thresholds=(0.0, 0.9))
    assert exits["rule"].tolist() == ["ceiling", *["exit"] * 6, "whole"]
    ceiling, whole = exits.iloc[0], exits.iloc[-1]
    assert (ceiling["n_changed"], whole["n_changed"], whole["saved_pct"]) == (0, 0, 0)
    assert ceiling["accuracy_pct"] == whole["accuracy_pct"]
    assert 0 < ceiling["saved_pct"] < 75
    fixed = exits[exits["threshold"] == 0]
    assert fixed["layers"].tolist() == [1, 2, 3]
    assert (exits["won"] + exits["lost"] <= exits["n_changed"]).all()
    settled = plain.settled()
    assert settled["n"].sum() == len(plain.evidence)
    assert settled["up_to_pct"].iloc[-1] == pytest.approx(100)
    assert len(layer_plots.early_exit(exits, settled).axes) == 2
    shown = as_text(exits, tables.TABLES["early_exits"])
    assert not any("nan" in cell for cell in shown.to_numpy().ravel())


def test_scores_are_certified_on_parts_that_the_probe_did_not_learn_from(plain):
    names = ["min", "settling", "probe"]
    table = plain.certified(names, passes=0.3, repeats=2)
    assert table["score"].tolist() == names
    assert (table["target_pct"] == 30).all()
    assert table["coverage_pct"].between(0, 100).all()


def test_seconds_are_measured_at_every_depth(plain):
    table = plain.seconds_by_depth(samples=2, repeats=1)
    assert table["layers"].tolist() == [1, 2, 3, 4]
    assert (table["draft_s"] > 0).all()


def test_tables_are_written_with_what_they_were_made_from(plain):
    folder = plain.write({"settled.csv": plain.settled()})
    assert sorted(path.name for path in folder.iterdir()) == ["manifest.json", "settled.csv"]


def test_layers_of_a_served_model_are_refused_before_anything_runs():
    served = "http://127.0.0.1:9/v1?model=x&processor=qwen3_vl"
    with pytest.raises(ValueError, match=r"layers = 3, but draft_model is served.*set layers = 0"):
        DraftParams(draft_model=served, layers=3)
    assert DraftParams(draft_model=served).layers == 0


def test_a_stage_without_layers_has_the_configuration_of_runs_from_before_there_were_any():
    assert "layers" not in DraftParams().stage_config()
    assert DraftParams(layers=2).stage_config()["layers"] == 2


def test_the_probe_of_one_part_scores_all_samples_with_a_state_and_needs_both_verdicts():
    rng = np.random.default_rng(0)
    right = np.arange(60) % 3 > 0
    states = rng.normal(size=(60, 4)) + 3 * right[:, None]
    states[7] = np.nan
    learn = np.arange(60) < 30
    values = layer_gates.probe_of(states, right, learn)
    assert np.flatnonzero(np.isnan(values)).tolist() == [7]
    assert values[30:][right[30:]].mean() > 0.8 > 0.3 > values[30:][~right[30:]].mean()
    assert np.isnan(layer_gates.probe_of(states, right, learn & right)).all()


def test_imported_drafts_cannot_be_looked_into(drafting, monkeypatch):
    monkeypatch.setattr(recorded_run.RecordedRun, "config", lambda *_: {"imported_from": "x"})
    with pytest.raises(ConfigError, match="imported"):
        layer_gates.redrafting("plain", TASKS, "layers", layers=2)

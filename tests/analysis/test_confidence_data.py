"""What notebook 04 gathers, draws and says: of whole runs, of runs that lack things, and of tiny ones."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from synthetic_run import TASKS, make_run, write_answers, write_verdicts

from speceyes_lib.analysis import ablations, confidence_data, score_comparison
from speceyes_lib.analysis.reported import KS, read_reported, reported_points
from speceyes_lib.errors import UserError
from speceyes_lib.gating import certificates, scores
from speceyes_lib.gating.separability import PAPER_SCORES
from speceyes_lib.params import ConfidenceParams
from speceyes_lib.paths import stage_dir
from speceyes_lib.replay import outcomes, replay_data
from speceyes_lib.report import show, tables
from speceyes_lib.report.columns import as_text
from speceyes_lib.report.plots import confidence, cost, gate
from speceyes_lib.runs import recorded_run
from speceyes_lib.runs.arms import ROUTERS
from speceyes_lib.runs.evidence import Evidence, LayerEvidence
from speceyes_lib.runs.own_scores import add_scores
from speceyes_lib.runs.records import DraftRecord, RouterRecord
from speceyes_lib.runs.stage import StageStore
from speceyes_lib.stats.resampling import Bootstrap

THRESHOLD = 0.97
K_STORED = 70
NEAR = pd.DataFrame({"gap": [0.0, 4.0], "min": [0.99, 1.0], "tie_aware": [0.0, 0.9], "margin": [0.0, 0.96]})


def evidence_of(record: DraftRecord, rng: np.random.Generator) -> Evidence:
    """Two tokens whose top candidates are as far apart as the recorded score is high, and what two layers said."""
    gap = 10 * (record.scores["min"] - 0.85)
    z = np.sort(rng.normal(-8, 1, (2, K_STORED)), axis=1)[:, ::-1]
    z[:, 0], z[:, 1] = 0.0, -max(gap, 0.01)
    z = np.sort(z, axis=1)[:, ::-1]
    top = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    ids = np.tile(np.arange(K_STORED), (2, 1))
    ids[0, 0] = len(record.answer) + 100  # the token of the answer's first letters
    inside = np.repeat(top[:, None, :4], 2, axis=1)
    state = rng.normal(gap, 1, (1, 5))
    layers = LayerEvidence(3, [1, 2], np.repeat(ids[:, None, :4], 2, axis=1), inside, inside[..., 0], state)
    return Evidence([ids[0, 0], 0], (record.answer[:2], record.answer[2:]), top[:, 0], ids, top, layers)


def store(run: str, seed: int, per_task: int, whole: bool) -> None:
    """A judged `collect`; `whole`: with evidence and the router's log-probabilities, as this suite writes it."""
    arms, judged = make_run(per_task=per_task, seed=seed)
    rng = np.random.default_rng(seed)
    records = arms["collect"]
    if whole:
        word = {
            "no": {"yes_logprob": -3.0, "no_logprob": -0.1},
            "yes": {"yes_logprob": -0.2, "no_logprob": -2.0},
        }
        records = {
            id_: r if r.router is None else r.model_copy(
                update={"router": RouterRecord(**r.router.model_dump() | word[r.router.verdict])}
            )
            for id_, r in records.items()
        }  # fmt: skip
        for task in TASKS:
            drafts = {i: r.draft for i, r in records.items() if i.startswith(f"{task}/")}
            with StageStore(
                stage_dir(run, "01_draft", task), stage="01_draft", task=task, record_type=DraftRecord, config={},
                expected_ids=list(drafts),
            ) as stage:  # fmt: skip
                for draft in drafts.values():
                    stage.append(draft, evidence_of(draft, rng) if draft.scores else None)
                stage.finish(environment={})
    config = {"score": "min", "k": 64, "slope": 0.6, "router": "large", "batch_size": 8}
    write_answers(run, {"collect": records}, config)
    write_verdicts(run, {"collect": judged["collect"]})


@pytest.fixture(scope="module", autouse=True)
def runs(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPECEYES_RUNS", str(tmp_path_factory.mktemp("runs")))
        store("whole", 0, 16, whole=True)
        store("bare", 1, 16, whole=False)
        store("tiny", 2, 1, whole=False)
        yield


def params(run: str) -> ConfidenceParams:
    return ConfidenceParams(run=run, tasks=list(TASKS), threshold_from="", bootstrap=100)


@pytest.fixture(scope="module", params=["whole", "bare", "tiny", "untimed"])
def run(request) -> confidence_data.ConfidenceData:
    if request.param != "untimed":
        return confidence_data.gather_confidence(params(request.param))
    result = confidence_data.gather_confidence(params("bare"))
    return replace(result, data=replace(result.data, cost=None))


@pytest.fixture(scope="module")
def whole() -> confidence_data.ConfidenceData:
    return confidence_data.gather_confidence(params("whole"))


def test_a_whole_run_has_every_score_and_lacks_nothing(whole):
    assert set(whole.scores) == set(scores.SCORES)
    assert not whole.missing
    assert list(whole.data.ids) == list(whole.frame["id"])
    assert whole.drafts["right"].sum() == whole.right.sum()
    failed = (whole.frame["draft_verdict"] == "error").to_numpy()
    assert failed.sum() == 1
    assert whole.scores[failed].drop(columns="router").isna().all(axis=None)


def test_a_bare_run_says_what_it_lacks():
    result = confidence_data.gather_confidence(params("bare"))
    assert set(result.scores) == {"min", "mean", "bottom20", "log", "combination"}
    inside = "settling, layer_agreement, layer_margin, probe"
    assert set(result.missing) == {"scores from evidence, other K", "router's own score", inside}
    assert "layers = 0" in result.missing[inside]
    base = replace(result.setting, threshold=THRESHOLD)
    for axis, values, lacks in (("k", KS, {32, 48, 80, 96}), ("router", ROUTERS, {"small"})):
        rows = ablations.replayed_sweep(result.data, base, axis, values, same_coverage=True)
        assert set(rows.loc[rows["status"] == "refused", axis]) == lacks
        assert (rows.loc[rows["status"] == "ok", "accuracy_pct"] > 0).all()


def test_scores_of_a_stored_run_are_those_of_its_evidence(whole):
    again = scores.score_answers(whole.data.top_logprobs, whole.data.offsets)
    assert np.array_equal(whole.scores["tie_aware"], again["tie_aware"], equal_nan=True)
    assert whole.data.score("tie_aware") is not None
    named = whole.scores["options"].notna()
    assert named.mean() > 0.5


def test_scores_of_layers_are_compared_and_certified_like_the_others(whole):
    names = [name for name, score in scores.SCORES.items() if score.needs.startswith("layers")]
    compared = whole.compared((0.5,), Bootstrap(draws=20)).set_index("score")
    assert compared.loc[names, "accuracy_at_50_pct"].notna().all()
    assert compared.loc["probe", "ece"] >= 0
    rules = certificates.certification_rules(passes=0.3)
    for name in names:
        rows = certificates.certify(whole.to_certify(name), rules, repeats=1).set_index("rule")
        assert rows.loc["wrong_passes", "target_pct"] == 30


def test_a_score_that_was_added_under_a_name_of_this_suite_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("SPECEYES_RUNS", str(tmp_path))
    store("named", 1, 2, whole=False)
    ids = set(recorded_run.open("named", tasks=TASKS).records("collect"))
    add_scores("named", "probe", dict.fromkeys(ids, 0.5), ids, replace=False)
    with pytest.raises(UserError, match=r"scores/probe\.csv"):
        confidence_data.gather_confidence(params("named"))


def test_samples_to_certify_are_those_that_the_gate_sees(whole):
    samples = whole.to_certify()
    routed = ~whole.frame["router_verdict"].eq("no").to_numpy()
    assert np.isnan(samples.score[routed]).all()
    result = certificates.threshold_outcome(samples, THRESHOLD)
    setting = replace(whole.setting, threshold=THRESHOLD)
    pooled = outcomes.replay(whole.data, setting).set_index("task").loc["pooled"]
    assert result["coverage_pct"] == pytest.approx(100 * pooled["coverage"])
    assert result["accuracy_pct"] == pytest.approx(pooled["accuracy_pct"])
    assert result["speedup"] == pytest.approx(pooled["speedup"])


def test_samples_whose_agent_was_not_recorded_are_left_out(whole):
    agent = whole.data.agent.copy()
    agent[:5] = replay_data.ABSENT
    lacking = replace(whole, data=replace(whole.data, agent=agent))
    assert len(lacking.to_certify()) == len(whole.frame) - 5


def test_the_same_coverage_is_the_same_coverage(whole):
    base = replace(whole.setting, threshold=THRESHOLD)
    accepted = {}
    for axis, values in (("k", KS), ("score", PAPER_SCORES)):
        rows = ablations.replayed_sweep(whole.data, base, axis, values, same_coverage=True)
        rows = rows[(rows["task"] == "pooled") & (rows["status"] == "ok")]
        accepted[axis] = rows.groupby("line")["accepted"].agg(["min", "max"])
        fair = accepted[axis].loc[ablations.SAME_COVERAGE]
        assert fair["max"] - fair["min"] <= 1
    same = accepted["k"].loc[ablations.SAME_THRESHOLD]
    assert same["max"] > same["min"]  # K changes the scale
    batches = ablations.replayed_sweep(whole.data, base, "batch_size", (1, 4, 16))
    assert len(set(batches.loc[batches["task"] == "pooled", "accuracy_pct"])) == 1  # it changes seconds only


def test_the_front_runs_from_the_agent_to_every_draft(whole):
    front = whole.front(["min", "router"])
    for _, line in front.groupby("score"):
        assert line["coverage"].min() == 0
        assert line["coverage"].max() == pytest.approx(line["beta"].max(), abs=0.02)
        assert line.loc[line["coverage"].idxmin(), "accuracy_pct"] == pytest.approx(
            line["baseline_accuracy_pct"].max()
        )
    assert whole.front(["unheard of"]).empty


def test_rules_are_calibrated_on_the_run_that_chose_the_threshold(whole):
    used = {"threshold": THRESHOLD, "chosen_on": {"run": "bare", "tasks": list(TASKS)}}
    rules = certificates.certification_rules(0.2, 0.1)
    result = replace(whole, used=used).tried_here(params("whole"), rules)
    assert set(result["n_test"]) == {len(whole.frame)}
    assert result["certified"].any()
    for origin in ({"run": "whole"}, {"run": "nowhere"}, {}):
        assert replace(whole, used={"chosen_on": origin}).tried_here(params("whole"), rules).empty


# ------------------------------------------------------------------ everything that the notebook shows, of any run


def test_every_figure_and_table_can_be_made_of_any_run(run):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drafts = run.drafts
        compared = run.compared([0.5], Bootstrap(draws=100))
        names = list(drafts.columns.drop("right"))
        ties = run.ties({"all": -1.0, "above": THRESHOLD})
        rules = certificates.certification_rules()
        points = certificates.certify(run.to_certify(), rules, 3)
        seconds, balance, steps, parts = run.costs_at(THRESHOLD)
        fleets, load = run.fleet_plan(THRESHOLD, replicas=3, users=(1, 20))
        samples = {
            "density": confidence.confidence_density(drafts, names[:4], {"min": THRESHOLD}),
            "rolling": confidence.rolling_by_rank(run.rolling_by_rank(names)),
            "risk": confidence.risk_coverage(run.risk_coverage(names)),
            "reliability": confidence.reliability(run.reliability()),
            "ties": confidence.tie_geometry(NEAR, ties),
            "front": gate.front(
                run.front(["min"]),
                reported_points(read_reported("table1"), read_reported("ablation_threshold")),
                pd.DataFrame({"speedup": [1.5], "gain_pp": [0.2], "label": ["here"]}),
            ),
            "certified": gate.certified_points(points, rules),
            "break even": cost.break_even(balance),
            "ledger": cost.time_ledger(steps, parts),
            "fleets": cost.fleets(fleets, load),
        }
        for figure in samples.values():
            FigureCanvasAgg(figure).draw()
        merged = run.merged(compared)
        for frame in (balance, load):
            assert "nan" not in show(frame).to_html()
        shown = [
            as_text(merged, tables.score_columns(merged)),
            as_text(confidence_data.rule_results(points, rules), tables.certificate_columns(rules)),
        ]
    assert not any("nan" in cell for table in shown for cell in table.to_numpy().ravel())
    untimed = run.data.cost is None
    assert (len(seconds) == 0) == (len(balance) == 0) == (len(fleets) == 0) == untimed


def test_the_reported_points_are_averages_over_all_splits():
    result = reported_points(read_reported("table1"), read_reported("ablation_threshold"))
    table = result[(result["kind"] == "table") & (result["label"] == "min")].set_index("agent")
    assert table.loc["deepeyes", "speedup"] == 1.73
    assert table.loc["deepeyes", "gain_pp"] == pytest.approx(84.26 - 81.39)
    sweep = read_reported("ablation_threshold").query(
        "agent == 'deepeyes' and threshold == 0.98 and split != 'average'"
    )
    shown = result[
        (result["kind"] == "threshold") & (result["label"] == "0.98") & (result["agent"] == "deepeyes")
    ]
    assert shown["speedup"].iloc[0] == pytest.approx(sweep["speedup"].mean())


def test_identical_scores_agree_on_every_draft(whole):
    table = whole.drafts.assign(mean=whole.drafts["min"])
    assert ["min", "mean"] in score_comparison.identical_scores(table[["min", "mean", "log"]])
    compared = score_comparison.compare_scores(
        table[["min", "mean", "log"]], table["right"], bootstrap=Bootstrap(draws=100)
    )
    merged = score_comparison.merged_scores(compared, [["min", "mean"], ["log"]])
    assert list(merged.index) == [("min", "mean"), ("log",)]
    assert np.isnan(merged["auroc_gain"].iloc[0])
    assert merged["brier"].notna().tolist() == [False, True]


def test_a_certificate_that_failed_is_counted_and_has_its_reason():
    rules = certificates.certification_rules()
    points = certificates.certify(confidence_data.gather_confidence(params("tiny")).to_certify(), rules, 2)
    table = confidence_data.rule_results(points, rules)
    assert table["certified"].tolist()[:5] == [0] * 5
    assert table["repeats"].eq(2).all()
    bounding = points[points["rule"].isin(table.index[:5])]
    assert bounding["reason"].ne("").all()
    assert list(table.index[-2:]) == ["per_split", "per_split_on_test"]

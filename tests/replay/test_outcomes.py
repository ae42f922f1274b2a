"""Replay: what the funnel would do, says and counts the same; what the run lacks is refused by name."""

from __future__ import annotations

import dataclasses
import json
import re
from functools import partial
from itertools import product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from replay_arrays import from_arrays
from scripted import ScriptedBackend
from synthetic_run import make_run, make_samples, write_answers, write_drafts, write_verdicts

from speceyes_lib.agents import prompt_sets
from speceyes_lib.agents.deepeyes import DeepEyesAgent
from speceyes_lib.errors import StageError, UserError
from speceyes_lib.gating.separability import PAPER_SCORES, score_grid
from speceyes_lib.inference.funnel import Drafting, Gate, Router, run_drafts, run_funnel
from speceyes_lib.judging.stage import judge_record
from speceyes_lib.models.base import Generation
from speceyes_lib.paths import stage_dir
from speceyes_lib.replay import outcomes, replay_data
from speceyes_lib.replay import settings as settings_module
from speceyes_lib.replay.cost_model import CallCost, CostModel
from speceyes_lib.replay.settings import AXES, Setting
from speceyes_lib.runs import recorded_run
from speceyes_lib.runs.evidence import Evidence
from speceyes_lib.runs.records import AgentRecord, DraftRecord, JudgedRecord
from speceyes_lib.runs.stage import StageStore
from speceyes_lib.stats.intervals import wilson
from speceyes_lib.tasks import pictures, registry
from speceyes_lib.tasks.images import ImageSpec

PROMPTS = prompt_sets.load("demo")
SPEC = ImageSpec(factor=16, min_pixels=32 * 32, max_pixels=32 * 32)
TASKS = ("vstar/direct_attributes", "hr/hr_bench_4k", "pope/random")
K_STORE = 8


# ------------------------------------------------------------------------- the funnel, really run, on scripts
def rng_of(id_: str, what: str) -> np.random.Generator:
    return np.random.default_rng([*f"{what} {id_}".encode()])


def draft_evidence(id_: str) -> Evidence:
    """One to four tokens, from near ties to near certainty."""
    rng = rng_of(id_, "evidence")
    n = int(rng.integers(1, 5))
    top = -np.sort(rng.gamma(1.0, rng.choice([0.3, 3.0], size=(n, 1)), (n, K_STORE)), axis=1)
    top -= np.log(np.exp(top).sum(axis=1, keepdims=True))
    ids = np.tile(np.arange(K_STORE), (n, 1))
    return Evidence(ids[:, 0], ("x",) * n, top[:, 0], ids, top)


def says(samples: dict, who: str, request) -> str | Generation:
    """Every sample has its fixed router words, draft and agent answer, and some have something broken."""
    rng = rng_of(request.id, f"{who} says")
    sample = samples[request.id]
    options = sample.options or ("yes", "no")
    text = str(rng.choice(options))
    if "Would zooming" in request.messages[-1]["content"][-1]["text"]:
        if rng.random() < 0.1:
            raise RuntimeError("router broke")
        return "no" if rng.random() < 0.6 else "yes"
    if who == "small":
        if rng.random() < 0.1:
            raise RuntimeError("draft broke")
        if rng.random() < 0.1:
            nothing = Evidence([], (), [], np.empty((0, K_STORE)), np.empty((0, K_STORE)))
            return Generation(request.id, "", (), "stop", 0.0, 1, nothing)
        evidence = draft_evidence(request.id)
        return Generation(request.id, text, tuple(range(evidence.n_tokens)), "stop", 0.0, 1, evidence)
    if rng.random() < 0.1:
        raise RuntimeError("agent broke")
    return f"<think>x</think><answer>{text}</answer>"


@dataclasses.dataclass(frozen=True)
class World:
    """Samples and the two models that answer them, as often as one likes, always alike."""

    samples: dict

    def funnel(self, task: str, **settings) -> dict[str, AgentRecord]:
        agent = ScriptedBackend(partial(says, self.samples, "large"), SPEC)
        make_agent = partial(DeepEyesAgent, spec=SPEC, prompts=PROMPTS, max_turns=2)
        of_task = [s for s in self.samples.values() if s.task == task]
        done = run_funnel(
            of_task,
            agent_backend=agent,
            draft_backend=self.draft_backend(),
            make_agent=make_agent,
            prompts=PROMPTS,
            **settings,
        )
        return {record.id: record for record, _ in done}

    def draft_backend(self) -> ScriptedBackend:
        return ScriptedBackend(partial(says, self.samples, "small"), SPEC)

    def gated(self, setting: Setting) -> dict[str, AgentRecord]:
        records = {}
        for task in TASKS:
            records |= self.funnel(
                task,
                mode="gated",
                drafting=Drafting(4, K_STORE, setting.k, setting.slope),
                router=None if setting.router == "none" else Router(setting.router),
                gate=Gate(setting.threshold, setting.score),
                batch_size=setting.batch_size,
                agent_batch_size=setting.agent_batch_size,
            )
        return records


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A finished instrumented run "w", and the world it was run in."""
    folder = tmp_path_factory.mktemp("world")
    Image.new("RGB", (48, 40), "grey").save(folder / "fine.png")
    (folder / "broken.png").write_bytes(b"no picture")
    samples = {}
    for i, sample in enumerate(make_samples(24, TASKS)):
        name = "broken.png" if i % 11 == 5 else "fine.png"
        samples[sample.id] = dataclasses.replace(sample, image=pictures.ImageRef(folder / name))
    world = World(samples)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPECEYES_RUNS", str(folder))
        drafting = Drafting(4, K_STORE, K_STORE, 0.6)
        for task in TASKS:
            of_task = [s for s in samples.values() if s.task == task]
            drafts = list(
                run_drafts(
                    of_task, backend=world.draft_backend(), prompts=PROMPTS, drafting=drafting, batch_size=5
                )
            )
            store("01_draft", task, DraftRecord, drafts, {})
            records = world.funnel(
                task,
                mode="collect",
                router=Router("large"),
                router_small=True,
                drafts={d.id: d for d, _ in drafts},
                batch_size=5,
                agent_batch_size=3,
            )
            config = {"router": "large", "k": K_STORE, "slope": 0.6}
            store("02_collect", task, AgentRecord, [(r, None) for r in records.values()], config)
            judged = [(judge_record(samples[i], r), None) for i, r in records.items()]
            store("03_judging/collect", task, JudgedRecord, judged, {"protocol": "strict"})
        yield world


def store(stage: str, task: str, record_type: type, done: list, config: dict) -> None:
    with StageStore(
        stage_dir("w", stage, task),
        stage=stage,
        task=task,
        record_type=record_type,
        config=config,
        expected_ids=[record.id for record, _ in done],
    ) as folder:
        for record, evidence in done:
            folder.append(record, evidence)
        folder.finish(environment={})


@pytest.fixture(scope="module")
def run(world) -> replay_data.ReplayData:
    return replay_data.load(recorded_run.open("w", tasks=TASKS))


REALLY_RUN = [
    Setting(score, k, slope, threshold, router, batch, agents)
    for (score, k, slope, router), (threshold, batch, agents) in zip(
        product((*PAPER_SCORES, "tie_aware"), (2, 4, 8), (0.6, 1.5), ("large", "small", "none")),
        [(t, b, a) for t in (0.0, 0.3, 0.6, 0.75, 0.9, 0.99, 1.0) for b in (1, 4, 16) for a in (1, 3)] * 2,
        strict=False,
    )
]


def test_many_settings_are_tried_and_none_twice():
    assert len(set(REALLY_RUN)) == len(REALLY_RUN) == 84


@pytest.mark.parametrize("setting", REALLY_RUN, ids=str)
def test_every_sample_is_decided_and_answered_as_by_the_funnel(world, run, setting):
    really = world.gated(setting)
    result = outcomes.decisions(run, setting).set_index("id")
    assert sorted(result.index) == sorted(really)
    for id_, record in really.items():
        row = result.loc[id_]
        assert row["decision"] == record.decision, id_
        assert row["used"] == record.used
        verdict = judge_record(world.samples[id_], record).verdicts[0].verdict
        assert bool(row["right"]) == (verdict == "right"), id_
        assert row["error"] == (verdict == "error")
        if record.draft is not None and record.draft.scores:
            assert row["confidence"] == record.confidence  # bit for bit
    pooled = pooled_row(outcomes.replay(run, setting))
    decisions = [r.decision for r in really.values()]
    assert pooled["accepted"] == decisions.count("accepted")
    assert pooled["drafted"] == len(decisions) - decisions.count("routed")
    right = [judge_record(world.samples[i], r).verdicts[0].verdict == "right" for i, r in really.items()]
    assert pooled["accuracy_pct"] == pytest.approx(100 * np.mean(right))


def test_a_confidence_equal_to_the_threshold_is_rejected_by_both(world, run):
    confidence = run.score("min", 4)
    at = int(np.flatnonzero((run.routed["small"] == 0) & ~np.isnan(confidence))[3])
    setting = Setting(k=4, router="small", threshold=float(confidence[at]))
    assert outcomes.decisions(run, setting)["decision"][at] == "rejected"
    assert world.gated(setting)[run.ids[at]].decision == "rejected"
    just_below = dataclasses.replace(setting, threshold=float(np.nextafter(confidence[at], 0)))
    assert outcomes.decisions(run, just_below)["decision"][at] == "accepted"
    assert (
        pooled_row(outcomes.replay(run, setting))["accepted"]
        < pooled_row(outcomes.replay(run, just_below))["accepted"]
    )


def test_the_world_holds_everything_that_can_happen(world, run):
    seen = set().union(*(outcomes.decisions(run, setting)["decision"] for setting in REALLY_RUN[:9]))
    assert seen == {"accepted", "rejected", "routed", "draft_failed"}
    assert (
        {replay_data.WRONG, replay_data.RIGHT, replay_data.FAILED}
        == set(run.draft.tolist())
        == set(run.agent.tolist())
    )
    assert not run.readable.all()
    assert set(run.routed) == {"large", "small"}
    assert (run.routed["large"] != run.routed["small"]).any()


# -------------------------------------------------------------------------------------- counts against a plain loop
@st.composite
def populations(draw) -> replay_data.ReplayData:
    n = draw(st.integers(1, 24))
    per = lambda values: np.array(draw(st.lists(values, min_size=n, max_size=n)))  # noqa: E731
    tasks = np.sort(per(st.sampled_from(["a", "b"])))
    scores = per(st.sampled_from([np.nan, 0.0, 0.2, 0.5, 0.5000001, 0.8, 0.97, 1.0]))
    draft = per(st.sampled_from([replay_data.RIGHT, replay_data.WRONG]))
    draft[np.isnan(scores) & (per(st.booleans()))] = replay_data.FAILED
    pop = from_arrays(
        draft_right=draft,
        agent_right=per(st.sampled_from([replay_data.RIGHT, replay_data.WRONG, replay_data.FAILED])),
        routed={"large": per(st.integers(0, 1)), "small": per(st.integers(0, 1))},
        tasks=tasks,
        groups=per(st.integers(0, 5)),
        scores={"min": scores},
        cost=made_up_cost(tasks, draw(st.integers(0, 5))),
    )
    return dataclasses.replace(pop, protocol=draw(st.sampled_from(["strict", "paper"])))


def made_up_cost(tasks: np.ndarray, seed: int = 0) -> CostModel:
    rng = np.random.default_rng(seed)
    n = len(tasks)
    turns = np.where(np.arange(3) <= rng.integers(0, 3, n)[:, None], rng.uniform(0.1, 0.2, (n, 3)), np.nan)
    call = lambda shape: CallCost(  # noqa: E731
        rng.uniform(0.01, 0.02, shape), rng.integers(1, 9, shape).astype(float), 0.05, 0.001, (1, 16), 20, 1.0
    )
    agent = dataclasses.replace(call((n, 3)), added_s=turns)
    return CostModel(
        decode_s=rng.uniform(0.001, 0.002, n),
        baseline_decode_s=rng.uniform(0.001, 0.002, n),
        tool_s=rng.uniform(0.0, 0.01, n),
        router={"large": call(n), "small": call(n)},
        draft=call(n),
        agent=agent,
        serial_s=rng.uniform(0.1, 0.9, n),
        serial_recorded=True,
    )


def pooled_row(frame: pd.DataFrame) -> pd.Series:
    return frame[frame["task"] == "pooled"].iloc[0]


thresholds = st.sampled_from([0.0, 0.2, 0.3, 0.5, 0.7, 0.97, 0.99, 1.0])
routers = st.sampled_from(["large", "small", "none"])


@settings(max_examples=120, deadline=None)
@given(populations(), thresholds, routers, st.integers(1, 5), st.integers(1, 4))
def test_counts_and_seconds_are_those_of_the_samples_one_by_one(pop, threshold, router, batch, agents):
    setting = Setting(threshold=threshold, router=router, batch_size=batch, agent_batch_size=agents)
    frame, samples = outcomes.replay(pop, setting), outcomes.decisions(pop, setting)
    for task, row in frame.set_index("task").iterrows():
        if task == "average":
            continue
        part = samples[(samples["task"] == task) | (task == "pooled")]
        counted = part[~part["error"]] if pop.protocol == "paper" else part
        accepted = part[part["decision"] == "accepted"]
        assert row["n"] == len(counted)
        assert row["n_errors"] == part["error"].sum()
        assert row["accepted"] == len(accepted)
        assert row["drafted"] == (part["decision"] != "routed").sum()
        if len(counted):
            assert row["accuracy_pct"] == pytest.approx(100 * counted["right"].mean())
            assert row["accuracy_low_pct"] <= row["accuracy_pct"] <= row["accuracy_high_pct"]
        assert row["gained"] == (accepted["draft_right"] & ~accepted["agent_right"]).sum()
        assert row["lost"] == (accepted["agent_right"] & ~accepted["draft_right"]).sum()
        if len(accepted):
            assert row["selective_risk"] == pytest.approx(1 - accepted["draft_right"].mean())
        assert row["wall_s"] == pytest.approx(part["wall_s"].sum())
        assert row["baseline_wall_s"] == pytest.approx(part["baseline_wall_s"].sum())
        assert row["speedup"] == pytest.approx(row["baseline_wall_s"] / row["wall_s"])
    average = frame.set_index("task").loc["average"]
    splits = frame[~frame["task"].isin(["pooled", "average"])]
    assert average["accuracy_pct"] == pytest.approx(splits["accuracy_pct"].mean(skipna=False), nan_ok=True)
    assert average["speedup"] == pytest.approx(splits["speedup"].mean())


@settings(max_examples=60, deadline=None)
@given(populations(), routers)
def test_a_higher_threshold_accepts_less_and_shares_multiply(pop, router):
    frame = outcomes.curve(pop, Setting(router=router))
    pooled = frame[frame["task"] == "pooled"]
    assert (np.diff(pooled["accepted"]) <= 0).all()
    assert (np.diff(pooled["threshold"]) > 0).all()
    let_through = pooled[pooled["drafted"] > 0]
    assert np.allclose(let_through["alpha"] * let_through["beta"], let_through["coverage"])
    assert np.allclose(pooled["coverage"], pooled["accepted"] / pop.n)
    distinct = pooled["accepted"].iloc[1:-1]  # the ends are 0 and 1 in both
    assert distinct.is_unique


@settings(max_examples=60, deadline=None)
@given(populations(), routers)
def test_threshold_one_answers_as_the_agent_alone(pop, router):
    samples = outcomes.decisions(pop, Setting(threshold=1.0, router=router))
    assert not (samples["decision"] == "accepted").any()
    assert (samples["right"] == samples["agent_right"]).all()
    frame = outcomes.replay(pop, Setting(threshold=1.0, router=router))
    assert np.allclose(frame["accuracy_pct"], frame["baseline_accuracy_pct"], equal_nan=True)
    assert (frame["wall_s"] >= 0).all()


@settings(max_examples=60, deadline=None)
@given(populations(), thresholds, st.booleans())
def test_the_interval_is_wilsons_with_the_design_effect_of_the_groups(pop, threshold, one_task):
    setting = Setting(threshold=threshold, router="none")
    task = pop.task_names[0] if one_task else "pooled"
    row, samples = outcomes.replay(pop, setting).set_index("task").loc[task], outcomes.decisions(pop, setting)
    samples = samples[samples["task"] == task] if one_task else samples
    counted = samples[~samples["error"]] if pop.protocol == "paper" else samples
    right, n = counted["right"].astype(float), len(counted)
    if not samples["group"].duplicated().any():
        assert row["interval"] == "Wilson"
        n_effective = n
    else:
        share = right.mean() if n else np.nan
        all_groups = samples["group"].unique()
        rest = (right - share).groupby(counted["group"]).sum().reindex(all_groups, fill_value=0.0)
        g = len(all_groups)
        if n and 0 < share < 1:
            variance = g / max(g - 1, 1) * (rest**2).sum() / n**2
            n_effective = n / max(1.0, variance / (share * (1 - share) / n))
        else:
            n_effective = min(n, g)
    share = right.mean() if n else np.nan
    low, high = wilson(share * n_effective, n_effective) if n else (np.nan, np.nan)
    assert row["accuracy_low_pct"] == pytest.approx(100 * float(low), nan_ok=True, abs=1e-6)
    assert row["accuracy_high_pct"] == pytest.approx(100 * float(high), nan_ok=True, abs=1e-6)


def test_repeated_samples_do_not_make_the_interval_narrower():
    right = np.array([1, 1, 1, 0, 1, 0, 1, 1, 0, 1] * 4)
    one = from_arrays(draft_right=right[:40], agent_right=right[:40], scores={"min": np.ones(40) / 2})
    same = from_arrays(
        draft_right=np.repeat(right, 5),
        agent_right=np.repeat(right, 5),
        groups=np.repeat(np.arange(40), 5),
        scores={"min": np.ones(200) / 2},
    )
    widths = []
    for pop in (one, same):
        row = pooled_row(outcomes.replay(pop, Setting(router="none")))
        widths.append(row["accuracy_high_pct"] - row["accuracy_low_pct"])
    assert widths[0] == pytest.approx(widths[1], rel=0.05)


# ------------------------------------------------------------------------------------------------ what is lacking
@pytest.fixture
def small() -> replay_data.ReplayData:
    n = 12
    rng = np.random.default_rng(0)
    top = -np.sort(rng.gamma(1, 2, (2 * n, K_STORE)), axis=1)
    return from_arrays(
        draft_right=rng.random(n) < 0.7,
        agent_right=rng.random(n) < 0.9,
        routed={"large": np.arange(n) % 3 == 0},
        tasks=["a"] * 6 + ["b"] * 6,
        top_logprobs=top.astype(np.float32),
        offsets=np.arange(0, 2 * n + 1, 2),
    )


@pytest.mark.parametrize(
    ("axis", "bad", "named"),
    [
        ("k", 9, "K = 9 is more than the 8 log-probabilities stored"),
        ("k", 1, "K = 1"),
        ("score", "sureness", "score 'sureness' is not recorded"),
        ("score", "mni", "did you mean 'min'"),
        ("router", "small", "the output of the small router is not recorded (recorded: large)"),
        ("router", "huge", "no router 'huge'"),
        ("threshold", float("nan"), "the threshold is nan"),
        ("threshold", float("inf"), "the threshold is inf"),
        ("slope", 0.0, "slope must be a positive number"),
        ("slope", float("nan"), "slope must be a positive number"),
        ("batch_size", 0, "batch_size is 0"),
        ("agent_batch_size", 1.5, "agent_batch_size is 1.5"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_by_name_and_the_others_are_done(small, axis, bad, named):
    good = {"k": 8, "score": "min", "router": "large", "threshold": 0.9, "slope": 0.6, "batch_size": 4}
    good = {"agent_batch_size": 1} | good
    frame = outcomes.replay(small, pd.DataFrame([good, good | {axis: bad}, good]))
    refused = frame[frame["setting"] == 1]
    assert (refused["status"] == "refused").all()
    assert refused["reason"].str.contains(named, regex=False).all()
    assert (
        refused[["accuracy_pct", "accepted", "coverage", "speedup", "baseline_accuracy_pct"]]
        .isna()
        .all(axis=None)
    )
    done = frame[frame["setting"] != 1]
    assert (done["status"] == "ok").all()
    assert done["accuracy_pct"].notna().all()
    with pytest.raises(replay_data.NotRecorded, match=re.escape(named)):
        outcomes.decisions(small, Setting(**(good | {axis: bad})))


def test_a_missing_agent_answer_refuses_only_the_settings_and_tasks_that_need_it(small):
    agent = small.agent.copy()
    agent[7] = replay_data.ABSENT  # of task b, not routed
    pop = dataclasses.replace(small, agent=agent)
    confidence = pop.score("min", 8)
    frame = outcomes.replay(pop, settings_module.grid(k=8, threshold=[0.0, confidence[7]])).set_index(
        ["setting", "task"]
    )
    assert (frame.loc[0, "status"] == "ok").all()  # its draft is accepted: the agent does not answer
    assert frame.loc[1, "status"].to_dict() == {
        "a": "ok",
        "b": "refused",
        "pooled": "refused",
        "average": "refused",
    }
    assert frame.loc[(1, "b"), "reason"] == "the agent's answer is not recorded for 1 sample"
    assert np.isnan(frame.loc[(0, "b"), "baseline_accuracy_pct"])
    assert np.isnan(frame.loc[(0, "b"), "gained"])
    ledger = outcomes.ledger(pop, Setting(k=8, threshold=0.0))
    assert ledger.set_index("id").loc[pop.ids[7], "outcome"] == "unknown"


def test_a_draft_that_was_never_made_is_not_taken_for_a_rejected_one(small):
    lengths = np.full(12, 2)
    lengths[4] = 0
    draft = small.draft.copy()
    draft[4] = replay_data.ABSENT
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    pop = dataclasses.replace(
        small, draft=draft, offsets=offsets, top_logprobs=small.top_logprobs[: offsets[-1]]
    )
    row = pooled_row(outcomes.replay(pop, Setting(k=8)))
    assert row["reason"] == "no draft is recorded, which this setting would ask for, for 1 sample"
    routed = {"large": np.where(np.arange(12) == 4, 1, small.routed["large"]).astype(np.int8)}
    assert (
        pooled_row(outcomes.replay(dataclasses.replace(pop, routed=routed), Setting(k=8)))["status"] == "ok"
    )


def test_an_accepted_draft_without_verdict_is_named(small):
    draft = small.draft.copy()
    draft[4] = replay_data.ABSENT
    pop = dataclasses.replace(small, draft=draft)
    result = outcomes.replay(pop, settings_module.grid(k=8, threshold=[0.0, 1.0])).set_index(
        ["setting", "task"]
    )["reason"]
    assert result[0, "a"] == "the accepted draft has no verdict for 1 sample"
    assert result[1, "a"] == ""


def test_a_router_that_did_not_see_every_sample_is_named(small):
    routed = small.routed["large"].copy()
    routed[[2, 3]] = replay_data.ABSENT
    pop = dataclasses.replace(small, routed={"large": routed})
    result = outcomes.replay(pop, settings_module.grid(k=8, router=["large", "none"])).set_index(
        ["setting", "task"]
    )
    assert result.loc[(0, "a"), "reason"] == "the output of the large router is not recorded for 2 samples"
    assert result.loc[(0, "b"), "status"] == result.loc[(1, "a"), "status"] == "ok"


def test_scores_without_evidence_are_replayed_as_recorded_and_nothing_else():
    pop = from_arrays(draft_right=[1, 0], agent_right=[1, 1], scores={"min": [0.9, 0.8]})
    pop = dataclasses.replace(pop, recorded_k=64, recorded_slope=0.6)
    frame = outcomes.replay(
        pop, settings_module.grid(score=["min", "mean"], k=[64, 32], slope=[0.6, 1.0], router="none")
    )
    result = frame[frame["task"] == "pooled"].set_index(["score", "k", "slope"])["reason"]
    assert result["min", 64, 0.6] == ""
    assert "evidence" in result["min", 32, 0.6]
    assert "recorded at K = 64 and slope 0.6" in result["min", 64, 1.0]
    assert "score 'mean' is not recorded" in result["mean", 64, 0.6]


def test_without_timings_everything_but_the_seconds_is_there(small):
    row = pooled_row(outcomes.replay(small, Setting(k=8)))
    assert row["status"] == "ok"
    assert row["cost_note"] == "not timed"
    assert np.isnan(row["speedup"])
    assert not np.isnan(row["accuracy_pct"])


def test_an_unknown_axis_is_named(small):
    with pytest.raises(UserError, match=r"no axis 'treshold'.*'threshold'"):
        settings_module.grid(treshold=0.5)
    with pytest.raises(UserError, match="no axis 'mode'"):
        outcomes.replay(small, pd.DataFrame({"mode": ["min"]}))


# ---------------------------------------------------------------------------------------------------- one data
def test_scores_are_those_of_the_formula_for_any_k_and_slope(run):
    for k, slope in product((2, 5, 8), (0.6, 2.0)):
        grid = score_grid(run.top_logprobs, run.offsets, (k,), PAPER_SCORES, slope)
        for mode in PAPER_SCORES:
            assert np.array_equal(run.score(mode, k, slope), grid[mode][:, 0], equal_nan=True)
    assert np.array_equal(run.score("min", K_STORE), run.recorded["min"], equal_nan=True)


def test_scores_that_are_given_need_no_evidence(run):
    settings = settings_module.grid(score=PAPER_SCORES, k=(4, 8), slope=(0.6, 1.1), threshold=(0.5, 0.9))
    expected = outcomes.replay(run, settings)
    pooled = {key: values for key, values in run.pooled.items() if key[1] in (0, 4, 8)}
    bare = dataclasses.replace(run, top_logprobs=None, offsets=None, recorded={}, pooled=pooled)
    pd.testing.assert_frame_equal(outcomes.replay(bare, settings), expected)
    assert "evidence" in pooled_row(outcomes.replay(bare, Setting(k=5)))["reason"]


def test_a_part_of_a_population_is_replayed_as_a_population_of_its_own(run):
    some = np.random.default_rng(1).permutation(run.n)[: run.n // 2]
    part, settings = run.take(some), settings_module.grid(k=(4, 8), threshold=(0.5, 0.9), score=PAPER_SCORES)
    for setting in (Setting(k=4, threshold=0.5), Setting("mean", 8, threshold=0.9)):
        whole = outcomes.decisions(run, setting).iloc[np.sort(some)].reset_index(drop=True)
        columns = ["id", "confidence", "decision", "right"]
        pd.testing.assert_frame_equal(outcomes.decisions(part, setting)[columns], whole[columns])
    assert (outcomes.replay(part, settings)["status"] == "ok").all()
    mask = run.tasks == TASKS[1]
    of_task = outcomes.replay(run, settings)
    of_task = of_task[of_task["task"] == TASKS[1]].reset_index(drop=True)
    alone = outcomes.replay(run.take(mask), settings)
    alone = alone[alone["task"] == TASKS[1]].reset_index(drop=True)
    pd.testing.assert_frame_equal(alone, of_task)


def test_the_gate_can_go_by_a_score_of_any_scale(small):
    logit = np.array([-3.0, -1, 0, 2, 5, np.nan, 1, 1, -2, 3, 0, 4])
    pop = small.with_scores({"logit": logit})
    curve = outcomes.curve(pop, Setting(score="logit", router="none"))
    pooled = curve[curve["task"] == "pooled"]
    assert pooled["accepted"].tolist() == [11, 10, 9, 8, 6, 4, 3, 2, 1, 0]
    assert pooled["n_unscored"].iloc[0] == 1
    with pytest.raises(UserError, match="'min' is a score of the evidence"):
        small.with_scores({"min": logit})


def test_settings_come_back_in_the_order_given_with_their_tasks(small):
    settings = [Setting(k=8, threshold=t, router=r) for t in (0.9, 0.1) for r in ("none", "large")]
    frame = outcomes.replay(small, settings)
    assert frame["setting"].tolist() == [i for i in range(4) for _ in range(4)]
    assert frame["task"].tolist() == ["a", "b", "pooled", "average"] * 4
    assert [Setting(**row) for row in frame[list(AXES)].iloc[::4].to_dict("records")] == settings
    assert len(outcomes.replay(small, [])) == 0


def test_samples_of_a_task_have_to_stand_together():
    with pytest.raises(UserError, match="must be adjacent"):
        from_arrays(draft_right=[1, 1, 1], agent_right=[1, 1, 1], tasks=["a", "b", "a"])
    with pytest.raises(UserError, match=r"agent has 2 entries for 3 samples"):
        from_arrays(draft_right=[1, 1, 1], agent_right=[1, 1])


def test_the_ledger_names_what_every_decision_gains_or_loses():
    pop = from_arrays(
        draft_right=[1, 1, 0, 0, 0, 1],
        agent_right=[1, 0, 1, 0, 1, 0],
        scores={"min": [0.92, 0.9, 0.9, 0.9, 0.1, 0.1]},
    )
    ledger = outcomes.ledger(pop, Setting(threshold=0.5, router="none"))
    assert dict(zip(ledger["id"], ledger["outcome"], strict=True)) == {
        pop.ids[0]: "both right",
        pop.ids[1]: "gained",
        pop.ids[2]: "lost",
        pop.ids[3]: "both wrong",
        pop.ids[5]: "missed",
    }
    assert set(ledger["outcome"]) <= set(outcomes.OUTCOMES)
    row = pooled_row(outcomes.replay(pop, Setting(threshold=0.5, router="none")))
    assert (row["gained"], row["lost"]) == (1, 1)


# ------------------------------------------------------------------------------------------------------- from a run
@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.setenv("SPECEYES_RUNS", str(tmp_path))
    return tmp_path


CONFIG = {"router": "large", "k": 64, "slope": 0.6}


def test_a_run_without_evidence_or_instrumented_pass_is_replayed_as_far_as_it_goes(runs):
    arms, judged = make_run(8, TASKS)
    write_answers("imported", {"gated": arms["gated"]}, CONFIG)
    write_verdicts("imported", {"gated": judged["gated"]})
    pop = replay_data.load(recorded_run.open("imported", tasks=TASKS))
    assert (pop.agent == replay_data.ABSENT).any()
    assert pop.top_logprobs is None
    as_run = outcomes.replay(pop, Setting(threshold=0.97))
    assert (as_run["status"] == "ok").all()
    right = [
        v.verdict == "right" for j in judged["gated"].values() for v in j.verdicts if v.source == "final"
    ]
    assert pooled_row(as_run)["accuracy_pct"] == pytest.approx(100 * np.mean(right))
    stricter = outcomes.replay(pop, Setting(threshold=1.0))
    assert "the agent's answer is not recorded" in pooled_row(stricter)["reason"]
    assert "no draft is recorded" in pooled_row(outcomes.replay(pop, Setting(router="none")))["reason"]
    write_answers("imported", {"baseline": arms["baseline"]}, CONFIG)
    write_verdicts("imported", {"baseline": judged["baseline"]})
    with_baseline = replay_data.load(recorded_run.open("imported", tasks=TASKS))
    assert (with_baseline.agent != replay_data.ABSENT).all()
    assert pooled_row(outcomes.replay(with_baseline, Setting(threshold=1.0)))["status"] == "ok"


def test_another_protocol_judges_the_same_answers_again(runs, benchmark_root):
    tasks = ("pope/random",)
    samples = registry.load_task(tasks[0], benchmark_root)
    arms, judged = make_run(samples=samples)
    loud = {i: r.model_copy(update={"answer": "YES", "trajectory": r.trajectory and r.trajectory.model_copy(
        update={"answer": "YES"})}) for i, r in arms["collect"].items()}  # fmt: skip
    arms = {"collect": loud}
    judged = {"collect": {s.id: judge_record(s, loud[s.id]) for s in samples}}
    write_drafts("p", arms)
    write_answers("p", arms, CONFIG | {"data_root": str(benchmark_root)})
    write_verdicts("p", judged)
    for task in tasks:  # the manifest of 03 says which benchmark it was judged with
        manifest = stage_dir("p", "03_judging/collect", task) / "manifest.json"
        result = json.loads(manifest.read_text())
        result["config"]["data_root"] = str(benchmark_root)
        result["checksum"] = ""
        manifest.write_text(json.dumps(result))
    recorded = recorded_run.open("p", tasks=tasks)
    strict, paper = replay_data.load(recorded), replay_data.load(recorded, "paper")
    assert (strict.protocol, paper.protocol) == ("strict", "paper")
    said_yes = [s.answer == "yes" for s in samples][1:]  # the first one fails
    assert (strict.agent[1:] == replay_data.RIGHT).tolist() == said_yes
    assert (paper.agent[1:] == replay_data.RIGHT).sum() == 0  # "YES" is not "yes", letter for letter
    n = pooled_row(outcomes.replay(paper, Setting(threshold=1.0)))["n"]
    assert n == len(samples) - 1  # the failed sample leaves the accuracy
    assert pooled_row(outcomes.replay(strict, Setting(threshold=1.0)))["n"] == len(samples)


def test_a_missing_stage_names_the_notebook(runs):
    with pytest.raises(StageError, match="02_gated_agent_eval"):
        replay_data.load(recorded_run.open("nothing", tasks=TASKS))

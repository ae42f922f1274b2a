"""Stages 01 and 02 on the embedded models: what is stored, what is resumed, what is refused."""

from __future__ import annotations

import os
import random
import re
import signal
from pathlib import Path
from unittest.mock import Mock

import pytest
from sessions import Sessions, drive

from speceyes_lib.demo.server import serving
from speceyes_lib.errors import ConfigError, StageError, UserError
from speceyes_lib.inference import loaded_models, stages, turns
from speceyes_lib.models.transformers import TransformersBackend
from speceyes_lib.params import AgentParams, DraftParams
from speceyes_lib.runs import recorded_run
from speceyes_lib.runs.arms import ARMS, CLOCK_STAGE, in_clock_slice
from speceyes_lib.runs.reading import is_finished, read_evidence, read_stage
from speceyes_lib.runs.records import AgentRecord, DraftRecord
from speceyes_lib.runs.shards import Shard
from speceyes_lib.runs.stage import StageStore
from speceyes_lib.tools.sandbox import Sandbox, SandboxError
from tests.conftest import MODELS

TASKS = ["vstar/direct_attributes", "pope/adversarial"]
TRIED = {"device": "cpu", "draft_model": str(MODELS / "draft")}


@pytest.fixture(scope="module", autouse=True)
def runs(tmp_path_factory):
    """Runs of these tests live in a folder of their own."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPECEYES_RUNS", str(folder))
        yield folder


def draft_params(root: Path, run: str = "a", **more) -> DraftParams:
    return DraftParams(run=run, data_root=str(root), **{"tasks": TASKS, **TRIED, **more})


def agent_params(root: Path, run: str = "a", **more) -> AgentParams:
    more = {"tasks": TASKS, "agent_model": str(MODELS / "agent"), "threshold": 0.97, **TRIED, **more}
    return AgentParams(run=run, data_root=str(root), **more)


@pytest.fixture(scope="module")
def finished(benchmark_root) -> dict:
    """Both stages, all arms: {stage: {id: record}}, with the manifests under "manifests"."""
    progress = []
    stages.run_draft_stage(draft_params(benchmark_root), lambda *seen: progress.append(seen))
    params = agent_params(benchmark_root, arms=list(ARMS), clock_share=0.5)
    stages.run_agent_stage(params, lambda *seen: progress.append(seen))
    observed: dict = {"manifests": [], "progress": progress}
    for stage, kind in [("01_draft", DraftRecord)] + [(f"02_{arm}", AgentRecord) for arm in ARMS]:
        observed[stage] = {}
        for task in TASKS:
            data = read_stage("a", stage, task, kind)
            observed[stage] |= data.records
            observed["manifests"].append(data.manifest)
    return observed


def test_every_sample_has_its_record_in_every_stage(finished, benchmark_root):
    ids = [s.id for task in TASKS for s in stages.load_samples(draft_params(benchmark_root), task)]
    for stage in ["01_draft", *(f"02_{arm}" for arm in ARMS)]:
        assert list(finished[stage]) == ids
        assert {r.status for r in finished[stage].values()} == {"ok"}


def test_the_embedded_pair_really_answers(finished):
    # no measure of quality, but a broken prompt, picture or decoder would show here
    answers = {"red", "green", "blue", "yellow", "purple", "yes", "no"}
    answers |= {"circle", "square", "triangle", "star", "cross"}
    for stage in ("01_draft", "02_baseline"):
        given = [set(re.findall(r"\w+", r.answer)) for r in finished[stage].values()]
        assert sum(bool(words & answers) for words in given) >= 0.8 * len(given)
    assert any(len(r.trajectory.turns) > 1 for r in finished["02_baseline"].values())


def test_drafts_come_with_the_evidence_of_every_token(finished):
    for task in TASKS:
        data = read_stage("a", "01_draft", task, DraftRecord)
        evidence = read_evidence(data.folder)
        for id, record in data.records.items():
            assert evidence[id].top_logprobs.shape == (record.n_tokens, 128)


def test_the_gated_run_decides_as_the_collected_one_predicts(finished):
    for id, r in finished["02_gated"].items():
        c = finished["02_collect"][id]
        accepted = c.router.verdict == "no" and c.confidence is not None and c.confidence > 0.97
        assert (r.decision == "accepted") == accepted
        assert r.answer == (c.draft.answer if accepted else c.answer)
        if r.draft is not None:
            assert r.confidence == pytest.approx(c.confidence, abs=1e-4)


def test_agents_give_the_same_answers_alone_and_batched(finished):
    for mode in ("baseline", "gated"):
        for id, alone in finished[f"02_{mode}"].items():
            batched = finished[f"02_{mode}_batched"][id]
            assert (batched.answer, batched.decision) == (alone.answer, alone.decision)
            if alone.trajectory:
                assert [t.text for t in batched.trajectory.turns] == [t.text for t in alone.trajectory.turns]


def test_only_collect_asks_for_a_first_look(finished):
    assert all(len(r.first_look.turns) == 1 for r in finished["02_collect"].values())
    assert all(r.first_look is None for arm in ARMS[1:] for r in finished[f"02_{arm}"].values())


def test_only_collect_hears_both_routers_and_how_sure_they_are(finished):
    for r in finished["02_collect"].values():
        for word in (r.router, r.router_small):
            if word.text.strip().lower() not in ("yes", "no"):
                assert word.verdict == "yes"  # the draft model never learned to route
                continue
            logprob = word.no_logprob if word.verdict == "no" else word.yes_logprob
            other = word.yes_logprob if word.verdict == "no" else word.no_logprob
            assert logprob <= 0.0
            assert other is None or other <= logprob
    assert all(r.router_small is None for arm in ARMS[1:] for r in finished[f"02_{arm}"].values())


def test_specreason_keeps_the_steps_it_accepts_from_the_small_model(finished):
    records = finished["02_specreason"].values()
    assert {r.decision for r in records} == {"specreason"}
    proposals = [turn.proposal for r in records for turn in r.trajectory.turns if turn.proposal]
    assert {p.accepted for p in proposals} == {True, False}
    assert all(p.accepted == (p.score >= 7) for p in proposals if p.score is not None)
    for r in records:
        assert r.trajectory.agent_s >= sum(t.proposal.propose_s for t in r.trajectory.turns if t.proposal)


def test_every_method_runs_with_the_agent_that_writes_programs(finished, benchmark_root):
    try:
        Sandbox()
    except SandboxError as error:
        pytest.skip(f"programs cannot be confined on this machine: {error}")
    common = {"run": "thyme", "tasks": TASKS[:1], "limit": 4, "prompts": "demo_thyme"}
    stages.run_draft_stage(draft_params(benchmark_root, **common))
    arms = ["collect", "baseline", "gated", "gated_batched", "specreason"]
    stages.run_agent_stage(agent_params(benchmark_root, **common, arms=arms, agent="thyme", max_turns=5))
    observed = {arm: read_stage("thyme", f"02_{arm}", TASKS[0], AgentRecord) for arm in arms}
    for arm, data in observed.items():
        assert {r.status for r in data.records.values()} == {"ok"}, arm
        assert data.manifest.environment["sandbox"]["mode"] == "enforced"
    for id, r in observed["baseline"].records.items():
        zooms = finished["02_baseline"][id].trajectory
        assert r.answer == zooms.answer  # the same model behind an interpreter: it crops the same boxes
        assert len(r.trajectory.turns) == len(zooms.turns)
        assert observed["collect"].records[id].answer == r.answer


def test_both_models_at_once_decide_as_one_after_the_other(finished, benchmark_root):
    arms = ["gated_batched"]
    (folder, _) = stages.run_agent_stage(agent_params(benchmark_root, "at_once", arms=arms, concurrent=True))
    for id, r in read_stage(folder, "02_gated_batched", TASKS[0], AgentRecord).records.items():
        alone = finished["02_gated"][id]
        assert (r.answer, r.decision) == (alone.answer, alone.decision)


def test_the_records_are_charged_the_clock_of_the_loop(finished):
    timed = [m.timing for m in finished["manifests"] if m.stage != "02_collect"]  # first looks are free
    session_s = sum(t["session_s"] for t in timed)
    wall_s = sum(t["wall_s"] for t in timed)
    assert 0.9 * session_s < wall_s <= session_s


def test_a_part_of_the_agent_alone_is_timed_twice_and_answers_alike(finished):
    again = {}
    for task in TASKS:
        again |= read_stage("a", CLOCK_STAGE, task, AgentRecord).records
    assert again.keys() == {id_ for id_ in finished["02_baseline"] if in_clock_slice(id_, 0.5)}
    assert again
    for id_, record in again.items():
        assert untimed(record.model_dump()) == untimed(finished["02_baseline"][id_].model_dump())
        assert record.wall_s > 0
    assert set(recorded_run.open("a", tasks=TASKS).arms) == set(ARMS)  # it is none of them


def test_models_are_loaded_once_and_their_loading_is_reported_apart(finished):
    loads = [m.timing["load_s"] for m in finished["manifests"]]
    assert sum(s > 0 for s in loads) == 2


def test_a_model_makes_room_for_another_only_where_the_stage_does_not_need_it(monkeypatch):
    opened = []
    monkeypatch.setattr(loaded_models.LoadedModels, "_loaded", {})
    backend = Mock(open=lambda name, *_, **__: opened.append(name) or Mock())
    monkeypatch.setattr(loaded_models, "backend_type", lambda name: backend)
    for agent in ("first", "second"):
        models = loaded_models.LoadedModels(
            AgentParams(draft_model="draft", agent_model=agent), ["draft", "agent"]
        )
        models.load()
        assert models["draft"] is not models["agent"]
    assert opened == ["draft", "first", "second"]


def test_the_manifests_name_the_models_in_use(finished):
    for manifest in finished["manifests"]:
        asked = manifest.environment["models"]
        assert ("agent" in asked) == (manifest.stage != "01_draft")
        without = manifest.stage.startswith("02_baseline")
        assert ("draft" in asked) != without
        assert all(m["architecture"] and m["dtype"] == "float32" for m in asked.values())


def test_progress_starts_at_what_was_done_and_ends_at_all(finished):
    legs: dict[str, list] = {}
    for done, total, text in finished["progress"]:
        legs.setdefault(text, []).append((done, total))
    assert len(legs) == len(TASKS) * 2  # the drafts of a task, and all of its arms
    for counts in legs.values():
        assert counts[0][0] == 0
        assert counts[-1][0] == counts[-1][1] == len(counts) - 1


def test_a_finished_stage_is_not_done_again(finished, benchmark_root, monkeypatch):
    monkeypatch.setattr(TransformersBackend, "__init__", None)  # no model can be loaded
    monkeypatch.setattr(loaded_models.LoadedModels, "_loaded", {})
    (first, _) = stages.run_draft_stage(draft_params(benchmark_root))
    assert read_stage("a", "01_draft", TASKS[0], DraftRecord).manifest.counts.resumed == 6
    assert first.name == "direct_attributes"


def test_a_preview_records_what_the_stage_would_and_stores_nothing(finished, benchmark_root, runs):
    before = sorted(runs.rglob("*"))
    params = agent_params(benchmark_root)
    samples = stages.load_samples(params, TASKS[0])[:3]
    drafts = stages.preview_drafts(draft_params(benchmark_root), samples)
    for (record, evidence), sample in zip(drafts, samples, strict=True):
        assert record.answer == finished["01_draft"][sample.id].answer
        assert evidence.n_tokens == record.n_tokens
    for arm in ("baseline", "gated", "collect"):
        shown = stages.preview_agents(params, samples, arm)
        assert [r.id for r in shown] == [s.id for s in samples]
        assert [r.answer for r in shown] == [finished[f"02_{arm}"][s.id].answer for s in samples]
    assert sorted(runs.rglob("*")) == before


def test_a_limit_takes_the_first_samples(benchmark_root):
    (folder,) = stages.run_draft_stage(draft_params(benchmark_root, "short", tasks=TASKS[:1], limit=2))
    assert len((folder / "records.jsonl").read_text().splitlines()) == 2
    with pytest.raises(StageError, match="lacks 4 of 6 samples"):
        stages.run_agent_stage(agent_params(benchmark_root, "short", tasks=TASKS[:1], arms=["collect"]))


# ---------------------------------------------------------------------------------------------- refusals
def test_collect_before_the_drafts_names_the_notebook_to_run(benchmark_root):
    with pytest.raises(StageError, match="01_small_model_inference"):
        stages.run_agent_stage(agent_params(benchmark_root, "none", arms=["collect"]))


def test_collect_refuses_drafts_that_were_scored_otherwise(finished, benchmark_root):
    with pytest.raises(StageError, match="k = 64, but this stage has 32"):
        stages.run_agent_stage(agent_params(benchmark_root, arms=["collect"], k=32))


def test_gated_without_an_operating_point_names_the_notebook_to_run(benchmark_root, tmp_path):
    missing = str(tmp_path / "operating_point.json")
    with pytest.raises(StageError, match="04_threshold"):
        stages.run_agent_stage(
            agent_params(benchmark_root, threshold=None, threshold_from=missing, arms=["gated"])
        )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"threshold": "high"}',
        '{"threshold": 2}',
        '{"threshold": true}',
        '{"threshold": NaN}',
    ],
)
def test_an_operating_point_without_a_usable_threshold_is_refused(benchmark_root, tmp_path, text):
    path = tmp_path / "operating_point.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"operating_point\.json"):
        stages.threshold_of(agent_params(benchmark_root, threshold=None, threshold_from=str(path)))


def test_the_threshold_is_read_from_the_operating_point(benchmark_root, tmp_path):
    path = tmp_path / "operating_point.json"
    path.write_text('{"threshold": 0.9625}')
    params = agent_params(benchmark_root, threshold=None, threshold_from=str(path))
    assert stages.threshold_of(params) == 0.9625


def test_a_missing_model_is_reported_before_anything_is_written(benchmark_root, runs):
    with pytest.raises(UserError, match="no model here"):
        stages.run_draft_stage(draft_params(benchmark_root, "nomodel", draft_model="data/no/such/model"))
    assert not (runs / "nomodel").exists()


def test_more_alternatives_than_the_vocabulary_are_refused(benchmark_root):
    with pytest.raises(UserError, match="vocabulary of"):
        stages.run_draft_stage(draft_params(benchmark_root, "bigk", k_store=5000))


def test_drafts_of_another_setting_are_not_mixed(finished, benchmark_root):
    with pytest.raises(StageError, match="max_new_tokens"):
        stages.run_draft_stage(draft_params(benchmark_root, max_new_tokens=7))


# ------------------------------------------------------------------------------------------ interruptions
def session(order: dict) -> None:
    """Both stages, with a dot on stdout for every step of progress."""
    StageStore.sync_every_s = 0.05  # small steps, so that every session gets somewhere
    tick = lambda *seen: os.write(1, b".")  # noqa: E731
    stages.run_draft_stage(DraftParams(**order["draft"]), tick)
    stages.run_agent_stage(AgentParams(**order["agent"]), tick)


def drive_stages() -> None:
    import torch
    from transformers import (  # noqa: F401 (paid for once: every session is a fork of this process)
        AutoProcessor,
        Qwen2_5_VLForConditionalGeneration,
        Qwen3VLForConditionalGeneration,
    )

    torch.set_num_threads(1)
    drive(session)


@pytest.fixture(scope="module")
def run(benchmark_root):
    """A session of both stages of a run, stopped where asked: what it told."""
    sessions = Sessions("from tests.inference.test_stages import drive_stages; drive_stages()")

    def session_of(run: str, **stop) -> str:
        # few agents at once: many small steps, so that a stop finds work under way
        agent = agent_params(
            benchmark_root, run, arms=["collect", "gated"], agent_batch_size_batched=2, batch_size=3
        )
        order = {"draft": draft_params(benchmark_root, run), "agent": agent}
        return sessions.run({name: params.model_dump() for name, params in order.items()}, **stop)

    yield session_of
    sessions.close()


def outcome(run: str) -> dict:
    """What must not depend on interruptions: answers, decisions, texts; and the scores."""
    observed = {}
    for task in TASKS:
        drafts = read_stage(run, "01_draft", task, DraftRecord)
        evidence = read_evidence(drafts.folder)
        for id, r in drafts.records.items():
            observed["draft", id] = (
                (r.status, r.answer, r.n_tokens, evidence[id].token_ids.tolist()),
                r.scores,
            )
        for id, r in read_stage(run, "02_collect", task, AgentRecord).records.items():
            turns = [(t.text, t.crop_px) for t in r.trajectory.turns]
            decided = (
                r.status,
                r.answer,
                r.decision,
                r.router.verdict,
                r.draft.answer,
                r.first_look.answer,
                turns,
            )
            observed["agent", id] = decided, {"confidence": r.confidence}
        for id, r in read_stage(run, "02_gated", task, AgentRecord).records.items():
            observed["gated", id] = (r.status, r.answer, r.decision), {"confidence": r.confidence}
    return observed


def test_a_run_killed_at_ten_random_moments_equals_an_uninterrupted_one(finished, run):
    rng = random.Random(5)
    moments = [{"stop": rng.randint(1, 6), "after_s": rng.uniform(0, 0.15)} for _ in range(10)]
    killed = [run("killed", **moment) for moment in moments]
    assert sum("F" not in k for k in killed) >= 8  # really killed, not finished before
    assert "F" in run("killed")
    whole, pieced = outcome("a"), outcome("killed")
    assert whole.keys() == pieced.keys()
    for key, (records, scores) in whole.items():
        assert pieced[key][0] == records
        assert pieced[key][1] == pytest.approx(scores, abs=1e-4)


def test_an_interrupt_from_the_keyboard_leaves_a_stage_that_can_be_taken_up(finished, run):
    stopped = run("interrupted", stop=4, how=signal.SIGINT)
    assert "I" in stopped
    assert not is_finished("interrupted", "02_collect", TASKS[-1])
    assert "F" in run("interrupted")
    counts = read_stage("interrupted", "01_draft", TASKS[0], DraftRecord).manifest.counts
    assert counts.done == counts.expected
    assert {k: v[0] for k, v in outcome("interrupted").items()} == {k: v[0] for k, v in outcome("a").items()}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_that_python_swallows_in_a_finaliser_is_heeded_at_the_next_record():
    class Finalised:
        def __del__(self):
            signal.raise_signal(signal.SIGINT)

    # a job in the background starts without this handler
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with turns.interruptible() as raise_if_interrupted:
            raise_if_interrupted()
            Finalised()
            with pytest.raises(KeyboardInterrupt):
                raise_if_interrupted()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def untimed(value):
    """A record's values without times and batch sizes."""
    if isinstance(value, dict):
        return {k: untimed(v) for k, v in value.items() if not k.endswith("_s") and k != "batch_size"}
    return [untimed(v) for v in value] if isinstance(value, list | tuple) else value


def rounded(value):
    if isinstance(value, float):
        return round(value, 3)
    if isinstance(value, dict):
        return {k: rounded(v) for k, v in value.items()}
    return [rounded(v) for v in value] if isinstance(value, list) else value


# ------------------------------------------------------------------ served models


@pytest.fixture(scope="module")
def served(tiny_draft, tiny_agent):
    """Model names of the embedded pair behind the embedded server, as a config would have them."""
    with serving({"draft": tiny_draft, "agent": tiny_agent}) as url:
        yield {
            f"{role}_model": f"{url}?model={role}&processor={MODELS / role}" for role in ("draft", "agent")
        }


def test_drafts_routes_and_agents_of_served_models_are_those_of_local_ones(finished, served, benchmark_root):
    stages.run_draft_stage(draft_params(benchmark_root, "served", draft_model=served["draft_model"]))
    arms = ["collect", "gated", "baseline_batched"]
    stages.run_agent_stage(agent_params(benchmark_root, "served", arms=arms, **served))
    for stage, kind in [("01_draft", DraftRecord)] + [(f"02_{arm}", AgentRecord) for arm in arms]:
        for task in TASKS:
            data = read_stage("served", stage, task, kind)
            for id, record in data.records.items():
                assert rounded(untimed(record.model_dump())) == rounded(
                    untimed(finished[stage][id].model_dump())
                )
            assert "127.0.0.1" not in data.manifest.model_dump_json()
            for role, model in data.manifest.environment["models"].items():
                assert (model["name"], data.manifest.config[f"{role}_model"]) == (role, f"served:{role}")


def test_a_server_with_too_few_alternatives_is_refused_before_anything_is_written(
    tiny_draft, benchmark_root, runs
):
    with serving({"draft": tiny_draft}, max_logprobs=20) as url:
        model = f"{url}?model=draft&processor={MODELS / 'draft'}"
        with pytest.raises(UserError, match="--max-logprobs 128"):
            stages.run_draft_stage(draft_params(benchmark_root, "few", draft_model=model))
        assert not list((runs / "few").rglob("records.jsonl")) or not any(
            f.read_text() for f in (runs / "few").rglob("records.jsonl")
        )
        lowered = draft_params(benchmark_root, "few", draft_model=model, if_fewer_alternatives="lower")
        stages.run_draft_stage(lowered)
    stage = read_stage("few", "01_draft", TASKS[0], DraftRecord)
    assert (stage.manifest.config["k_store"], stage.manifest.config["k"]) == (20, 20)
    assert stage.manifest.environment["models"]["draft"]["alternatives"] == 20
    assert all(r.scores for r in stage.records.values())
    assert {e.k for e in read_evidence(stage.folder).values()} == {20}


# ------------------------------------------------------------------ shards


def test_shards_merge_into_the_files_that_one_job_would_have_written(
    finished, benchmark_root, runs, monkeypatch
):
    drafts, agents = (
        draft_params(benchmark_root, "sharded"),
        agent_params(benchmark_root, "sharded", arms=["collect", "gated"]),
    )
    parts = [Shard(i, 3) for i in (1, 2, 3)]
    for stage, params in ((stages.run_draft_stage, drafts), (stages.run_agent_stage, agents)):
        for part in parts:
            stage(params, shard=part)
        with monkeypatch.context() as patch:
            patch.setattr(TransformersBackend, "__init__", None)  # merging needs no model
            patch.setattr(loaded_models.LoadedModels, "_loaded", {})
            stage(params)
    for name, kind in (("01_draft", DraftRecord), ("02_collect", AgentRecord), ("02_gated", AgentRecord)):
        for task in TASKS:
            merged, alone = (read_stage(run, name, task, kind) for run in ("sharded", "a"))
            assert list(merged.records) == list(alone.records)
            for id, record in merged.records.items():
                # scores may differ in their last digits with the company a sample has in its batch
                assert rounded(untimed(record.model_dump())) == rounded(
                    untimed(alone.records[id].model_dump())
                )
            names = {f.name for f in merged.folder.iterdir()}
            assert names == {f.name for f in alone.folder.iterdir()}
            assert read_evidence(merged.folder).keys() == read_evidence(alone.folder).keys()
            shards = merged.manifest.environment["shards"]
            assert list(shards) == ["1of3", "2of3", "3of3"]
            assert sum(s["records"] for s in shards.values()) == len(merged.records)


def test_a_shard_that_is_missing_or_made_otherwise_is_done_again(benchmark_root, runs):
    for part, slope in ((Shard(1, 3), 0.6), (Shard(2, 3), 0.5)):
        stages.run_draft_stage(draft_params(benchmark_root, "gaps", slope=slope), shard=part)
    stages.run_draft_stage(draft_params(benchmark_root, "gaps"))
    manifest = read_stage("gaps", "01_draft", TASKS[0], DraftRecord).manifest
    assert {name: s["records"] for name, s in manifest.environment["shards"].items()} == {"1of3": 2}
    assert (manifest.counts.done, manifest.counts.resumed) == (6, 2)

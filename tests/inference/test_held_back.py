"""A fault of the means (server, memory, disk, sandbox) is no sample's result: nothing of it is kept."""

from __future__ import annotations

import os
import random
from dataclasses import replace
from pathlib import Path

import pytest
from mortal_server import MortalServer
from scripted import ScriptedBackend

from speceyes_lib.agents.deepeyes import DeepEyesAgent
from speceyes_lib.errors import MeansError, StageError
from speceyes_lib.inference import stages
from speceyes_lib.inference.funnel import Held, run_drafts
from speceyes_lib.models.base import failed
from speceyes_lib.params import AgentParams, DraftParams
from speceyes_lib.runs.reading import is_finished, read_evidence, read_stage
from speceyes_lib.runs.records import AgentRecord, DraftRecord
from tests.inference.test_funnel import DRAFTING, PROMPTS, SPEC, agent_says, begin, draft_says, samples
from tests.inference.test_stages import untimed

TASKS = ["vstar/direct_attributes"]
STAGES = [("01_draft", DraftRecord), ("02_collect", AgentRecord), ("02_gated", AgentRecord)]
TRIALS = int(os.environ.get("SPECEYES_TRIALS", "0"))  # set by `make trials`: how often
DEATHS = 10 if TRIALS else 4


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("SPECEYES_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


@pytest.fixture(scope="module")
def server():
    return MortalServer()


def params_of(server: MortalServer, root: Path, run: str, **more) -> tuple[DraftParams, AgentParams]:
    asked = {"retries": 0, "concurrency": 4}
    shared = {"run": run, "data_root": str(root), "tasks": TASKS, "k_store": 2, "k": 2}
    shared |= {"min_pixels": 1024, "max_pixels": 4096}  # small pictures are soon encoded
    shared |= {"draft_model": server.url("draft", **asked), **more}
    agent = {"agent_model": server.url("agent", **asked), "arms": ["collect", "gated"], "threshold": 0.9}
    return DraftParams(**shared), AgentParams(**shared, **agent)


def run_all(draft: DraftParams, agent: AgentParams) -> None:
    stages.run_draft_stage(draft)
    stages.run_agent_stage(agent)


def outcome(run: str) -> dict:
    observed = {}
    for stage, kind in STAGES:
        for task in TASKS:
            data = read_stage(run, stage, task, kind)
            assert data.manifest.counts.failed == 0
            observed |= {(stage, i): untimed(r.model_dump(mode="json")) for i, r in data.records.items()}
            evidence = read_evidence(data.folder).items()
            observed |= {
                (stage, i, "evidence"): (e.token_texts, e.top_logprobs.tolist()) for i, e in evidence
            }
    return observed


@pytest.mark.parametrize("seed", range(max(1, TRIALS)))
def test_a_server_killed_at_random_moments_leaves_the_records_of_an_undisturbed_run(
    server, benchmark_root, seed
):
    with server.alive():
        run_all(*params_of(server, benchmark_root, "whole"))
    chance, complaints, run = random.Random(seed), [], ""
    while len(complaints) < DEATHS:
        run += "k"
        params = params_of(server, benchmark_root, run)
        finished = False
        while not finished:
            with server.alive(chance.randint(1, 20) if len(complaints) < DEATHS else None):
                try:
                    run_all(*params)
                    finished = True
                except StageError as error:
                    complaints.append(str(error))
        assert outcome(run) == outcome("whole")
    assert all("held back" in c and "--accept-failures" in c for c in complaints)


def test_a_server_that_is_gone_ends_the_stage_early_and_a_person_may_take_its_failures(
    server, benchmark_root, runs
):
    draft, _ = params_of(server, benchmark_root, "gone")
    with server.alive(3), pytest.raises(StageError, match=r"[0-3] of 6 samples are done.*unreachable"):
        stages.run_draft_stage(draft)
    assert not is_finished("gone", "01_draft", TASKS[0])
    with server.alive():
        stages.run_draft_stage(draft)
    assert read_stage("gone", "01_draft", TASKS[0], DraftRecord).manifest.counts.failed == 0

    stages.run_draft_stage(draft.model_copy(update={"run": "taken", "accept_failures": True}))
    taken = read_stage("taken", "01_draft", TASKS[0], DraftRecord)
    assert taken.manifest.counts.failed == 6
    assert taken.manifest.environment["accept_failures"] is True
    assert {r.error.type for r in taken.records.values()} == {"draft_error"}


# ------------------------------------------------------------------ every phase, without a server

NAMES = ["sure-easy", "unsure-easy", "unsure-hard-zoom"]
BAD = "unsure-easy"  # routed to a draft, which is rejected, so that the agent answers
ROUTER = "Would zooming"
PHASES = {
    "router": lambda r: ROUTER in r.messages[-1]["content"][-1]["text"],
    "first look": lambda r: bool(r.prefill),
    "agent": lambda r: r.max_new_tokens > 20 and not r.prefill,
    "draft": lambda r: r.max_new_tokens == DRAFTING.max_new_tokens,
}


def broken(says, phase: str):
    """A script that fails for one sample, as memory does."""
    fails = PHASES[phase]
    return lambda r: failed(r, "full", 0.0, "out_of_memory") if r.id == BAD and fails(r) else says(r)


@pytest.mark.parametrize("concurrent", [False, True])
@pytest.mark.parametrize("accept", [False, True])
@pytest.mark.parametrize("phase", PHASES)
def test_whatever_phase_the_means_fail_in_the_sample_is_held(phase, accept, concurrent):
    backends = {"draft": broken(draft_says, phase), "agent": broken(agent_says, phase)}
    how = {name: ScriptedBackend(script, SPEC) for name, script in backends.items()}
    if phase == "first look":
        drafts = {name: DraftRecord(id=name, status="ok", answer="red") for name in NAMES}
        how |= {"mode": "collect", "drafts": drafts, "without_tool": True}
    results = [r for r, _ in begin(NAMES, **how, concurrent=concurrent, accept_failures=accept)]
    assert sorted(r.id for r in results) == sorted(NAMES)
    held = {r.id: r.failure.type for r in results if isinstance(r, Held)}
    assert held == ({} if accept else {BAD: "out_of_memory"})


@pytest.mark.parametrize("accept", [False, True])
@pytest.mark.parametrize("fault", [MeansError("disk", "stale file handle"), MemoryError()])
def test_a_picture_that_cannot_be_read_now_is_no_unreadable_picture(fault, accept):
    class Unreadable:
        def open(self):
            raise fault

    given = [replace(s, image=Unreadable()) if s.id == BAD else s for s in samples(*NAMES)]
    backend = ScriptedBackend(draft_says, SPEC)
    results = run_drafts(given, backend=backend, prompts=PROMPTS, drafting=DRAFTING, accept_failures=accept)
    by_id = {r.id: r for r, _ in results}
    assert isinstance(by_id[BAD], DraftRecord if accept else Held)
    assert [by_id[name].status for name in NAMES if name != BAD] == ["ok", "ok"]


@pytest.mark.parametrize("accept", [False, True])
@pytest.mark.parametrize("fault", [MeansError("sandbox", "killed for memory"), OSError(28, "No space left")])
def test_a_tool_whose_means_fail_holds_its_sample_or_is_its_error(monkeypatch, fault, accept):
    feed = DeepEyesAgent.feed

    def failing(agent, generation):
        if agent.id == BAD:
            raise fault
        feed(agent, generation)

    monkeypatch.setattr(DeepEyesAgent, "feed", failing)
    by_id = {r.id: r for r, _ in begin(NAMES, accept_failures=accept)}
    assert isinstance(by_id[BAD], AgentRecord if accept else Held)
    if accept:
        assert (by_id[BAD].status, by_id[BAD].error.type) == ("error", "tool_error")
    assert [by_id[name].status for name in NAMES if name != BAD] == ["ok", "ok"]

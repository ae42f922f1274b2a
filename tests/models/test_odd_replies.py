"""Whatever a server sends is a result of its sample: a generation or a typed failure, which can be stored and read."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
from odd_replies import NO_REPLIES, ODD_TEXTS, odd_reply, plain_reply
from PIL import Image
from servers import completion, scripted_server

from speceyes_lib.agents import prompt_sets
from speceyes_lib.agents.deepeyes import DeepEyesAgent
from speceyes_lib.errors import UserError
from speceyes_lib.gating.separability import score_answer
from speceyes_lib.inference import stages
from speceyes_lib.models.base import Generation, GenerationRequest
from speceyes_lib.models.openai import ServerBackend
from speceyes_lib.params import AgentParams, DraftParams
from speceyes_lib.runs.reading import is_finished, read_stage
from speceyes_lib.runs.records import AgentRecord, DraftRecord, Trajectory
from speceyes_lib.tasks.images import ImageSpec
from speceyes_lib.tasks.registry import TASKS

OPTIONS = "model=m&retries=0&processor=qwen3_vl&concurrency=4"
TRIALS = int(os.environ.get("SPECEYES_TRIALS", "0"))  # set by `make trials`: how often
SEEDS = range(150 + 300 * TRIALS)
PROMPTS = prompt_sets.load("demo")
SPEC = ImageSpec(factor=16, min_pixels=256, max_pixels=9216)


def sent(**settings) -> GenerationRequest:
    return GenerationRequest("x", [{"role": "user", "content": "?"}], **({"max_new_tokens": 20} | settings))


def generations(script, requests: list[GenerationRequest], role: str = "draft") -> list[Generation]:
    with scripted_server(script) as server:
        return ServerBackend(f"{server.base_url}?{OPTIONS}", role).generate(requests)


def trajectory_of(generation: Generation):
    """What an agent records that gets this turn."""
    picture = Image.new("RGB", (64, 64))
    agent = DeepEyesAgent("x", "?", picture, picture, spec=SPEC, prompts=PROMPTS, max_turns=2)
    for _ in range(2):
        if not agent.done:
            agent.feed(generation)
    return agent.trajectory()


def test_any_reply_is_a_generation_or_a_failure_that_can_be_stored():
    replies = {seed: (200, odd_reply(seed)) for seed in SEEDS} | dict(enumerate(NO_REPLIES, start=10**6))
    bodies = list(replies.values())

    def script(n, body):
        return bodies[int(body["messages"][0]["content"])]

    for k in (0, 3):
        requests = [
            replace(sent(evidence_k=k), messages=[{"role": "user", "content": str(n)}])
            for n in range(len(bodies))
        ]
        got = generations(script, requests)
        assert len(got) == len(bodies)
        assert 10 < sum(g.error is None for g in got) < len(bodies) - len(NO_REPLIES)
        for generation in got:
            stored = trajectory_of(generation).model_dump_json().encode()
            assert Trajectory.model_validate_json(stored)
            assert (generation.finish_reason == "error") == (generation.error is not None)
            if generation.error:
                assert len(generation.error.message.encode()) < 4096
            elif k:
                assert generation.evidence.n_tokens == 0 or generation.evidence.k == 3
                "".join(generation.evidence.token_texts).encode()


@pytest.fixture
def run_of(tmp_path, monkeypatch, benchmark_root):
    """Parameters of stages 01 and 02 whose models are this server; finding out what it returns is left out."""
    monkeypatch.setenv("SPECEYES_RUNS", str(tmp_path))
    monkeypatch.setattr(ServerBackend, "warm_up", lambda self: None)
    monkeypatch.setattr(
        ServerBackend, "probe", lambda self, k, required=False: setattr(self, "vocab_size", 4)
    )

    def params(server, tasks):
        model = f"{server.base_url}?{OPTIONS}"
        common = {
            "run": "odd",
            "data_root": str(benchmark_root),
            "tasks": list(tasks),
            "draft_model": model,
            "k_store": 8,
            "k": 8,
        }
        agents = {"agent_model": model, "arms": ["collect"], "max_turns": 2}
        return DraftParams(**common), AgentParams(**common, **agents)

    return params


@pytest.mark.parametrize("tasks", [TASKS if TRIALS else TASKS[2:3]])
def test_a_stage_of_odd_replies_finishes_and_finishes_again(run_of, tasks):
    with scripted_server(lambda n, body: (200, odd_reply(n + 5000))) as server:
        drafts, agents = run_of(server, tasks)
        for _ in range(2):
            stages.run_draft_stage(drafts)
            stages.run_agent_stage(agents)
            requests = len(server.requests)
        assert len(server.requests) == requests > 20 * len(tasks)
    for task in tasks:
        for stage, kind in (("01_draft", DraftRecord), ("02_collect", AgentRecord)):
            assert is_finished("odd", stage, task)
            assert read_stage("odd", stage, task, kind).records


# ------------------------------------------------------------------ what must not be taken for something else


def reasoned(answer: str = "B") -> dict:
    """`answer` after a thought that the server's parser took out of the text, but not out of the log-probabilities."""
    reply = plain_reply(answer, k=8)
    content = reply["choices"][0]["logprobs"]["content"]
    unsure = [{"token": f"t{i}", "logprob": -0.02 - i / 1000} for i in range(8)]
    thought = [
        {"token": token, "logprob": -0.01, "top_logprobs": unsure}
        for token in ("<think>", "Maybe", " A", "</think>", "\n\n")
    ]
    content[:0] = thought
    reply["choices"][0]["message"]["reasoning_content"] = "Maybe A"
    return reply


def test_the_confidence_of_an_answer_is_not_that_of_the_thought_before_it():
    plain, split = (
        generations(lambda n, body, reply=reply: (200, reply), [sent(evidence_k=8)])[0]
        for reply in (plain_reply(k=8), reasoned())
    )
    assert (plain.text, split.text, split.evidence.token_texts) == ("B", "B", ("B",))
    assert split.first_texts == plain.first_texts
    for score in ("min", "mean", "bottom20", "log"):
        assert score_answer(split.evidence.top_logprobs, score, k=8) == score_answer(
            plain.evidence.top_logprobs, score, k=8
        )


def test_evidence_of_a_thought_without_an_end_is_refused():
    reply = reasoned()
    del reply["choices"][0]["logprobs"]["content"][3]
    (got,) = generations(lambda n, body: (200, reply), [sent(evidence_k=8)])
    assert "log-probabilities are those of '<think>Maybe A" in got.error.message


THOUGHT_ONLY = completion(None, finish_reason="length")
THOUGHT_ONLY["choices"][0]["message"]["reasoning_content"] = "B because it is blue"
TOOL_CALLS = completion(None, finish_reason="tool_calls")
TOOL_CALLS["choices"][0]["message"]["tool_calls"] = [{"function": {"name": "image_zoom_in_tool"}}]
# what a server sends to everything, and what the message about it must hold
UNUSABLE = [
    (THOUGHT_ONLY, "B because it is blue.*reasoning parser"),
    (TOOL_CALLS, "image_zoom_in_tool.*tool parser"),
    (completion("B", finish_reason="content_filter"), "ended by 'content_filter'"),
    (completion("B", finish_reason=None), "ended by 'None'"),
    (
        {"error": {"message": "Rate limit exceeded: 20 requests per minute", "code": 429}},
        "20 requests per minute",
    ),
    (completion({"text": "B"}), "content is no text"),
    ("<html>nginx</html>", "nginx"),
]


@pytest.mark.parametrize(("reply", "message"), UNUSABLE)
@pytest.mark.parametrize("role", ["draft", "agent"])
def test_a_server_whose_replies_the_run_could_not_use_is_refused_before_it(role, reply, message):
    with scripted_server(lambda n, body: (200, reply)) as server:
        backend = ServerBackend(f"{server.base_url}?{OPTIONS}", role)
        for find_out in (backend.warm_up, lambda: backend.probe(8, required=role == "draft")):
            with pytest.raises(UserError, match=message):
                find_out()
        assert any(message.split(".*")[0] in g.error.message for g in backend.generate([sent()]))


def test_an_agents_server_is_tried_with_its_stop_strings_and_with_room_for_a_thought():
    def script(n, body):
        return 200, (THOUGHT_ONLY if body["max_tokens"] < 512 else completion("grey"))

    with scripted_server(script) as server:
        ServerBackend(f"{server.base_url}?{OPTIONS}", "agent").warm_up()
        assert [r["max_tokens"] for r in server.requests] == [16, 512]
        assert all("</answer>" in r["stop"] for r in server.requests)
        with pytest.raises(UserError, match="reasoning parser"):
            ServerBackend(f"{server.base_url}?{OPTIONS}", "draft").warm_up()


@pytest.mark.parametrize(
    ("logprobs", "message"),
    [
        ("yes", "cannot be read"),
        ({"content": "yes"}, "cannot be read"),
        (
            {"content": [{"token": "B", "logprob": 7, "top_logprobs": [{"token": "B", "logprob": 7}] * 8}]},
            "cannot be read: 7",
        ),
        (reasoned("C")["choices"][0]["logprobs"], "those of '<think>Maybe A"),
    ],
)
def test_evidence_that_cannot_be_used_is_refused_for_drafts_and_done_without_for_routers(logprobs, message):
    with scripted_server(lambda n, body: (200, completion("B", logprobs=logprobs))) as server:
        backend = ServerBackend(f"{server.base_url}?{OPTIONS}", "draft")
        with pytest.raises(UserError, match=message):
            backend.probe(8, required=True)
        assert backend.probe(8) == 0
        (got,) = backend.generate([sent(evidence_k=8)])
    assert message.split(": ")[0] in got.error.message


def test_an_answer_ended_by_another_word_for_stop_is_taken():
    (got,) = generations(lambda n, body: (200, completion("B", finish_reason="eos_token")), [sent()])
    assert (got.text, got.finish_reason) == ("B", "stop")


def test_names_of_tokens_are_readable_where_a_server_sends_its_vocabulary():
    reply = plain_reply("yes")
    entry = reply["choices"][0]["logprobs"]["content"][0]
    entry |= {"token": "Ġyes", "bytes": None}
    entry["top_logprobs"][0]["token"] = "ĠYes"
    (got,) = generations(lambda n, body: (200, reply), [sent(evidence_k=1)])
    assert (got.evidence.token_texts, got.first_texts) == ((" yes",), (" Yes",))


def test_the_generator_covers_every_odd_text():
    bodies = [odd_reply(seed) for seed in SEEDS[:150]]
    assert all(any(odd in body for body in bodies) for odd in ODD_TEXTS.values())
    assert len(set(bodies)) > 0.8 * len(bodies)

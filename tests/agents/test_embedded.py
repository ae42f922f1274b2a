"""Interpreters for the embedded models: the model makes every decision, only the form changes."""

from __future__ import annotations

import numpy as np
import pytest
from scripted import ScriptedBackend

from speceyes_lib.agents import prompt_sets
from speceyes_lib.agents.embedded import PROGRAM, adapt, as_call, as_program
from speceyes_lib.agents.registry import agent_factory
from speceyes_lib.agents.specreason import SpecReason
from speceyes_lib.models.base import Backend, Generation, GenerationRequest
from speceyes_lib.runs.evidence import Evidence
from speceyes_lib.tasks.images import resized_view
from speceyes_lib.tools.sandbox import Sandbox, SandboxError

DEMO, THYME = prompt_sets.load("demo"), prompt_sets.load("demo_thyme")
CALL = '{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [0, 64, 48, 96], "label": "star"}}'


@pytest.fixture(scope="module")
def sandbox():
    try:
        return Sandbox()
    except SandboxError as e:
        pytest.skip(f"confinement is refused here: {e}")


def finish(agent, ask) -> object:
    while not agent.done:
        agent.feed(ask(agent.next_request()))
    return agent.trajectory()


def test_a_real_prompt_set_needs_no_interpreter():
    backend = ScriptedBackend(lambda r: "x")
    assert adapt(backend, prompt_sets.load("deepeyes")) is backend
    assert adapt(backend, prompt_sets.load("thyme")) is backend
    assert isinstance(adapt(backend, DEMO), Backend)


def test_drafts_and_router_read_the_same_behind_the_thyme_agent():
    block = DEMO.question_block("What?", ["a", "b"])
    assert THYME.question_block("What?", ["a", "b"]) == block
    assert THYME.draft_messages(block, None) == DEMO.draft_messages(block, None)
    for by in ("large", "small"):
        assert THYME.router_messages(block, None, by) == DEMO.router_messages(block, None, by)


def test_other_requests_pass_through_untouched():
    backend = ScriptedBackend(lambda r: "yes <tool_call>{}</tool_call>")
    view = object()
    for messages in (
        DEMO.router_messages("q", view),
        DEMO.draft_messages("q", view),
        DEMO.agent_messages("q", view),
    ):
        request = GenerationRequest("s", messages, 9)
        (generation,) = adapt(backend, DEMO).generate([request])
        assert backend.batches[-1] == [request]
        assert generation.text == "yes <tool_call>{}</tool_call>"


@pytest.mark.parametrize("call", [CALL, "no JSON at all", '{"name": "crop"}', "two\nlines", ""])
def test_a_call_survives_the_way_to_a_program_and_back(call):
    program = PROGRAM.fullmatch(as_program(call, "image.bmp", (96, 96)))
    assert as_call(program) == f"<tool_call>\n{call}\n</tool_call>"


def agent_on(sample, kind, wording, spec, sandbox, max_turns, **more) -> object:
    """An agent as the pipeline makes it, about to begin with a sample."""
    make = agent_factory(
        kind, spec=spec, prompts=wording, max_turns=max_turns, max_new_tokens=512, sandbox=sandbox, **more
    )
    original = sample.image.open()
    block = wording.question_block(sample.question, sample.options)
    return make(sample.id, block, original, resized_view(original, spec))


def test_the_embedded_thyme_agent_sees_and_answers_what_the_deepeyes_agent_does(
    tiny_agent, scene_samples, sandbox
):
    """On every sample: same calls, same crops up to a pixel at the border, same answers but for rare exceptions."""
    same = 0
    for sample in scene_samples[::5]:
        ran = {}
        for kind, wording in (("deepeyes", DEMO), ("thyme", THYME)):
            agent = agent_on(sample, kind, wording, tiny_agent.image_spec, sandbox, max_turns=5)
            backend = adapt(tiny_agent, wording)
            ran[kind] = finish(agent, lambda r, b=backend: b.generate([r])[0])
        zoomed, coded = ran["deepeyes"].turns, ran["thyme"].turns
        assert zoomed[0].action == coded[0].action
        if zoomed[0].action == "tool":
            assert coded[0].tool_call["arguments"]["code"].startswith('# {"name": "image_zoom_in_tool"')
            assert coded[0].n_tokens == zoomed[0].n_tokens
        same += ran["deepeyes"].answer == ran["thyme"].answer
    assert same >= len(scene_samples[::5]) - 1


def test_specreason_runs_end_to_end_on_the_embedded_pair_with_both_agents(
    tiny_draft, tiny_agent, scene_samples, sandbox
):
    for kind, wording in (("deepeyes", DEMO), ("thyme", THYME)):
        backends = {"small": adapt(tiny_draft, wording), "large": adapt(tiny_agent, wording)}
        scored_by = SpecReason(tiny_draft.image_spec)
        scores, newest = set(), []
        for sample in scene_samples[::8]:
            agent = agent_on(
                sample, kind, wording, tiny_agent.image_spec, sandbox, max_turns=6, specreason=scored_by
            )
            t = finish(agent, lambda r, b=backends: b[r.role].generate([r])[0])
            assert t.status == "ok"
            for turn in t.turns:
                assert turn.proposal is not None
                scores.add(turn.proposal.score)
                assert turn.proposal.accepted == (turn.proposal.score >= 7)
            newest.append(len(t.turns))
        assert len(scores) > 1  # it distinguishes steps
        assert max(newest) > 1  # and some have a second step


def scoring(step: str, direct: str, logprobs: list[float]) -> str:
    """The score that the interpreter returns, given the large model's first look."""
    texts = ["I", "</think>", "<answer>", *direct.split("|"), "</answer>"]
    n = len(texts)
    top = np.array([[p, -50.0] for p in [0.0, 0.0, 0.0, *logprobs, 0.0]])
    evidence = Evidence(range(n), texts, top[:, 0], np.zeros((n, 2)), top)
    text = f" it.</think><answer>{direct.replace('|', '')}</answer>"
    backend = ScriptedBackend(lambda r: Generation("s", text, tuple(range(n)), "stop", 0.0, 1, evidence))
    messages = [
        *DEMO.agent_messages("q", None),
        {"role": "assistant", "content": step},
        {"role": "user", "content": DEMO.step_score},
    ]
    (generation,) = adapt(backend, DEMO).generate([GenerationRequest("s", messages, 10)])
    (request,) = backend.batches[-1]
    assert request.prefill == DEMO.forced_look_prefix
    assert request.messages == DEMO.agent_messages("q", None)
    return generation.text


@pytest.mark.parametrize(
    ("step", "direct", "logprobs", "score"),
    [
        ("red", "red", [np.log(0.75)], "7"),
        ("Red ", "red", [0.0], "9"),
        ("red", "r|ed", [np.log(0.8), np.log(0.8)], "6"),
        ("blue", "red", [0.0], "0"),
        ("", "red", [0.0], "0"),
    ],
)
def test_the_score_is_the_large_models_probability_of_the_proposed_answer(step, direct, logprobs, score):
    assert scoring(step, direct, logprobs) == score


def test_a_step_is_proposed_from_the_newest_picture(tiny_draft):
    backend = ScriptedBackend(lambda r: "red")
    view, crop = object(), object()
    messages = [
        *DEMO.agent_messages("q", view),
        {"role": "assistant", "content": "<tool_call>...</tool_call>"},
        DEMO.tool_response(crop),
    ]
    adapt(backend, DEMO).generate([GenerationRequest("s", messages, 9, ("</answer>",), role="small")])
    ((request,),) = backend.batches
    assert request.messages == DEMO.draft_messages("q", crop)

"""Computed features and conversations are reused where tokens and pictures agree, and change no answer."""

from __future__ import annotations

import gc
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from speceyes_lib.agents import prompt_sets
from speceyes_lib.agents.deepeyes import DeepEyesAgent
from speceyes_lib.models.base import GenerationRequest
from speceyes_lib.models.picture_memory import Kept, PictureMemory
from speceyes_lib.tasks.images import resized_view
from tests.models.test_transformers import plain_inputs

PROMPTS = prompt_sets.load("demo")
STOP = ("</tool_call>", "</answer>")


def views(backend, samples) -> list[Image.Image]:
    return [resized_view(s.image.open(), backend.image_spec) for s in samples]


def first_turns(backend, samples, pictures, **settings) -> list[GenerationRequest]:
    settings = {"max_new_tokens": 120, "stop": STOP, "reuse": "conversation"} | settings
    blocks = [PROMPTS.question_block(s.question, s.options) for s in samples]
    return [
        GenerationRequest(s.id, PROMPTS.agent_messages(block, picture), **settings)
        for s, block, picture in zip(samples, blocks, pictures, strict=True)
    ]


def next_turn(request, text: str, reply: dict) -> GenerationRequest:
    return replace(request, messages=[*request.messages, {"role": "assistant", "content": text}, reply])


def without_reuse(requests) -> list[GenerationRequest]:
    return [replace(r, reuse="nothing") for r in requests]


@contextmanager
def counted(backend):
    """How many pictures and tokens of prompts the model computes."""
    seen = {"pictures": 0, "tokens": 0}

    def picture(module, args, kwargs):
        seen["pictures"] += len(kwargs["grid_thw"])

    def text(module, args, kwargs):
        if kwargs["inputs_embeds"].shape[1] > 1:  # not the single tokens of decoding
            seen["tokens"] += kwargs["inputs_embeds"].shape[1]

    hooks = [
        backend.model.model.visual.register_forward_pre_hook(picture, with_kwargs=True),
        backend.model.model.language_model.register_forward_pre_hook(text, with_kwargs=True),
    ]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


@pytest.mark.parametrize("role", ["tiny_draft", "tiny_agent"])
def test_a_batch_equals_that_of_the_models_processor(role, request, scene_samples):
    import torch

    backend, samples = request.getfixturevalue(role), scene_samples[::7]
    requests = first_turns(backend, samples, views(backend, samples), reuse="nothing", stop=())
    inputs = plain_inputs(backend, requests)
    with torch.inference_mode():
        plain = backend.model.generate(**inputs, max_new_tokens=120)
    start = inputs["input_ids"].shape[1]
    assert (
        backend.batch_tensors([backend.prepared_row(r) for r in requests])["input_ids"].tolist()
        == inputs["input_ids"].tolist()
    )
    for row, generation in zip(plain[:, start:].tolist(), backend.generate(requests), strict=True):
        assert row[: len(generation.token_ids)] == list(generation.token_ids)


def test_a_picture_is_encoded_once_for_all_questions_about_it(tiny_agent, scene_samples):
    samples = scene_samples[:4]
    pictures = views(tiny_agent, samples)
    requests = first_turns(tiny_agent, samples, pictures, reuse="pictures")
    plain = tiny_agent.generate(without_reuse(requests))
    with counted(tiny_agent) as seen:
        once, again = tiny_agent.generate(requests), tiny_agent.generate(requests[::-1])[::-1]
    assert seen["pictures"] == len(pictures)
    assert [g.text for g in once] == [g.text for g in again] == [g.text for g in plain]
    with counted(tiny_agent) as seen:
        tiny_agent.generate(without_reuse(requests))
    assert seen["pictures"] == len(pictures)


def test_a_next_turn_computes_only_what_is_new_and_gives_the_same_text(tiny_agent, scene_samples):
    samples = scene_samples[::9]
    pictures = views(tiny_agent, samples)
    requests = first_turns(tiny_agent, samples, pictures)
    texts = [g.text for g in tiny_agent.generate(requests)]
    replies = [
        PROMPTS.tool_response(p.rotate(90))
        if i % 2
        else PROMPTS.tool_response("Error: no box", is_image=False)
        for i, p in enumerate(pictures)
    ]
    # conversations with a past, of different lengths, and one without, in one batch
    turns = [next_turn(*parts) for parts in zip(requests, texts, replies, strict=True)]
    stranger = first_turns(tiny_agent, scene_samples[1:2], views(tiny_agent, scene_samples[1:2]))
    expected = [tiny_agent.generate(without_reuse([turn]))[0] for turn in turns + stranger]
    known = [tiny_agent.prepared_row(turn).start for turn in turns]
    lengths = [len(tiny_agent.prepared_row(turn).ids) for turn in turns]
    assert min(known) > 40  # pictures and all
    with counted(tiny_agent) as seen:
        answers = tiny_agent.generate(turns)
    assert seen["tokens"] == max(n - k for n, k in zip(lengths, known, strict=True)) < min(lengths)
    assert seen["pictures"] == len(turns) // 2
    mixed = tiny_agent.generate(turns + stranger)
    for one, other, alone in zip([*answers, None], mixed, expected, strict=True):
        assert other.text == alone.text
        assert one is None or one.text == alone.text


def test_the_evidence_of_a_turn_does_not_depend_on_what_was_known(tiny_agent, scene_samples):
    samples = scene_samples[:3]
    requests = first_turns(tiny_agent, samples, views(tiny_agent, samples), evidence_k=20, max_new_tokens=8)
    plain, first, second = (tiny_agent.generate(r) for r in (without_reuse(requests), requests, requests))
    for a, b, c in zip(plain, first, second, strict=True):
        for other in (b, c):
            np.testing.assert_allclose(a.evidence.top_logprobs, other.evidence.top_logprobs, atol=1e-4)


def test_whole_runs_of_the_agent_are_the_same_with_and_without(tiny_agent, scene_samples):
    def run(reuse):
        agents = []
        for s in scene_samples[::5]:
            original = s.image.open()
            block, view = (
                PROMPTS.question_block(s.question, s.options),
                resized_view(original, tiny_agent.image_spec),
            )
            agents.append(
                DeepEyesAgent(s.id, block, original, view, spec=tiny_agent.image_spec, prompts=PROMPTS)
            )
        while live := [a for a in agents if not a.done]:
            requests = [replace(a.next_request(), reuse=reuse) for a in live]
            for agent, generation in zip(live, tiny_agent.generate(requests), strict=True):
                agent.feed(generation)
        return [[turn.text for turn in a.trajectory().turns] for a in agents]

    assert run("conversation") == run("nothing")


def test_another_picture_in_the_same_words_is_not_mistaken_for_the_first(tiny_agent, scene_samples):
    (sample,) = scene_samples[:1]
    (picture,) = views(tiny_agent, [sample])
    (first,) = first_turns(tiny_agent, [sample], [picture])
    text = tiny_agent.generate([first])[0].text
    crops = [picture.rotate(90), picture.rotate(180)]
    turns = [next_turn(first, text, PROMPTS.tool_response(crop)) for crop in crops]
    expected = [tiny_agent.generate(without_reuse([turn]))[0].text for turn in turns]
    assert [tiny_agent.generate([turn])[0].text for turn in turns] == expected
    assert (
        tiny_agent.prepared_row(turns[0]).start < len(tiny_agent.prepared_row(turns[0]).ids) - 20
    )  # up to the crop


def test_computed_values_are_freed_with_their_picture(tiny_agent, scene_samples):
    gc.collect()
    before = len(tiny_agent.picture_memory)
    samples = scene_samples[:3]
    pictures = views(tiny_agent, samples)
    tiny_agent.generate(first_turns(tiny_agent, samples, pictures))
    assert len(tiny_agent.picture_memory) == before + 3
    del pictures
    gc.collect()
    assert len(tiny_agent.picture_memory) == before


def test_a_request_with_fewer_pictures_than_places_fails_alone(tiny_agent, scene_samples):
    samples = scene_samples[:2]
    good, bad = first_turns(tiny_agent, samples, views(tiny_agent, samples))
    bad.messages[-1]["content"][-1]["text"] += "<|image_pad|>"
    answers = tiny_agent.generate([good, bad])
    assert answers[0].error is None
    assert "places" in answers[1].error.message


codes = st.lists(st.integers(-2, 3), min_size=1, max_size=12)


@given(codes, codes)
def test_a_conversation_is_known_as_far_as_it_agrees_and_never_to_its_last_token(kept, new):
    n = Kept(1, codes=np.array(kept)).known(np.array(new))
    assert 0 <= n < len(new)
    assert kept[:n] == new[:n]
    assert n in (len(new) - 1, len(kept)) or kept[n] != new[n]


def test_equal_pictures_have_different_values_until_they_are_freed():
    memory = PictureMemory(lambda picture: [picture.size])
    one, other = Image.new("RGB", (4, 4)), Image.new("RGB", (4, 4))
    assert one == other
    assert memory.of(one) is memory.of(one)
    assert memory.of(one) is not memory.of(other)
    assert len(memory) == 2
    del one
    gc.collect()
    assert len(memory) == 1

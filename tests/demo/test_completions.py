"""A generation becomes the chat completion that vLLM would send."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speceyes_lib.demo.completions import ChatRequest, ModelFacts, completion
from speceyes_lib.models.base import Generation, GenerationRequest
from speceyes_lib.models.endpoint import Reply
from speceyes_lib.models.openai import read_reply
from speceyes_lib.runs.evidence import Evidence
from speceyes_lib.tasks.images import ImageSpec

BYTES = [bytes([b]) for b in range(256)]
END, *OTHERS = (len(BYTES) + n for n in range(3))
MODEL = ModelFacts(ImageSpec(16, 256, 9216), 500, 1500, [*BYTES, b"<|im_end|>", b"no", b"maybe"])
K = 3
SENT = GenerationRequest("x", [{"role": "user", "content": "?"}], 500, evidence_k=K)


def evidence(tokens: list[int], others: Sequence[int] = OTHERS) -> Evidence:
    """Evidence of tokens that are less probable than two others."""
    top = np.array([[*others, token] for token in tokens], np.int32).reshape(-1, K)
    logprobs = np.tile(np.array([-0.5, -1.0, -2.0], np.float32), (len(tokens), 1))
    return Evidence(np.array(tokens), ("?",) * len(tokens), logprobs[:, 2], top, logprobs)


def generation(text: str, n: int | None = None, reason: str = "stop") -> Generation:
    """A generation of the first n bytes of a text, one token each."""
    tokens = list(text.encode()[:n])
    shown = bytes(tokens).decode("utf-8", "replace")
    end = evidence([END]) if reason == "stop" else None
    return Generation("x", shown, tuple(tokens), reason, 0.1, 1, evidence(tokens), ("no",), end)


def choice_of(done: Generation, thoughts_in: str = "", k: int = K) -> tuple[dict, dict]:
    """The choice and the usage of a completion."""
    message = {"role": "user", "content": "?"}
    chat = ChatRequest(model="m", messages=[message], logprobs=True, top_logprobs=k)
    body = json.loads(completion(chat, SENT, 7, done, MODEL, thoughts_in).body)
    return body["choices"][0], body["usage"]


def read(choice: dict, usage: dict) -> Generation:
    """What the client makes of a reply."""
    text = choice["message"]["content"] or ""
    return read_reply(SENT, Reply(text, choice["finish_reason"], 7, usage["completion_tokens"], choice, 0.1))


def test_the_end_token_has_an_entry_and_the_chosen_token_comes_first():
    choice, usage = choice_of(generation("yes"), k=2)
    entries = choice["logprobs"]["content"]
    assert [e["token"] for e in entries] == ["y", "e", "s", "<|im_end|>"]
    assert [[a["token"] for a in e["top_logprobs"]] for e in entries[:2]] == [["y", "no"], ["e", "no"]]
    assert all(e["logprob"] == e["top_logprobs"][0]["logprob"] == -2 for e in entries)
    assert (choice["message"]["content"], usage["completion_tokens"]) == ("yes", 4)


def test_parts_of_a_character_have_no_text_and_the_last_one_has_all_of_it():
    entries = choice_of(generation("é😀"))[0]["logprobs"]["content"]
    assert [e["token"] for e in entries] == ["", "é", "", "", "", "😀", "<|im_end|>"]
    assert [e["bytes"] for e in entries[:2]] == [[], [0xC3, 0xA9]]
    alternatives = choice_of(replace(generation("A"), evidence=evidence([65], [0xC3, 66])))[0]
    assert [a["token"] for a in alternatives["logprobs"]["content"][0]["top_logprobs"]] == ["A", "", "B"]


def test_a_character_that_is_cut_off_is_no_text_and_its_tokens_count():
    choice, usage = choice_of(generation("yes😀", 5, "length"))
    assert (choice["message"]["content"], usage["completion_tokens"]) == ("yes", 5)
    got = read(choice, usage)
    assert (got.text, len(got.token_ids), got.evidence.n_tokens) == ("yes", 5, 5)


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
@pytest.mark.parametrize(
    ("text", "thought", "rest"),
    [("<think>red?</think>yes", "red?", "yes"), ("red?</think>yes", "red?", "yes"), ("yes", "yes", None)],
)
def test_thoughts_go_into_a_field_of_their_own_on_request(field, text, thought, rest):
    choice, usage = choice_of(generation(text), field)
    assert (choice["message"][field], choice["message"]["content"]) == (thought, rest)
    assert len(choice["logprobs"]["content"]) == usage["completion_tokens"] == len(text) + 1
    got = read(choice, usage)
    assert (got.text, got.evidence and got.evidence.n_tokens) == ((rest, 3) if rest else ("", None))
    assert (field in got.error.message) if rest is None else got.error is None


@given(st.text(min_size=1, max_size=8), st.data())
@settings(deadline=None, max_examples=60)
def test_the_client_reads_any_answer_and_any_beginning_of_one_with_all_its_tokens(text, data):
    n = data.draw(st.integers(1, len(text.encode())))
    reason = data.draw(st.sampled_from(["stop", "length"])) if n == len(text.encode()) else "length"
    done = generation(text, n, reason)
    got = read(*choice_of(done))
    assert got.error is None
    assert got.text == text.encode()[:n].decode("utf-8", "ignore")
    assert got.evidence.n_tokens == n or got.text != got.text.strip() or not got.text.isprintable()

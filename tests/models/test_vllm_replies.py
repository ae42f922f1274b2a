"""The client reads what a real vLLM sent, and the embedded server sends the same kind of reply."""

from __future__ import annotations

import json
from typing import Any

import pytest
import vllm_replies
from servers import scripted_server
from vllm_replies import ANSWERED, NOT_GREEDY, REFUSED, post

from speceyes_lib.demo.server import serving
from speceyes_lib.models.base import Generation, GenerationRequest
from speceyes_lib.models.openai import ServerBackend

REPLIES: dict[str, dict] = json.loads(vllm_replies.FILE.read_text("utf-8"))["replies"]
END = "<|im_end|>"


@pytest.fixture(scope="module")
def embedded(tiny_draft):
    with serving({"draft": tiny_draft}) as url:
        yield url


def read(name: str) -> Generation:
    """What the client makes of a reply."""
    body, reply = ANSWERED[name], REPLIES[name]
    with scripted_server(lambda n, sent: (reply["status"], reply["body"])) as server:
        backend = ServerBackend(f"{server.base_url}?model=m&retries=0&processor=qwen3_vl")
        settings = {"stop": tuple(body.get("stop", ())), "evidence_k": body.get("top_logprobs", 0)}
        message = [{"role": "user", "content": "?"}]
        (got,) = backend.generate([GenerationRequest("x", message, body["max_tokens"], **settings)])
    return got


def kinds(value: Any) -> Any:
    """The fields of a reply and the types of their values; of a list that of its first item."""
    if isinstance(value, dict):
        return {name: kinds(field) for name, field in value.items()}
    if isinstance(value, list):
        return [kinds(value[0])] if value else []
    return float if isinstance(value, float) else type(value)


def common(ours: Any, theirs: Any) -> Any:
    """`theirs` without the fields that we lack."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return {name: common(field, theirs.get(name, "missing")) for name, field in ours.items()}
    if isinstance(ours, list) and isinstance(theirs, list) and ours and theirs:
        return [common(ours[0], theirs[0])]
    return theirs


@pytest.mark.parametrize("name", sorted(ANSWERED))
def test_the_client_reads_all_tokens_of_the_answer(name):
    got, choice = read(name), REPLIES[name]["body"]["choices"][0]
    assert got.error is None
    assert got.text == choice["message"]["content"] + (choice["stop_reason"] or "")
    ended = choice["finish_reason"] == "stop" and choice["stop_reason"] is None
    assert len(got.token_ids) == REPLIES[name]["body"]["usage"]["completion_tokens"] - ended
    if got.evidence:
        assert got.evidence.n_tokens == len(got.token_ids)
        assert got.evidence.k == 5
        chosen = [e["logprob"] for e in choice["logprobs"]["content"]][: got.evidence.n_tokens]
        assert got.evidence.chosen_logprobs == pytest.approx(chosen, abs=1e-6)


@pytest.mark.parametrize("name", sorted(ANSWERED.keys() - NOT_GREEDY))
def test_the_embedded_server_sends_what_vllm_sends(embedded, name):
    status, ours = post(embedded, ANSWERED[name])
    theirs = REPLIES[name]["body"]
    assert status == REPLIES[name]["status"] == 200
    assert kinds(ours) == kinds(common(ours, theirs))
    for body in (ours, theirs):
        choice = body["choices"][0]
        ended = choice["finish_reason"] == "stop" and choice["stop_reason"] is None
        entries = choice["logprobs"]["content"] if choice["logprobs"] else []
        for entry in entries:
            alternatives = [a["token"] for a in entry["top_logprobs"]]
            assert len(alternatives) == ANSWERED[name].get("top_logprobs", 0)
            assert not alternatives or alternatives[0] == entry["token"]
            assert entry["bytes"] == list(entry["token"].encode())
        assert not entries or len(entries) == body["usage"]["completion_tokens"]
        assert not entries or (entries[-1]["token"] == END) == ended


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_the_embedded_server_refuses_what_vllm_refuses(embedded, name):
    status, ours = post(embedded, REFUSED[name])
    assert status == REPLIES[name]["status"]
    assert ours["error"]["message"]
    assert ours["error"].keys() == REPLIES[name]["body"]["error"].keys()

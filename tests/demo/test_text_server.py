from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import toy_tools as toys
from tool_episodes import answer, call, search
from toy_text_model import ToyModel

from speceyes_lib.demo.text_server import are_text_models, serving_text
from speceyes_lib.errors import UserError
from speceyes_lib.models.endpoint import Endpoint
from speceyes_lib.tool_speculation.episode import Assignment, Episode
from speceyes_lib.tool_speculation.local import LocalPolicy
from speceyes_lib.tool_speculation.models import CallComplete, CallStarted, Finished, Token, parse_calls
from speceyes_lib.tool_speculation.served import ServedPolicy
from speceyes_lib.tool_speculation.settings import BASELINE, SpeculationSettings
from speceyes_lib.tools.declared import MalformedCall, Toolbox, Workspace

BOX = Toolbox([toys.SEARCH, toys.LOOK])
USER = [{"role": "user", "content": "?"}]


def serving(*texts):
    return serving_text({"toy": ToyModel(list(texts))})


def post(base_url, **body):
    body = {"model": "toy", "messages": USER} | body
    request = urllib.request.Request(
        f"{base_url}/chat/completions", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=1800) as reply:
            return reply.status, reply.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def choice(base_url, **body):
    status, data = post(base_url, **body)
    assert status == 200, data
    return json.loads(data)["choices"][0]


def events(base_url, form, box=BOX, prefix=(), **options):
    async def collect():
        model = ServedPolicy(Endpoint(base_url=base_url, model="toy", retries=0), form=form, **options)
        try:
            return [e async for e in model.stream(USER, box, Workspace(None), prefix)]
        finally:
            await model.close()

    return asyncio.run(collect())


def test_calls_come_back_as_tool_calls_and_the_rest_as_text():
    with serving(f"I search <b> {search('oil')}{call('look', query='x')} now") as base_url:
        whole = choice(base_url, tools=BOX.schemas())
        stream = events(base_url, "native")
    assert whole["message"]["content"] == "I search <b>  now"
    assert whole["finish_reason"] == "tool_calls"
    assert [(c["function"]["name"], c["type"]) for c in whole["message"]["tool_calls"]] == [
        ("search", "function"),
        ("look", "function"),
    ]
    assert json.loads(whole["message"]["tool_calls"][0]["function"]["arguments"]) == {"query": "oil"}
    assert [e for e in stream if not isinstance(e, Token)] == [
        CallStarted("search"),
        CallComplete(search("oil").removeprefix("<tool_call>").removesuffix("</tool_call>")),
        CallStarted("look"),
        CallComplete(call("look", query="x").removeprefix("<tool_call>").removesuffix("</tool_call>")),
        Finished(f"I search <b>  now{search('oil')}{call('look', query='x')}"),
    ]


def test_without_tools_everything_is_text_with_log_probabilities():
    with serving(search("oil")) as base_url:
        for options in ({}, {"tools": BOX.schemas(), "tool_choice": "none"}):
            whole = choice(base_url, logprobs=True, top_logprobs=2, **options)
            assert whole["message"] == {"role": "assistant", "content": search("oil")}
            assert whole["finish_reason"] == "stop"
            assert [t["token"] for t in whole["logprobs"]["content"][0]["top_logprobs"]] == ["<", "="]
        stream = events(base_url, "hermes", top_logprobs=2)
        (complete,) = [e for e in stream if isinstance(e, CallComplete)]
        assert complete.tokens[0].top_logprobs == (-0.1, -2.0)
        begun = [Token(c) for c in search("oil")[:50]]
        assert events(base_url, "hermes", prefix=begun)[-1] == Finished(search("oil"))


@pytest.mark.parametrize(
    "broken",
    [
        '<tool_call>{"name": "search", "arguments": {"query": </tool_call>',
        '<tool_call>{"name": "search", "arguments": {"query": "oil"}</tool_call>',  # a brace is lost
        '<tool_call>{"query": "oil"}</tool_call>',
        "<tool_call></tool_call>",
    ],
)
def test_a_broken_call_is_never_repaired(broken):
    with serving(broken) as base_url:
        stream = events(base_url, "native")
    (parsed,) = parse_calls(stream[-1].text)
    with pytest.raises(MalformedCall):
        BOX.call(*(parsed if isinstance(parsed, tuple) else ("", "{}")))


def test_a_call_without_an_end_is_text():
    unfinished = 'I search <tool_call>{"name": "search"'
    with serving(unfinished) as base_url:
        assert choice(base_url, tools=BOX.schemas())["message"]["content"] == unfinished


def test_a_tool_can_be_required_or_named():
    with serving(search("oil")) as base_url:
        for wanted in ("required", {"type": "function", "function": {"name": "search"}}):
            whole = choice(base_url, tools=BOX.schemas(), tool_choice=wanted)
            (made,) = whole["message"]["tool_calls"]
            assert made["function"]["name"] == "search"
            assert json.loads(made["function"]["arguments"]) == {"query": "oil"}


def test_the_limit_of_tokens_is_the_reason():
    with serving("abcdef") as base_url:
        whole = choice(base_url, max_tokens=3)
        assert (whole["message"]["content"], whole["finish_reason"]) == ("abc", "length")


def test_a_client_that_leaves_ends_its_generation():
    model = ToyModel(["endless"])

    async def first_token(base_url):
        policy = ServedPolicy(Endpoint(base_url=base_url, model="toy", retries=0))
        stream = policy.stream(USER, Toolbox([]), Workspace(None))
        assert await anext(stream) == Token("a")
        await stream.aclose()
        await policy.close()

    with serving_text({"toy": model}) as base_url:
        asyncio.run(first_token(base_url))
        assert model.left.wait(1800)


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"model": "tiy"}, 404, "did you mean 'toy'"),
        ({"messages": []}, 400, "messages"),
        ({"colour": 1}, 400, "colour"),
        ({"temperature": 1}, 400, "temperature"),
        ({"top_logprobs": 999}, 400, "top_logprobs"),
        (
            {
                "tools": [{"type": "function", "function": {"name": "a"}}],
                "tool_choice": {"function": {"name": "b"}},
            },
            400,
            "tool 'b'",
        ),
        ({"continue_final_message": True}, 400, "exclude each other"),
        ({"continue_final_message": True, "add_generation_prompt": False}, 400, "not the assistant's"),
    ],
)
def test_what_is_not_supported_is_refused_in_openais_form(body, status, words):
    with serving("x") as base_url:
        got, data = post(base_url, **body)
    assert got == status
    assert words in json.loads(data)["error"]["message"]


def test_a_model_that_fails_is_an_error_of_the_server():
    with serving(RuntimeError("out of memory")) as base_url:
        status, data = post(base_url)
        assert status == 500
        assert "out of memory" in json.loads(data)["error"]["message"]
        _, streamed = post(base_url, stream=True)
        assert b"out of memory" in streamed


@pytest.mark.parametrize("form", ["native", "hermes"])
def test_a_task_over_the_server_is_the_task_with_the_models_at_hand(tmp_path, form):
    turns = [search("oil"), call("look", query="x"), answer("4")]

    async def run(actor, speculator, settings):
        task = Assignment("t", 1, "What does oil cost?", "4")
        return await Episode(task, actor, speculator, BOX, Workspace(tmp_path), settings).run()

    local = asyncio.run(run(LocalPolicy(ToyModel(turns)), None, BASELINE))
    with serving_text({"actor": ToyModel(turns), "spec": ToyModel(turns)}) as base_url:
        actor, speculator = (
            ServedPolicy(Endpoint(base_url=base_url, model=name, retries=0), form=form)
            for name in ("actor", "spec")
        )
        served = asyncio.run(run(actor, speculator, SpeculationSettings()))
    assert served.error is None
    assert [c.canonical for s in served.steps for c in s.calls] == [
        c.canonical for s in local.steps for c in s.calls
    ]
    assert (served.answer, [m["role"] for m in served.messages]) == ("4", [m["role"] for m in local.messages])


def test_kinds_of_models_are_told_apart_by_their_configuration(tmp_path):
    for name, architecture in (("text", "Qwen3ForCausalLM"), ("vision", "Qwen3VLForConditionalGeneration")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps({"architectures": [architecture]}))
    assert are_text_models([tmp_path / "text"])
    assert not are_text_models([tmp_path / "vision", Path("data/demo/models/draft")])
    assert not are_text_models([tmp_path])
    with pytest.raises(UserError, match="two commands"):
        are_text_models([tmp_path / "text", tmp_path / "vision"])

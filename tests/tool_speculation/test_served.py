from __future__ import annotations

import asyncio
import json
import threading

import pytest
import toy_tools as toys
from servers import completion, scripted_server
from tool_episodes import answer, call, search

from speceyes_lib.errors import ConfigError
from speceyes_lib.models.endpoint import Endpoint
from speceyes_lib.tool_speculation.episode import Assignment, Episode
from speceyes_lib.tool_speculation.models import (
    CallComplete,
    CallStarted,
    Finished,
    PolicyError,
    Token,
    parse_calls,
)
from speceyes_lib.tool_speculation.served import (
    ServedPolicy,
    hermes_messages,
    native_messages,
    served_pair,
    settings_of,
    with_pictures,
)
from speceyes_lib.tool_speculation.settings import SpeculationSettings
from speceyes_lib.tools.declared import Toolbox, Workspace

BOX = Toolbox([toys.SEARCH, toys.LOOK])
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"


def sse(*deltas, logprobs=None, done=True):
    """A streamed reply in one piece per delta."""
    yield HEAD
    for delta in deltas:
        choice = {"index": 0, "delta": delta} | ({"logprobs": logprobs(delta)} if logprobs else {})
        yield b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"
    if done:
        yield b"data: " + json.dumps({"choices": [], "usage": {"total_tokens": 3}}).encode() + b"\n\n"
        yield b"data: [DONE]\n\n"


def tool_delta(index=0, name=None, arguments=None):
    function = {k: v for k, v in (("name", name), ("arguments", arguments)) if v is not None}
    return {"tool_calls": [{"index": index, "function": function}]}


def policy(server, form="native", **options):
    return ServedPolicy(Endpoint(base_url=server.base_url, model="m", retries=0), form=form, **options)


def events(
    server, messages=({"role": "user", "content": "?"},), box=BOX, prefix=(), form="native", **options
):
    async def collect():
        model = policy(server, form, **options)
        try:
            return [e async for e in model.stream(messages, box, Workspace(None), prefix)]
        finally:
            await model.close()

    return asyncio.run(collect())


# ---------------------------------------------------------------------------------------------- native
def test_a_native_call_is_complete_as_soon_as_its_arguments_are_one_object():
    deltas = [
        {"role": "assistant", "content": "I "},
        {"content": "search"},
        tool_delta(name="search", arguments=""),
        tool_delta(arguments='{"query": {"a"'),
        tool_delta(arguments=": 1}"),
        tool_delta(arguments="}"),
        tool_delta(1, "look", ""),
        {},
    ]
    with scripted_server(lambda n, body: sse(*deltas)) as server:
        stream = events(server)
    assert [e for e in stream if not isinstance(e, Token)] == [
        CallStarted("search"),
        CallComplete('{"name": "search", "arguments": {"query": {"a": 1}}}'),
        CallStarted("look"),
        CallComplete('{"name": "look", "arguments": {}}'),
        Finished("I search" + call("search", query={"a": 1}) + call("look")),
    ]
    assert stream.index(CallStarted("look")) > 5
    (request,) = server.requests
    assert request["stream"] is True
    assert request["temperature"] == 0
    assert request["tool_choice"] == "auto"
    assert [t["function"]["name"] for t in request["tools"]] == ["search", "look"]


def test_arguments_that_lost_a_brace_are_malformed_and_not_repaired():
    with scripted_server(
        lambda n, body: sse(tool_delta(name="search", arguments='{"query": "oil"'))
    ) as server:
        stream = events(server)
    assert stream[-2:] == [
        CallComplete('{"name": "search", "arguments": {"query": "oil"}'),
        Finished('<tool_call>{"name": "search", "arguments": {"query": "oil"}</tool_call>'),
    ]
    (parsed,) = parse_calls(stream[-1].text)
    assert not isinstance(parsed, tuple)


def test_a_server_that_does_not_stream_is_read_as_well():
    message = {
        "content": "so",
        "tool_calls": [{"id": "x", "function": {"name": "search", "arguments": '{"query": "a"}'}}],
    }
    with scripted_server(lambda n, body: (200, completion(message=message))) as server:
        stream = events(server)
    assert stream[-1] == Finished("so" + search("a"))


def test_thoughts_count_as_tokens_and_are_no_text():
    with scripted_server(
        lambda n, body: sse({"reasoning_content": "hm"}, {"content": "FINAL ANSWER: 4"})
    ) as server:
        stream = events(server, box=Toolbox([]))
    assert stream == [Token(""), Token("FINAL ANSWER: 4"), Finished("FINAL ANSWER: 4")]
    assert "tools" not in server.requests[0]


def test_a_conversation_for_a_server_refers_to_calls_by_id():
    broken = '<tool_call>{"name": "search"</tool_call>'
    messages = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "?"},
        {"role": "assistant", "content": "both " + search("a") + call("look", query="b")},
        {"role": "tool", "name": "search", "content": "A"},
        {"role": "tool", "name": "look", "content": "B"},
        {"role": "assistant", "content": broken + search("c")},
        {"role": "tool", "name": "", "content": "Error: no"},
        {"role": "tool", "name": "search", "content": "C"},
    ]
    sent = native_messages(messages)
    first, second = (m for m in sent if m["role"] == "assistant")
    assert first["content"] == "both"
    assert [c["function"] for c in first["tool_calls"]] == [
        {"name": "search", "arguments": '{"query": "a"}'},
        {"name": "look", "arguments": '{"query": "b"}'},
    ]
    assert [(m["role"], m["content"]) for m in sent[3:5]] == [("tool", "A"), ("tool", "B")]
    assert [m["tool_call_id"] for m in sent[3:5]] == [c["id"] for c in first["tool_calls"]]
    assert broken in second["content"]
    assert [(m["role"], m["content"]) for m in sent[6:]] == [("tool", "C"), ("user", "tool call: Error: no")]


# ---------------------------------------------------------------------------------------------- hermes
def entry(token, *others):
    top = [{"token": t, "logprob": -0.1 - i} for i, t in enumerate((token, *others))]
    return {"token": token, "logprob": -0.1, "top_logprobs": top}


def test_hermes_text_comes_with_log_probabilities():
    pieces = ['<tool_call>{"name": "search", "arguments": {"query": "', "oil", '"}}</tool_call>']

    def logprobs(delta):
        return {"content": [entry(delta["content"], "gas", "coal")]}

    reply = [{"content": p} for p in pieces]
    with scripted_server(lambda n, body: sse(*reply, logprobs=logprobs)) as server:
        stream = events(server, form="hermes", top_logprobs=3)
    assert stream[1] == CallStarted("search")
    (complete,) = [e for e in stream if isinstance(e, CallComplete)]
    assert complete.tokens[1].top_texts == ("oil", "gas", "coal")
    assert complete.tokens[1].runner_up().text == "gas"
    (request,) = server.requests
    assert (request["logprobs"], request["top_logprobs"]) == (True, 3)
    assert "tools" not in request
    assert '"name": "search"' in request["messages"][0]["content"]


def test_a_fork_continues_the_turn_that_was_begun():
    with scripted_server(lambda n, body: sse({"content": '"}}</tool_call>'})) as server:
        prefix = [Token('<tool_call>{"name": "look", "arguments": {"query": "'), Token("gas")]
        stream = events(server, prefix=prefix, form="hermes", top_logprobs=3)
    assert stream[-1] == Finished(call("look", query="gas"))
    request = server.requests[0]
    assert request["messages"][-1] == {"role": "assistant", "content": "".join(t.text for t in prefix)}
    assert (request["continue_final_message"], request["add_generation_prompt"]) == (True, False)


def test_hermes_conversations_have_roles_in_turn():
    messages = [
        {"role": "user", "content": "?"},
        {"role": "assistant", "content": search("a") + search("b")},
        {"role": "tool", "name": "search", "content": "A"},
        {"role": "tool", "name": "search", "content": "B"},
    ]
    sent = hermes_messages(messages, [])
    assert [m["role"] for m in sent] == ["user", "assistant", "user"]
    assert sent[2]["content"].count("<tool_response>") == 2


# ---------------------------------------------------------------------------------------------- faults
@pytest.mark.parametrize(
    ("reply", "words"),
    [
        ((500, {"error": {"message": "down for repair"}}), "500.*down for repair"),
        ((401, {"error": {"message": "bad key"}}), "401.*bad key"),
        ((200, "no json"), "no chat completion"),
        ((200, {"choices": []}), "no chat completion"),
        ([HEAD, b"data: {\n\n"], "no chat completion"),
        ([HEAD, b'data: {"choices": [{"delta": 3}]}\n\n'], "no chat completion"),
        ([HEAD, b'data: {"choices": [{"delta": {"content": 3}}]}\n\n'], "odd"),
        ([HEAD, b'data: {"choices": [{"delta": {"tool_calls": [3]}}]}\n\n'], "odd"),
        ([HEAD, b'data: {"error": {"message": "out of memory"}}\n\n'], "out of memory"),
        (list(sse({"content": "I sea"}, done=False)), "broke off"),
        ([b"nonsense\r\n\r\n"], "cannot be reached"),
    ],
)
def test_a_server_that_fails_is_one_sentence(reply, words):
    with scripted_server(lambda n, body: reply) as server, pytest.raises(PolicyError, match=words):
        events(server)


def test_a_server_that_is_not_there_and_a_key_that_is_not_set(monkeypatch):
    with scripted_server(lambda n, body: (200, {})) as server:
        gone = server
    with pytest.raises(PolicyError, match="cannot be reached"):
        events(gone)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ConfigError, match="OPENAI_API_KEY is not set"):
        served_pair({})


def test_the_key_is_in_no_message(monkeypatch):
    monkeypatch.setenv("MY_KEY", "sk-secret")
    with scripted_server(lambda n, body: (401, {"error": {"message": "key sk-secret is bad"}})) as server:
        model = ServedPolicy(Endpoint(base_url=server.base_url, model="m", retries=0, key_env="MY_KEY"))

        async def ask():
            async for _ in model.stream([{"role": "user", "content": "?"}], BOX, Workspace(None)):
                pass

        with pytest.raises(PolicyError, match=r"\$MY_KEY is bad") as raised:
            asyncio.run(ask())
    assert "sk-secret" not in str(raised.value)
    assert server.headers[0]["authorization"] == "Bearer sk-secret"


def test_closing_the_stream_closes_the_connection():
    closed = threading.Event()

    def endless():
        yield HEAD
        part = b"data: " + json.dumps({"choices": [{"delta": {"content": "la "}}]}).encode() + b"\n\n"
        try:
            while True:
                yield part
        finally:
            closed.set()

    async def first_token(model):
        stream = model.stream([{"role": "user", "content": "?"}], BOX, Workspace(None))
        async for event in stream:
            assert event == Token("la ")
            break
        await stream.aclose()

    with scripted_server(lambda n, body: endless()) as server:
        asyncio.run(first_token(policy(server)))
        assert closed.wait(1800)


def test_a_served_pair_speculates_for_real(tmp_path):
    """Both models on one server, which tells them apart by name."""

    def script(n, body):
        if sum(m["role"] == "tool" for m in body["messages"]):
            return sse({"content": answer("4")})
        if body["model"] == "actor":
            assert guessed.wait(1800)  # the speculator was faster
        else:
            guessed.set()
        return sse(tool_delta(name="search", arguments='{"query": "oil"}'))

    guessed = threading.Event()
    with scripted_server(script) as server:
        actor, speculator = (
            ServedPolicy(Endpoint(base_url=server.base_url, model=name, retries=0))
            for name in ("actor", "spec")
        )

        async def work():
            task = Assignment("t", 1, "What does oil cost?", "4")
            settings = SpeculationSettings()
            return await Episode(task, actor, speculator, BOX, Workspace(tmp_path), settings).run()

        result = asyncio.run(work())
    assert (result.answer, result.error) == ("4", None)
    assert result.steps[0].calls[0].result == "page 1 on oil"
    assert result.models == {"actor": "actor", "speculator": "spec"}


# ----------------------------------------------------------------------------------- environment variables
def test_the_variables_of_the_original_name_models_servers_and_settings(monkeypatch):
    for name in ("OPENAI_API_KEY", "ACTOR_OPENAI_API_KEY", "SPEC_OPENAI_API_KEY"):
        monkeypatch.setenv(name, "sk")
    actor, speculator = served_pair({"ACTOR_OPENAI_API_KEY": "sk"})
    assert (actor.name, speculator.name) == ("gpt-5", "gpt-5-mini")
    assert (actor.endpoint.key_env, speculator.endpoint.key_env) == ("ACTOR_OPENAI_API_KEY", "OPENAI_API_KEY")
    assert actor.body([], BOX)["max_completion_tokens"] == 4096
    assert "temperature" not in actor.body([], BOX)

    vllm = {
        "MODEL_PROVIDER": "vllm",
        "GAIA_ACTOR_MODEL": "Qwen/Qwen2.5-7B",
        "GAIA_SPEC_MODEL": "/models/small",
    }
    actor, speculator = served_pair(vllm)
    assert actor.endpoint.base_url == "http://localhost:8003/v1"
    assert speculator.endpoint.base_url == "http://localhost:8004/v1"
    assert actor.body([], BOX)["max_tokens"] == 16384
    assert actor.body([], BOX)["temperature"] == 0
    both = served_pair(vllm | {"VLLM_BASE_URL": "http://gpu:1/v1/", "VLLM_SPEC_URL": "http://b:2/v1"})
    assert [p.endpoint.base_url for p in both] == ["http://gpu:1/v1", "http://b:2/v1"]
    text = served_pair(vllm, form="hermes")
    assert [p.can_fork for p in text] == [False, True]

    assert settings_of({"DISABLE_SPECULATION": "1"}).policy == "off"
    assert settings_of({"DISABLE_SPECULATION": "0"}).policy == "concurrent"
    values = settings_of({"VERIFICATION_STRATEGY": "jaccard", "GAIA_MAX_STEPS": "7", "GAIA_TOPK": "3"})
    assert (values.strategy, values.max_steps, values.guesses) == ("jaccard", 7, 3)
    assert settings_of({"VERIFICATION_STRATEGY": "jaccard"}, strategy="exact").strategy == "exact"


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"MODEL_PROVIDER": "azure"}, "MODEL_PROVIDER: 'azure'"),
        ({"MODEL_PROVIDER": "vllm", "LLM_MAX_TOKENS": "many"}, "LLM_MAX_TOKENS: 'many'"),
        ({"VERIFICATION_STRATEGY": "fuzzy"}, "strategy.*jaccard"),
        ({"GAIA_MAX_STEPS": "0"}, "GAIA_MAX_STEPS"),
    ],
)
def test_impossible_variables_are_named(monkeypatch, variables, words):
    monkeypatch.setenv("OPENAI_API_KEY", "sk")
    with pytest.raises(ConfigError, match=words):
        (settings_of(variables), served_pair(variables))


def test_pictures_that_a_question_names_go_with_its_text_and_nothing_else_does(tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "a.png").write_bytes(b"picture")
    (folder / "empty.jpg").touch()
    (tmp_path / "outside.png").write_bytes(b"secret")
    (folder / "link.png").symlink_to(tmp_path / "outside.png")
    text = (
        "Look at a.png. Not at empty.jpg, link.png, ../outside.png, b.png or notes.txt, and at a.png again."
    )
    messages = [
        {"role": "system", "content": "see a.png"},
        {"role": "user", "content": text},
        {"role": "user", "content": "a.png"},
    ]
    system, user, other = with_pictures(messages, Workspace(folder))
    assert (system, other) == (messages[0], messages[2])
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,cGljdHVyZQ=="}}
    assert user == {"role": "user", "content": [{"type": "text", "text": text}, picture]}
    assert messages[1]["content"] == text
    assert with_pictures(messages[:1], Workspace(folder)) == messages[:1]


def test_a_served_model_gets_pictures_only_where_they_are_wanted(tmp_path):
    (tmp_path / "a.png").write_bytes(b"picture")

    async def ask(server, pictures):
        model = policy(server, pictures=pictures)
        question = [{"role": "user", "content": "What is in a.png?"}]
        found = [event async for event in model.stream(question, BOX, Workspace(tmp_path))]
        await model.close()
        return found

    with scripted_server(lambda n, body: (200, completion("FINAL ANSWER: 1"))) as server:
        for pictures in (True, False):
            assert asyncio.run(ask(server, pictures))[-1].text == "FINAL ANSWER: 1"
    first, second = (request["messages"][-1]["content"] for request in server.requests)
    assert [part["type"] for part in first] == ["text", "image_url"]
    assert second == "What is in a.png?"

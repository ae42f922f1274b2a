"""The embedded server speaks OpenAI's protocol over the tiny models, and refuses what it does not do."""

from __future__ import annotations

import base64
import io
import json
import socket
import threading
import urllib.error
import urllib.request

import numpy as np
import pytest
from PIL import Image

from speceyes_lib.agents import prompt_sets
from speceyes_lib.demo.front import MAX_BODY
from speceyes_lib.demo.server import serving
from speceyes_lib.errors import UserError
from speceyes_lib.models.base import GenerationRequest, failed
from speceyes_lib.tasks.images import resized_view
from speceyes_lib.workflow.cli import main

PROMPTS = prompt_sets.load("demo")


@pytest.fixture(scope="module")
def base_url(tiny_draft, tiny_agent):
    with serving({"draft": tiny_draft, "agent": tiny_agent}) as url:
        yield url


def data_url(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


@pytest.fixture(scope="module")
def dialogue(scene_samples, tiny_draft) -> tuple[list[dict], list[dict]]:
    """The draft's messages about a scene: as the backend takes them, and in the OpenAI form."""
    sample = scene_samples[0]
    view = resized_view(sample.image.open(), tiny_draft.image_spec)
    local = PROMPTS.draft_messages(PROMPTS.question_block(sample.question, sample.options), view)
    content = [{"type": "image_url", "image_url": {"url": data_url(view)}}, local[1]["content"][1]]
    return local, [local[0], {"role": "user", "content": content}]


def post(base_url: str, body: dict | bytes, path: str = "/chat/completions") -> tuple[int, dict]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(base_url + path, data, {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=1800) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_the_models_are_listed(base_url):
    with urllib.request.urlopen(base_url + "/models", timeout=1800) as answer:
        listed = json.load(answer)
    assert [m["id"] for m in listed["data"]] == ["draft", "agent"]


def test_a_completion_holds_the_text_the_real_logprobs_and_the_tokens_used(base_url, tiny_draft, dialogue):
    local, messages = dialogue
    body = {"model": "draft", "messages": messages, "max_tokens": 20, "logprobs": True, "top_logprobs": 128}
    status, answer = post(base_url, body)
    (alone,) = tiny_draft.generate([GenerationRequest("x", local, 20, evidence_k=128)])
    assert status == 200
    choice = answer["choices"][0]
    assert choice["message"] == {"role": "assistant", "content": alone.text, "reasoning": None}
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", None)
    entries = choice["logprobs"]["content"]
    assert [e["token"] for e in entries] == [*alone.evidence.token_texts, "<|im_end|>"]
    sent = np.array([[a["logprob"] for a in e["top_logprobs"]] for e in entries], np.float32)
    np.testing.assert_array_equal(sent[:-1], alone.evidence.top_logprobs)
    np.testing.assert_array_equal(sent[-1:], alone.end.top_logprobs)
    prompt = len(tiny_draft.prepared_row(GenerationRequest("x", local, 20)).ids)
    n = len(alone.token_ids) + 1  # the end token was generated too
    assert answer["usage"] == {"prompt_tokens": prompt, "completion_tokens": n, "total_tokens": prompt + n}


def test_a_stop_string_is_reported_and_left_out_of_the_text(base_url, dialogue):
    body = {"model": "draft", "messages": dialogue[1], "max_tokens": 20}
    whole = post(base_url, body)[1]["choices"][0]["message"]["content"]
    choice = post(base_url, body | {"stop": whole[1:]})[1]["choices"][0]
    assert choice["message"]["content"] == whole[:1]
    assert choice["stop_reason"] == whole[1:]


def test_a_begun_turn_is_continued(base_url, tiny_agent, dialogue):
    local, messages = dialogue
    opened = [*messages, {"role": "assistant", "content": PROMPTS.forced_look_prefix}]
    body = {
        "model": "agent",
        "max_tokens": 60,
        "add_generation_prompt": False,
        "continue_final_message": True,
    }
    answer = post(base_url, body | {"messages": opened})[1]
    (alone,) = tiny_agent.generate([GenerationRequest("x", local, 60, prefill=PROMPTS.forced_look_prefix)])
    assert answer["choices"][0]["message"]["content"] == alone.text


@pytest.mark.parametrize(
    ("change", "status", "message"),
    [
        ({"model": "draught"}, 404, "did you mean 'draft'"),
        ({"messages": []}, 400, "messages"),
        ({"temperature": 0.7}, 400, "temperature"),
        ({"n": 2}, 400, "n: "),
        ({"stream": True}, 400, "stream"),
        ({"tools": []}, 400, "tools"),
        ({"max_tokens": 0}, 400, "max_tokens"),
        ({"top_logprobs": 5}, 400, "needs logprobs"),
        ({"logprobs": True, "top_logprobs": 129}, 400, "greater than max allowed: 128"),
        ({"continue_final_message": True}, 400, "exclude each other"),
        ({"continue_final_message": True, "add_generation_prompt": False}, 400, "last message"),
        ({"messages": [{"role": "tool", "content": "x"}]}, 400, "role"),
    ],
)
def test_an_unsupported_request_is_refused_in_openais_form(base_url, dialogue, change, status, message):
    got, answer = post(base_url, {"model": "draft", "messages": dialogue[1]} | change)
    assert got == status
    assert set(answer["error"]) == {"message", "type", "param", "code"}
    assert message in answer["error"]["message"]
    assert answer["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:1/x.png",
        "file:///etc/passwd",
        "data:image/png;base64,!!",
        "data:image/png;base64,AA==",
    ],
)
def test_only_pictures_that_are_sent_along_are_looked_at(base_url, url):
    content = [{"type": "image_url", "image_url": {"url": url}}]
    status, answer = post(base_url, {"model": "draft", "messages": [{"role": "user", "content": content}]})
    assert status == 400
    assert "image_url" in answer["error"]["message"]


def test_what_is_not_json_and_paths_that_do_not_exist_get_an_error_body_too(base_url):
    for status, answer in (post(base_url, b"{"), post(base_url, {}, "/embeddings")):
        assert status in (400, 404)
        assert answer["error"]["message"]


def test_a_prompt_the_model_cannot_read_fails_alone(base_url, dialogue):
    broken = [{"role": "user", "content": "no picture behind <|image_pad|>"}]
    status, answer = post(base_url, {"model": "draft", "messages": broken})
    assert (status, answer["error"]["type"]) == (400, "invalid_request_error")
    assert post(base_url, {"model": "draft", "messages": dialogue[1]})[0] == 200


def test_a_port_in_use_is_reported(base_url, tiny_draft):
    taken = int(base_url.split(":")[2].split("/")[0])
    with pytest.raises(UserError, match=f"port {taken}"), serving({"draft": tiny_draft}, port=taken):
        pass


def test_the_command_says_how_models_are_named(capsys):
    assert main(["serve", "--model", "draft"]) == 2
    assert "NAME=FOLDER" in capsys.readouterr().err


@pytest.mark.parametrize(
    "wrong", [["--max-batch", "-3"], ["--max-batch", "0"], ["--max-logprobs", "many"], ["--port", "70000"]]
)
def test_limits_that_cannot_be_are_refused_by_the_command(capsys, wrong):
    with pytest.raises(SystemExit):
        main(["serve", *wrong])
    option, value = wrong
    message = capsys.readouterr().err
    assert option in message
    assert f"'{value}' is not a whole number" in message


@pytest.mark.parametrize("limit", ["max_batch", "max_logprobs"])
def test_limits_below_one_are_refused(tiny_draft, limit):
    with (
        pytest.raises(UserError, match=f"{limit}: 0 is less than 1"),
        serving({"draft": tiny_draft}, **{limit: 0}),
    ):
        pass


class Faulty:
    """A model whose calls fail in one way."""

    def __init__(self, sound, **failure) -> None:
        self.sound, self.failure = sound, failure

    def __getattr__(self, name):
        return getattr(self.sound, name)

    def generate(self, requests, unwanted):
        if not self.failure:
            raise RuntimeError("a bug")
        return [failed(r, "it failed", 0.0, **self.failure) for r in requests]


@pytest.mark.parametrize(
    ("failure", "status", "again"),
    [({"means": ""}, 400, "false"), ({"means": "out_of_memory"}, 503, "true"), ({}, 500, "false")],
)
def test_the_status_of_a_failed_generation_says_whose_fault_it_is(
    tiny_draft, dialogue, failure, status, again
):
    with serving({"draft": Faulty(tiny_draft, **failure)}) as url:
        data = json.dumps({"model": "draft", "messages": dialogue[1]}).encode()
        with pytest.raises(urllib.error.HTTPError) as error:
            urllib.request.urlopen(urllib.request.Request(url + "/chat/completions", data), timeout=1800)
    assert (error.value.code, error.value.headers["x-should-retry"]) == (status, again)
    assert json.load(error.value)["error"]["message"] == ("it failed" if failure else "RuntimeError: a bug")


# ------------------------------------------------------------------ limits
def asked(url: str) -> dict:
    return {
        "model": "draft",
        "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}],
    }


def raw(base_url: str, lines: str, body: bytes = b"") -> tuple[int, dict]:
    """Status and error of a request that is written byte by byte."""
    port = int(base_url.split(":")[2].split("/")[0])
    with socket.create_connection(("127.0.0.1", port), 60) as connection:
        connection.sendall(f"{lines}\r\nconnection: close\r\n\r\n".encode() + body)
        head, _, content = connection.makefile("rb").read().partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(content)


def jpeg_of_many_scans() -> str:
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(buffer, "JPEG", progressive=True)
    data = buffer.getvalue()
    last = data.rindex(b"\xff\xda")
    return "data:image/jpeg;base64," + base64.b64encode(data[:last] + data[last:-2] * 99 + data[-2:]).decode()


@pytest.mark.parametrize(
    ("url", "why"),
    [
        (data_url(Image.new("1", (17_800, 10_000))), "178000000 pixels"),
        (data_url(Image.new("1", (6001, 6000))), "pixels"),
        (jpeg_of_many_scans(), "scans"),
        (data_url(Image.new("1", (9000, 1))), "messages"),
    ],
)
def test_a_picture_that_is_much_work_is_refused_by_its_header(base_url, url, why):
    status, answer = post(base_url, asked(url))
    assert status == 400
    assert why in answer["error"]["message"]


def test_more_pictures_than_allowed_are_refused(base_url):
    body = asked(data_url(Image.new("RGB", (2, 2))))
    body["messages"][0]["content"] *= 33
    status, answer = post(base_url, body)
    assert (status, "33 pictures" in answer["error"]["message"]) == (400, True)


@pytest.mark.parametrize("words", [3000, 300_000])
def test_a_prompt_longer_than_the_model_reads_is_refused(base_url, dialogue, words):
    status, answer = post(
        base_url, {"model": "draft", "messages": [{"role": "user", "content": "red " * words}]}
    )
    assert (status, answer["error"]["code"]) == (400, "context_length_exceeded")
    assert "2048" in answer["error"]["message"]
    assert post(base_url, {"model": "draft", "messages": dialogue[1]})[0] == 200


@pytest.mark.parametrize("size", [f"content-length: {'9' * 11}", "transfer-encoding: chunked"])
def test_a_body_that_is_too_large_is_refused_before_all_of_it_is_read(base_url, size):
    half = b"%x\r\n" % (MAX_BODY // 2 + 1) + bytes(MAX_BODY // 2 + 1) + b"\r\n"
    body = half * 2 if "chunked" in size else b""  # the end never comes
    status, answer = raw(base_url, f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n{size}", body)
    assert (status, answer["error"]["type"]) == (413, "invalid_request_error")


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1", 200),
        ("localhost:8765", 200),
        ("LOCALHOST", 200),
        ("[::1]", 200),
        ("[::1]:80", 200),
        ("evil.example", 403),
        ("evil.example:8765", 403),
        ("127.0.0.1.evil.example", 403),
        ("localhost:evil", 403),
        ("[::1", 403),
        ("", 403),
    ],
)
def test_only_names_of_this_machine_are_served(base_url, host, status):
    got, answer = raw(base_url, f"GET /v1/models HTTP/1.1\r\nhost: {host}")
    assert got == status
    assert ("error" in answer) == (status != 200)


def test_an_answer_that_nobody_waits_for_is_given_up(tiny_draft, dialogue):
    given_up = threading.Event()

    class Endless:
        def __getattr__(self, name):
            return getattr(tiny_draft, name)

        def generate(self, requests, unwanted):
            begun.set()
            while requests[0].id not in unwanted():
                pass
            given_up.set()
            return tiny_draft.generate(requests)

    begun = threading.Event()
    with serving({"draft": Endless()}) as url:
        body = json.dumps({"model": "draft", "messages": dialogue[1]}).encode()
        port = int(url.split(":")[2].split("/")[0])
        with socket.create_connection(("127.0.0.1", port)) as connection:
            head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n\r\n"
            connection.sendall(head.encode() + body)
            assert begun.wait(1800)
        assert given_up.wait(1800)

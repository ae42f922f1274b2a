"""Endpoints are named in one line and checked; a client keeps many requests in flight, and its failures are typed."""

from __future__ import annotations

import contextlib
import gc
import gzip
import json
import socket
import subprocess
import sys
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from servers import completion, scripted_server

from speceyes_lib.errors import ConfigError
from speceyes_lib.models.endpoint import (
    Client,
    Endpoint,
    EndpointError,
    parse_endpoints,
)
from speceyes_lib.models.transport import MAX_BODY_BYTES

HELLO = [{"role": "user", "content": "hello"}]


def failure(client: Client) -> EndpointError:
    """How one request of this client fails."""
    with pytest.raises(EndpointError) as failed:
        client.submit(HELLO).result(120)
    return failed.value


def client_of(*servers, options: str = "") -> Client:
    lines = [f"{getattr(s, 'base_url', s)}?model=m{options}" for s in servers]
    return Client(parse_endpoints("\n".join(lines)))


# ------------------------------------------------------------------ naming them


def test_one_line_holds_the_address_of_a_server_and_its_settings():
    (parsed,) = parse_endpoints(
        "https://host:8000/v1/?model=Qwen/Qwen3-VL-2B-Instruct&key_env=MY_KEY&concurrency=64&timeout_s=2.5&retries=0"
    )
    assert parsed == Endpoint(
        base_url="https://host:8000/v1",
        model="Qwen/Qwen3-VL-2B-Instruct",
        key_env="MY_KEY",
        concurrency=64,
        timeout_s=2.5,
        retries=0,
    )


def test_several_lines_are_replicas_of_one_model():
    endpoints = parse_endpoints("  http://a/v1?model=m&concurrency=2\n  http://b/v1?model=m \n")
    assert [(e.base_url, e.concurrency) for e in endpoints] == [("http://a/v1", 2), ("http://b/v1", 16)]
    assert Client(endpoints).max_in_flight == 18


def test_the_path_of_a_processor_may_hold_blanks_and_quotes():
    path = "/home/Zoë O'Neil (thesis)/spec eyes+1/model"
    line = f"http://a/v1?model=m&processor={path}"
    assert [e.processor for e in parse_endpoints(f"{line}\n{line}&concurrency=2")] == [path] * 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no endpoint"),
        ("host:8000", "not a server's address"),
        ("http:///v1?model=m", "not a server's address"),
        ("http://h/v1", "'model' is missing"),
        ("http://h/v1?model=", "'model' is missing"),
        ("http://h/v1?model=m&concurency=3", "did you mean 'concurrency'"),
        ("http://h/v1?model=m&concurrency=0", "concurrency: .* greater than or equal to 1, got '0'"),
        ("http://h/v1?model=m&timeout_s=soon", "timeout_s: .* valid number.*, got 'soon'"),
        ("http://h/v1?model=m&retries=-1", "retries: .* greater than or equal to 0, got '-1'"),
        ("http://h/v1?model=m&timeout_s=inf", "timeout_s: .* finite"),
        ("http://h/v1?model=m&model=n", "given twice"),
        ("http://h/v1?model=m http://i/v1?model=n", "the same model"),
        ("http://h/v1?model=m i:8000/v1?model=m", "i:8000.*: not a server's address"),
        ("http://h/v1?model=m&processor=a http://i/v1?model=m&processor=b", "the same processor"),
    ],
)
def test_a_mistake_is_reported_with_the_option_and_the_valid_ones(text, message):
    with pytest.raises(ConfigError, match=message):
        parse_endpoints(text)


def test_a_password_in_an_address_is_refused_and_not_repeated():
    with pytest.raises(ConfigError, match="key_env") as refused:
        parse_endpoints("http://me:hunter2@h/v1?model=m")
    assert "hunter2" not in str(refused.value)


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused_with_an_error_for_users(text):
    with contextlib.suppress(ConfigError):
        assert all(e.model for e in parse_endpoints("http://" + text))


# ------------------------------------------------------------------ sending requests


def test_a_reply_is_its_text_its_tokens_and_the_choice_as_sent():
    with scripted_server(lambda n, body: (200, completion("blue", logprobs=None))) as server:
        reply = client_of(server).submit(HELLO, temperature=0).result(120)
    assert (reply.text, reply.finish_reason, reply.prompt_tokens, reply.completion_tokens) == (
        "blue",
        "stop",
        7,
        2,
    )
    assert "logprobs" in reply.choice
    assert server.requests == [{"model": "m", "messages": HELLO, "temperature": 0}]


def test_requests_in_flight_reach_the_concurrency_and_do_not_exceed_it():
    four_at_once = threading.Barrier(4, timeout=1800)
    with scripted_server(lambda n, body: (four_at_once.wait(), (200, completion()))[1]) as server:
        client = client_of(server, options="&concurrency=4")
        replies = [f.result(120) for f in [client.submit(HELLO) for _ in range(8)]]
    assert len(replies) == 8
    assert server.most_in_flight == 4


def test_replicas_share_the_load_by_their_concurrency():
    gate = threading.Event()  # opens when every place is taken
    with (
        scripted_server(lambda n, body: (gate.wait(1800), (200, completion()))[1]) as big,
        scripted_server(lambda n, body: (gate.wait(1800), (200, completion()))[1]) as small,
    ):
        lines = f"{big.base_url}?model=m&concurrency=6 {small.base_url}?model=m&concurrency=2"
        client = Client(parse_endpoints(lines))
        futures = [client.submit(HELLO) for _ in range(40)]
        until_s = time.monotonic() + 1800
        while (len(big.requests), len(small.requests)) != (6, 2) and time.monotonic() < until_s:
            time.sleep(0.01)
        assert (len(big.requests), len(small.requests)) == (6, 2)
        gate.set()
        for future in futures:
            future.result(120)
    assert (big.most_in_flight, small.most_in_flight) == (6, 2)
    assert len(big.requests) + len(small.requests) == 40


def test_a_busy_server_gets_the_request_again_after_the_time_it_names():
    moments = []

    def busy_once(n, body):
        moments.append(time.monotonic())
        return (
            (429, {"error": {"message": "slow down"}}, {"retry-after": "0.7"})
            if n == 0
            else (200, completion())
        )

    with scripted_server(busy_once) as server:
        assert client_of(server).submit(HELLO).result(120).text == "red"
    assert moments[1] - moments[0] >= 0.7


@pytest.mark.parametrize(("status", "kind"), [(429, "rate_limited"), (503, "server_error")])
def test_retries_end_and_the_failure_holds_the_servers_message(status, kind):
    answer = (status, {"error": {"message": "no room today"}}, {"retry-after-ms": "1"})
    with scripted_server(lambda n, body: answer) as server:
        error = failure(client_of(server, options="&retries=2"))
    assert (error.kind, error.status, len(server.requests)) == (kind, status, 3)
    assert "no room today" in str(error)


def test_a_refused_request_is_not_sent_again():
    with scripted_server(lambda n, body: (400, {"error": {"message": "too long"}})) as server:
        error = failure(client_of(server))
    assert (error.kind, len(server.requests)) == ("refused", 1)
    assert "400: too long" in str(error)


@pytest.mark.parametrize(
    "body",
    ["<html>", "[]", "{}", {"choices": []}, {"choices": [{}]}, {"choices": [{"message": {"content": 5}}]}],
)
def test_a_body_that_is_no_chat_completion_is_a_bad_reply(body):
    with scripted_server(lambda n, _: (200, body)) as server:
        error = failure(client_of(server))
    assert error.kind == "bad_reply"
    assert "no chat completion" in str(error)


def test_a_server_that_does_not_answer_in_time_is_a_failure_with_a_message():
    stop = threading.Event()
    with scripted_server(lambda n, body: (stop.wait(5), (200, completion()))[1]) as server:
        error = failure(client_of(server, options="&timeout_s=0.2&retries=0"))
        stop.set()
    assert error.kind == "timeout"
    assert "no answer within 0.2 s" in str(error)


def test_a_server_that_sends_a_byte_at_a_time_is_not_waited_for_beyond_the_time_limit():
    gone = threading.Event()

    def drips(n, body):
        yield b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"
        while not gone.wait(0.02):
            yield b" "

    with scripted_server(drips) as server:
        error = failure(client_of(server, options="&timeout_s=0.3&retries=0"))
        gone.set()
    assert error.kind == "timeout"


@pytest.mark.parametrize(
    "peer",
    [[b"SSH-2.0-OpenSSH_9.6\r\n"], [b""], [b"\0" * 100], [b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"]],
)
def test_a_peer_that_speaks_no_http_or_breaks_off_is_unreachable(peer):
    with scripted_server(lambda n, body: peer) as server:
        error = failure(client_of(server, options="&retries=1"))
    assert (error.kind, len(server.requests)) == ("unreachable", 2)


@pytest.mark.parametrize("compressed", [True, False])
def test_a_reply_without_end_is_not_read_to_its_end(compressed):
    body = gzip.compress(bytes(MAX_BODY_BYTES + 1)) if compressed else bytes(MAX_BODY_BYTES + 1)
    headers = {"content-encoding": "gzip"} if compressed else {}
    with scripted_server(lambda n, _: (200, body, headers)) as server:
        error = failure(client_of(server))
    assert (error.kind, len(server.requests)) == ("bad_reply", 1)
    assert "longer than 32 MiB" in str(error)


def test_a_compressed_reply_is_read_and_another_compression_is_refused():
    data = json.dumps(completion("blue")).encode()
    with scripted_server(lambda n, _: (200, gzip.compress(data), {"content-encoding": "gzip"})) as server:
        assert client_of(server).submit(HELLO).result(120).text == "blue"
    assert server.headers[0]["accept-encoding"] == "gzip"
    with scripted_server(lambda n, _: (200, data, {"content-encoding": "zstd"})) as server:
        assert "not requested" in str(failure(client_of(server)))


def test_a_redirect_is_not_followed_so_that_a_key_stays_with_its_server(monkeypatch):
    monkeypatch.setenv("TEST_SERVER_KEY", "sk-very-secret")
    with (
        scripted_server(lambda n, body: (200, completion())) as other,
        scripted_server(lambda n, body: (307, "", {"location": other.base_url})) as server,
    ):
        error = failure(client_of(server, options="&key_env=TEST_SERVER_KEY"))
    assert (error.kind, error.status, other.requests) == ("refused", 307, [])
    assert f"redirects to {other.base_url}" in str(error)


@pytest.mark.parametrize(
    ("error", "kind", "requests"),
    [
        ({"message": "Rate limit exceeded", "code": 429}, "rate_limited", 2),
        ({"message": "Rate limit exceeded", "code": "rate_limit_exceeded"}, "rate_limited", 2),
        ({"message": "Rate limit exceeded", "code": "503"}, "server_error", 2),
        ({"message": "Rate limit exceeded", "type": "overloaded_error"}, "server_error", 2),
        ({"message": "Rate limit exceeded", "code": 400}, "refused", 1),
        ({"message": "Rate limit exceeded"}, "refused", 1),
        ("Rate limit exceeded", "rate_limited", 2),
    ],
)
@pytest.mark.parametrize("inside", [False, True])
def test_an_error_in_a_success_is_what_it_says_and_is_tried_again_like_it(inside, error, kind, requests):
    body = completion() | {"choices": [{"error": error}]} if inside else {"error": error, "user_id": "u"}
    with scripted_server(lambda n, _: (200, body, {"retry-after-ms": "1"})) as server:
        failed = failure(client_of(server, options="&retries=1"))
    assert (failed.kind, len(server.requests)) == (kind, requests)
    assert "answered 200 with the error" in str(failed)
    assert "Rate limit exceeded" in str(failed)


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": "no room"}},
        {"error": "no room"},
        {"message": "no room"},
        {"detail": "no room"},
        {"detail": [{"msg": "no room"}]},
        {"object": "error", "message": "no room", "code": 400},
        "no room",
        "<html><body>no room</body></html>",
        [{"error": {"message": "no room"}}],
    ],
)
def test_the_servers_own_words_reach_the_message_whatever_form_they_have(body):
    with scripted_server(lambda n, _: (400, body)) as server:
        error = failure(client_of(server))
    assert (error.kind, error.status) == ("refused", 400)
    assert "no room" in str(error)


@pytest.mark.parametrize(
    ("sent", "meaning"),
    [
        ("stop", "stop"),
        ("eos_token", "stop"),
        ("end_turn", "stop"),
        ("max_tokens", "length"),
        ("content_filter",) * 2,
    ],
)
def test_a_servers_word_for_the_end_of_an_answer_is_understood_or_kept(sent, meaning):
    with scripted_server(lambda n, _: (200, completion(finish_reason=sent))) as server:
        assert client_of(server).submit(HELLO).result(120).finish_reason == meaning


def test_half_of_a_character_in_a_reply_can_be_stored():
    with scripted_server(lambda n, _: (200, completion("B \ud835"))) as server:
        assert client_of(server).submit(HELLO).result(120).text == "B \ufffd"


@pytest.mark.parametrize("usage", ['{"completion_tokens": 1e999}', '{"completion_tokens": -1}', '"x"', "[7]"])
def test_a_reply_with_an_impossible_count_is_a_bad_reply_that_can_be_read(usage):
    body = json.dumps(completion("blue")).replace('{"prompt_tokens": 7, "completion_tokens": 2}', usage)
    with scripted_server(lambda n, _: (200, body)) as server:
        error = failure(client_of(server))
    assert error.kind == "bad_reply"
    assert "blue" in str(error)


def test_a_replica_that_is_unreachable_costs_no_request():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening: connections are refused
        gone = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        assert failure(client_of(gone, options="&retries=0")).kind == "unreachable"
        with scripted_server(lambda n, body: (200, completion())) as server:
            client = client_of(gone, server, options="&retries=0&concurrency=2")
            replies = [f.result(120) for f in [client.submit(HELLO) for _ in range(12)]]
    assert len(replies) == len(server.requests) == 12


def test_a_key_comes_from_the_environment_and_appears_in_no_message(monkeypatch):
    monkeypatch.setenv("TEST_SERVER_KEY", "sk-very-secret")
    answer = (401, {"error": {"message": "Incorrect API key provided: sk-very-secret"}})
    with scripted_server(lambda n, body: answer) as server:
        client = client_of(server, options="&key_env=TEST_SERVER_KEY")
        error = failure(client)
    assert server.headers[0]["authorization"] == "Bearer sk-very-secret"
    assert "$TEST_SERVER_KEY" in str(error)
    assert "secret" not in f"{error!r} {client.replicas[0].endpoint}"


def test_a_key_that_a_redirect_repeats_appears_in_no_message(monkeypatch):
    monkeypatch.setenv("TEST_SERVER_KEY", "sk-very-secret")
    answer = (302, "", {"location": "http://h/?key=sk-very-secret"})
    with scripted_server(lambda n, body: answer) as server:
        error = failure(client_of(server, options="&key_env=TEST_SERVER_KEY"))
    assert "http://h/?key=$TEST_SERVER_KEY" in str(error)
    assert "secret" not in str(error)


def test_a_key_for_another_service_is_not_sent_along(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-other")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-other")
    with scripted_server(lambda n, body: (200, completion())) as server:
        client_of(server).submit(HELLO).result(120)
    assert "other" not in str(server.headers)


def test_a_key_that_is_not_set_is_reported_by_the_name_of_its_variable(monkeypatch):
    monkeypatch.delenv("TEST_SERVER_KEY", raising=False)
    with pytest.raises(ConfigError, match="TEST_SERVER_KEY is not set"):
        client_of("http://127.0.0.1:9/v1", options="&key_env=TEST_SERVER_KEY")


def output_of(program: str, *arguments: str) -> str:
    """What a program prints in a fresh process, which must end without an error or a warning."""
    ended = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=300
    )
    assert (ended.stderr, ended.returncode) == ("", 0)
    return ended.stdout


def test_threads_that_send_their_first_requests_at_the_same_time_share_one_loop():
    program = """
import sys, threading
from concurrent.futures import ThreadPoolExecutor
from speceyes_lib.models.endpoint import Client, parse_endpoints

client, barrier = Client(parse_endpoints(sys.argv[1])), threading.Barrier(8)

def send(_):
    barrier.wait()
    return client.submit([{"role": "user", "content": "hello"}]).result(120).text

with ThreadPoolExecutor(8) as threads:
    print(list(threads.map(send, range(8))) == ["red"] * 8)
"""
    with scripted_server(lambda n, body: (200, completion())) as server:
        assert output_of(program, f"{server.base_url}?model=m") == "True\n"


def test_a_client_without_a_user_closes_its_connections():
    with scripted_server(lambda n, body: (200, completion())) as server:
        client = client_of(server)
        client.submit(HELLO).result(120)
        inner = client.replicas[0].openai
        del client
        gc.collect()
        until_s = time.monotonic() + 1800
        while not inner.is_closed() and time.monotonic() < until_s:
            time.sleep(0.01)
        assert inner.is_closed()


def test_a_process_with_open_connections_ends_without_a_warning():
    program = (
        "import sys\n"
        "from speceyes_lib.models.endpoint import Client, parse_endpoints\n"
        "used, unused = (Client(parse_endpoints(sys.argv[1])) for _ in range(2))\n"
        "print(used.submit([{'role': 'user', 'content': 'hello'}]).result(120).text)\n"
    )
    with scripted_server(lambda n, body: (200, completion())) as server:
        assert output_of(program, f"{server.base_url}?model=m") == "red\n"

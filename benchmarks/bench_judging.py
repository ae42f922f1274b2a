"""Judging: rules on 10,000 answers, and a judging model that takes 100 ms for every reply.

    python benchmarks/bench_judging.py [--write]

The rules are compared with themselves without the readers they keep for each set of options; verdicts must be the
same. The model is a server in another process on this machine that waits 100 ms before it replies, so the ideal
number of replies a second is known: requests in flight / 0.1 s. Every answer must get its verdict, and judging all
of it once more must send no request, or the script fails. `--write` puts the tables into README.md beside this file.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import platform
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

from bench_confidence import write_between_markers

from speceyes_lib.judging import option_reader
from speceyes_lib.judging.llm import JudgingModel
from speceyes_lib.judging.reply_cache import ReplyCache
from speceyes_lib.judging.rules import judge
from speceyes_lib.models.endpoint import Client, parse_endpoints

N_ANSWERS = 10_000
LATENCY_S = 0.1
IN_FLIGHT = (1, 16, 64)
ROUNDS = 50  # requests per place in flight
OPTIONS = ("red", "blue", "dark red", "green")
FORMS = (
    "{}",
    "{}.",
    "The answer is {}.",
    "I looked closely at the picture, and the object beside the door is {}, not anything else",
)


def samples() -> list[SimpleNamespace]:
    """Multiple choice with 500 sets of options, and as many yes/no."""
    examples = []
    for i in range(500):
        options = tuple(f"{o} {i}" for o in OPTIONS)
        examples.append(
            SimpleNamespace(benchmark="hr", options=options, answer="B", standard=f"B. {options[1]}")
        )
    examples += [SimpleNamespace(benchmark="pope", options=None, answer="yes", standard="yes")] * 500
    return examples


def answers_to(samples: list[SimpleNamespace]) -> list[tuple[SimpleNamespace, str]]:
    """As many answers as a run with five arms has to each sample, in several wordings."""
    each = N_ANSWERS // len(samples)
    pairs = []
    for i, sample in enumerate(samples):
        words = sample.options or ("yes", "no")
        pairs += [
            (sample, FORMS[(i + j) % len(FORMS)].format(words[(i + j) % len(words)])) for j in range(each)
        ]
    return pairs


def rules_table() -> list[str]:
    pairs = answers_to(samples())
    lines = [
        "| protocol | answers | samples | readers kept, CPU s | readers rebuilt, CPU s | same verdicts |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for protocol in ("strict", "paper"):
        kept_s, kept = min((timed(pairs, protocol, rebuilt=False) for _ in range(5)), key=lambda r: r[0])
        rebuilt_s, rebuilt = min((timed(pairs, protocol, rebuilt=True) for _ in range(3)), key=lambda r: r[0])
        if kept != rebuilt:
            raise SystemExit(f"{protocol}: the verdicts differ")
        lines.append(f"| {protocol} | {len(pairs):,} | 1,000 | {kept_s:.2f} | {rebuilt_s:.2f} | yes |")
    return lines


def forget_readers() -> None:
    """Clear the caches of the readers of answers."""
    for function in vars(option_reader).values():
        if hasattr(function, "cache_clear"):
            function.cache_clear()


def timed(pairs: list, protocol: str, rebuilt: bool) -> tuple[float, list]:
    forget_readers()
    start = time.process_time()
    verdicts = []
    for sample, answer in pairs:
        if rebuilt:
            forget_readers()
        verdicts.append(judge(sample, answer, protocol))
    return time.process_time() - start, verdicts


# ------------------------------------------------------------------ a model that takes its time


async def slow_judge(scope: dict, receive, send) -> None:
    """ASGI: any POST is answered after LATENCY_S with a judgement; GET returns how many came."""
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    if scope["method"] == "POST":
        slow_judge.requests = getattr(slow_judge, "requests", 0) + 1
        await asyncio.sleep(LATENCY_S)
    message = {"role": "assistant", "content": "Judgement: 1"}
    reply = {
        "requests": getattr(slow_judge, "requests", 0),
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 150, "completion_tokens": 5},
    }
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(reply).encode()})


def serve(port: int) -> None:
    import uvicorn

    uvicorn.run(slow_judge, host="127.0.0.1", port=port, log_level="error", access_log=False)


def wait_for(port: int) -> None:
    for _ in range(200):
        with socket.socket() as s:
            if s.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise SystemExit("the server did not start")


def model_table(port: int, folder: Path) -> list[str]:
    sample = SimpleNamespace(
        benchmark="vstar", options=OPTIONS, answer="A", standard="A. red", question="What color is the bin?"
    )
    lines = [
        "| in flight | questions | s | ideal, s | of the ideal rate | again, from the cache, s | requests then |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for in_flight in IN_FLIGHT:
        n = in_flight * ROUNDS
        first = session(port, folder, sample, in_flight, n)
        again = session(port, folder, sample, in_flight, n)
        if first[1] != n or again[1] != 0:
            raise SystemExit(f"{first[1]} and {again[1]} requests for {n} questions")
        ideal_s = math.ceil(n / in_flight) * LATENCY_S
        lines.append(
            f"| {in_flight} | {n:,} | {first[0]:.2f} | {ideal_s:.2f} | {100 * ideal_s / first[0]:.0f} % | "
            f"{again[0]:.3f} | {again[1]} |"
        )
    return lines


def session(port: int, folder: Path, sample: SimpleNamespace, in_flight: int, n: int) -> tuple[float, int]:
    """(seconds, requests) of judging n answers; opening the connections, which happens once, is paid before."""
    endpoints = parse_endpoints(f"http://127.0.0.1:{port}/v1?model=judge&concurrency={in_flight}")
    client = Client(endpoints)
    with JudgingModel("judge", lambda: client, ReplyCache(folder / f"{in_flight}.sqlite")) as model:
        warm = [client.submit([{"role": "user", "content": "hello"}]) for _ in range(in_flight)]
        for reply in warm:
            reply.result()
        questions = [model.question(sample, f"the {i}th answer", "strict") for i in range(n)]
        start = time.perf_counter()
        calls = model.judge(questions)
        seconds = time.perf_counter() - start
        if [c.verdict for c in calls.values()] != ["right"] * n:
            raise SystemExit("not every answer got its verdict")
        return seconds, model.requests


def tables() -> str:
    machine = f"{platform.machine()}, {os.cpu_count()} cores, CPU only, Python {platform.python_version()}"
    lines = [
        f"{machine}. Rules: CPU time of one thread, best of 5 (rebuilt: of 3).",
        "",
        *rules_table(),
        "",
    ]
    lines += [
        f"A judging model that takes {1000 * LATENCY_S:.0f} ms, {ROUNDS} questions per place in flight:",
        "",
    ]
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    server = subprocess.Popen([sys.executable, __file__, "--serve", str(port)])
    try:
        wait_for(port)
        with tempfile.TemporaryDirectory() as folder:
            lines += model_table(port, Path(folder))
    finally:
        server.terminate()
        server.wait()
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="put the tables into README.md")
    parser.add_argument("--serve", type=int, metavar="PORT", help="be the server")
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve)
    else:
        measured = tables()
        print(measured)
        if arguments.write:
            write_between_markers(Path(__file__).with_name("README.md"), "bench_judging", measured)

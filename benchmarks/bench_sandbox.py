"""What the sandbox costs a sample: its programs confined, unconfined in another process, and in this process.

    python benchmarks/bench_sandbox.py [--write]

The original runs programs in its process: nothing is started, nothing confined, PIL is imported already. All three
must print the same. The ways take turns. `--write` puts the table into README.md beside this file.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from bench_confidence import write_between_markers
from PIL import Image

from speceyes_lib.tools.sandbox import PICTURE, Limits, Session

SIZES = {"embedded benchmark": (720, 720), "HR-Bench 8K": (7680, 4320)}
ROUNDS = 9
CROP = f"""
from PIL import Image
image = Image.open("{PICTURE}")
image.crop((100, 100, 500, 400)).save("crop.jpg")
print(Image.open("crop.jpg").size)
"""
AGAIN = CROP.replace("(100, 100, 500, 400)", "(50, 50, 450, 350)")


def confined(picture: Image.Image) -> tuple[list[float], list[str]]:
    return _in_session(picture, confined=True)


def unconfined(picture: Image.Image) -> tuple[list[float], list[str]]:
    return _in_session(picture, confined=False)


def in_process(picture: Image.Image) -> tuple[list[float], list[str]]:
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        seconds, printed, namespace = [], [], {}
        start = time.perf_counter()
        picture.save(PICTURE)
        for code in (CROP, AGAIN):
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                exec(code, namespace)
            seconds.append(time.perf_counter() - start)
            start = time.perf_counter()
            printed.append(out.getvalue().strip())
    return seconds, printed


def _in_session(picture: Image.Image, confined: bool) -> tuple[list[float], list[str]]:
    seconds, printed = [], []
    with Session(picture, Limits(), confined) as session:
        for code in (CROP, AGAIN):
            start = time.perf_counter()
            printed.append(session.run(code).text)
            seconds.append(time.perf_counter() - start)
    return seconds, printed


WAYS: dict[str, Callable] = {
    "confined": confined,
    "a process, unconfined": unconfined,
    "in this process": in_process,
}


def measured() -> str:
    rng = np.random.default_rng(0)
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Linux {platform.release().split('-')[0]}"
    lines = [
        f"{machine}, Python {platform.python_version()}; wall-clock, medians of {ROUNDS}.",
        "",
        "| picture | way | first program, the picture laid out, ms | second program, ms |",
        "| --- | --- | --- | --- |",
    ]
    for name, (width, height) in SIZES.items():
        picture = Image.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8))
        seconds: dict[str, list[list[float]]] = {way: [] for way in WAYS}
        for _ in range(ROUNDS):
            outputs = []
            for way, work in WAYS.items():
                spent, printed = work(picture)
                seconds[way].append(spent)
                outputs.append(printed)
            if outputs != [outputs[0]] * len(outputs):
                raise SystemExit(f"the ways disagree: {outputs}")
        for way, rows in seconds.items():
            cells = " | ".join(
                f"{1000 * statistics.median(column):.1f}" for column in zip(*rows, strict=True)
            )
            lines.append(f"| {name}, {width} x {height} | {way} | {cells} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--write", action="store_true", help="put the table into README.md")
    arguments = parser.parse_args()
    table = measured()
    print(table)
    if arguments.write:
        write_between_markers(Path(__file__).with_name("README.md"), "bench_sandbox", table)


if __name__ == "__main__":
    main()

"""Do the explorers follow the hand? Wall-clock of a threshold change and of opening a sample.

    python benchmarks/bench_explore.py [--write]

The embedded run, where it is finished, and a synthetic run of 11,000 samples with token evidence and pictures. The
explorer itself is driven, as a person does through its controls: all views are recomputed and handed to the
browser's queue; what the browser then needs is not in it.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from bench_confidence import write_between_markers
from PIL import Image

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests/worlds"))  # the synthetic run is that of the tests

from explore_run import K_STORED, store_run  # noqa: E402
from synthetic_run import make_samples, write_vstar  # noqa: E402

from speceyes_lib.explore.gating_explorer import GatingExplorer  # noqa: E402
from speceyes_lib.explore.state import GateView  # noqa: E402
from speceyes_lib.paths import run_dir  # noqa: E402

README = Path(__file__).parent / "README.md"
SPLITS = ("vstar/direct_attributes", "vstar/relative_position")
N = 11_000
TIMES = 30


def make_benchmark(root: Path) -> list:
    """V* of 11,000 samples that share one picture of 1,600 x 1,200 px."""
    noise = np.random.default_rng(0).integers(0, 255, (150, 200, 3), dtype=np.uint8)
    picture = root / "picture.jpg"
    Image.fromarray(noise).resize((1600, 1200), Image.Resampling.BICUBIC).save(picture, quality=90)
    samples = make_samples(N // len(SPLITS), SPLITS)
    for task in SPLITS:
        write_vstar(root, samples, task.split("/")[1])
    for file in root.glob("vstar/*/*.jpg"):
        file.unlink()
        file.hardlink_to(picture)
    return samples


def milliseconds(act: Callable[[int], None]) -> list[float]:
    spent = []
    for i in range(TIMES):
        start = time.perf_counter()
        act(i)
        spent.append(1000 * (time.perf_counter() - start))
    return spent


def measured(run: str, view: GateView) -> list[str]:
    """A row of the table: the run opened, moved about in and looked into."""
    start = time.perf_counter()
    explorer = GatingExplorer(run, view)
    opened_s = time.perf_counter() - start
    assert not explorer.message.value, explorer.message.value
    part = explorer.gating.part("all", "")
    score = part.score(view.score, view.k, view.slope)
    thresholds = np.quantile(score[np.isfinite(score)], np.random.default_rng(1).uniform(0, 1, TIMES))
    explorer.threshold.value = 0.123  # whatever is computed once
    moved = milliseconds(lambda i: explorer.set(threshold=float(thresholds[i])))
    ids = np.random.default_rng(2).choice(part.ids, TIMES + 20, replace=False)
    start = time.perf_counter()
    for task in part.task_names:
        explorer.gating.run.sample(part.ids[part.tasks == task][0])
    first_s = time.perf_counter() - start
    looked = milliseconds(lambda i: explorer.open_sample(ids[i]))
    assert explorer.view.sample == ids[TIMES - 1]
    return [
        f"{part.n:,}",
        f"{opened_s:.1f}",
        f"{np.median(moved):.0f}",
        f"{max(moved):.0f}",
        f"{first_s:.1f}",
        f"{np.median(looked):.0f}",
        f"{max(looked):.0f}",
    ]


def report() -> str:
    header = [
        *("run", "samples", "open, s", "threshold, ms", "slowest, ms"),
        *("benchmark index read once, s", "sample, ms", "slowest, ms"),
    ]
    rows = []
    if (run_dir("demo") / "summary.json").is_file():
        rows.append(["embedded", *measured("demo", GateView(threshold=0.98))])
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SPECEYES_RUNS"] = f"{folder}/runs"
        root = Path(folder) / "benchmark"
        root.mkdir()
        store_run("large", make_benchmark(root), root)
        rows.append(["synthetic", *measured("large", GateView(threshold=0.9, k=K_STORED))])
    lines = [header, ["---"] * len(header), *rows]
    table = "\n".join(f"| {' | '.join(row)} |" for row in lines)
    machine = f"{platform.machine()}, {os.cpu_count()} cores, one thread, Python {platform.python_version()}"
    return f"Wall-clock, median and slowest of {TIMES}; {machine}.\n\n{table}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="put the table into README.md")
    arguments = parser.parse_args()
    text = report()
    print(text)
    if arguments.write:
        write_between_markers(README, "bench_explore", text)


if __name__ == "__main__":
    main()

"""The page of a run while it works: index.html until the report takes its place."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from ..analysis.results import method_of
from ..analysis.so_far import ArmSoFar, FailedSample
from .formatting import duration, interval
from .labels import method_label
from .rendering import render

RELOAD_S = 5  # also the time between two versions of the page
ERRORS_SHOWN = 8
COURSE_FLOORS = (
    90,
    75,
    50,
    0,
)  # where the axis of a course begins: the highest that shows all of its second half
# who answered, by decision; all others are the agent's
BY_SMALL = ("accepted", "drafted")


def live_page(
    run: str,
    score: str,
    state: str,
    jobs_done: int,
    jobs: int,
    spent_s: float,
    working: Sequence[str] = (),
    arms: dict[str, Sequence[ArmSoFar]] | None = None,
    failures: Sequence[FailedSample] = (),
    lines: Sequence[str] = (),
) -> str:
    """The page as HTML.

    Args:
        run: its name.
        score: of the gate.
        state: "at work", or how it ended; only a page of a run at work reloads itself.
        jobs_done: jobs that are finished.
        jobs: all of them.
        spent_s: seconds since the start.
        working: what the jobs at work report, a line each.
        arms: by run: the one that chooses the threshold has its own arms.
        failures: samples without an answer, the last of them last.
        lines: of jobs that ended, the last of them last.
    """
    shown = list(failures)[: -ERRORS_SHOWN - 1 : -1]
    return render(
        "live.html",
        title=f"Run {run}",
        state=state,
        refresh_s=RELOAD_S if state == "at work" else 0,
        jobs_done=jobs_done,
        jobs=jobs,
        spent=duration(spent_s),
        now=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M:%S"),
        working=working,
        runs=[
            {"name": name, "arms": [_row(arm, score) for arm in of_run]}
            for name, of_run in (arms or {}).items()
        ],
        failures=[
            (method_label(method_of(f.arm, score)), f.id, f"{f.failure.type}: {f.failure.message}")
            for f in shown
        ],
        lines=lines,
    )


def _row(arm: ArmSoFar, score: str) -> dict[str, Any]:
    whole = arm.expected or arm.done
    parts = {"small": sum(arm.decisions[name] for name in BY_SMALL), "error": arm.decisions["failed"]}
    parts["large"] = arm.done - sum(parts.values())
    floor, height = 0, 25
    points: list[tuple[float, float, float, float]] = []
    if len(arm.course):
        later = arm.course[len(arm.course) // 2 :, 2].min()
        floor = next(floor for floor in COURSE_FLOORS if floor <= later)
        along = 100 * arm.course[:, 0] / whole
        up = height * (100 - arm.course[:, 1:].clip(min=floor)) / (100 - floor)
        points = [(x, *ys) for x, ys in zip(along, up, strict=True)]
    return {
        "label": method_label(method_of(arm.name, score)),
        "done": arm.done,
        "expected": arm.expected,
        "shares": [(kind, 100 * parts[kind] / whole) for kind in ("small", "large", "error")],
        "decisions": ", ".join(f"{n} {name.replace('_', ' ')}" for name, n in arm.decisions.most_common()),
        "accuracy": interval(arm.accuracy) if arm.accuracy else "",
        "floor": floor,
        "height": height,
        "line": " ".join(f"{x:.1f},{y:.1f}" for x, y, _, _ in points),
        "band": " ".join(
            [
                *(f"{x:.1f},{high:.1f}" for x, _, _, high in points),
                *(f"{x:.1f},{low:.1f}" for x, _, low, _ in reversed(points)),
            ]
        ),
        "seconds": duration(arm.wall_s) if arm.wall_s else "",
        "per_sample": _short(arm.wall_s / arm.done) if arm.wall_s else "",
    }


def _short(seconds: float) -> str:
    """Seconds of one sample: two digits where they are few."""
    return duration(seconds) if seconds >= 10 else f"{seconds:.2g} s"

"""`speceyes tool-report`: what recorded tool runs say, ours or the original's, without running anything.

The order is that of a careful reader: conditions of the arms, ceiling, and only then the comparison.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import DataError, UserError, printable
from ..paths import possible, shown
from ..tool_speculation.records import TaskRun, read_runs
from ..tool_speculation.run import RUNS

if TYPE_CHECKING:
    import pandas as pd

    from ..formats.spec_tool_call import OriginalResult

Arms = dict[str, list[TaskRun]]


def report_tools(given: argparse.Namespace) -> int:
    """Print the report; returns 1 where a file could not be read and was left out.

    Raises:
        UserError: nothing can be read, or a task is named that no arm has.
    """
    arms, originals, problems = load_arms([possible(path) for path in given.paths])
    for problem in problems:
        print(printable(str(problem)), file=sys.stderr)
    print("\n".join(report_lines(arms, originals)))
    if given.trace:
        print(f"\nwrote {shown(_write_trace(arms, given.task, possible(given.trace)))}")
    return 1 if problems else 0


def load_arms(paths: Sequence[Path]) -> tuple[Arms, list[list[OriginalResult]], list[object]]:
    """The runs of files and folders by arm, the original's results of each path, and what could not be read.

    Raises:
        DataError: nothing can be read, or two paths hold the same arm of the same tasks.
    """
    from ..formats.spec_tool_call import read_tool_results, tool_run_of

    arms: Arms = {}
    originals: list[list[OriginalResult]] = []
    problems: list[object] = []
    for path in paths:
        file = path / RUNS if path.is_dir() else path
        if file.suffix == ".jsonl" and (file.is_file() or path == file):
            runs = read_runs(file)
        else:
            results, unread = read_tool_results([path])
            problems += unread
            originals.append(results)
            runs = [tool_run_of(result) for result in results]
        for run in runs:
            arms.setdefault(run.arm or "runs", []).append(run)
    if not any(arms.values()):
        reasons = "".join(f"\n  {problem}" for problem in problems[:5])
        raise DataError(f"{', '.join(map(shown, paths))}: no runs of tasks with tools here{reasons}")
    for arm, runs in arms.items():
        ids = [run.task_id for run in runs]
        if len(set(ids)) < len(ids):
            raise DataError(
                f"arm {arm}: {len(ids) - len(set(ids))} tasks occur twice; give folders of different arms"
            )
    return arms, originals, problems


def report_lines(arms: Arms, originals: Sequence[Sequence[OriginalResult]] = ()) -> list[str]:
    """The report as lines."""
    from ..analysis.tool_arms import audit_arms, audit_findings, compare_all, replayed_arms
    from ..analysis.tool_ledger import ceiling_losses, guess_ledger, ledger_by
    from ..formats.spec_tool_call import original_pairs, original_summary

    lines = ["# Conditions of the arms", *_table(audit_arms(arms).T)]
    lines += [f"- {finding}" for finding in audit_findings(arms)] or [
        "- nothing that speaks against a comparison"
    ]
    lines += ["", "# Ceiling: the most that speculation over one step can save"]
    for arm, runs in arms.items():
        lines += _ceiling_lines(arm, runs)
    results = [result for part in originals for result in part]
    by_arm = [[result for result in results if result.arm == arm] for arm in ("spec", "baseline")]
    if all(by_arm):
        lines += [
            "",
            "# As the original's script compares",
            *_table(original_summary(original_pairs(*by_arm))),
        ]
    baseline = next(
        (arm for arm, runs in arms.items() if all(r.settings.get("policy") == "off" for r in runs)), None
    )
    others = {arm: runs for arm, runs in arms.items() if arm != baseline and _speculates(runs)}
    if baseline is not None and others:
        lines += ["", f"# Arms against {baseline}, task by task"]
        lines += _table(compare_all({**others, baseline: arms[baseline]}, baseline).T)
    shadow = next((arm for arm, runs in others.items() if _all_have(runs, "shadow")), None)
    served = {arm: runs for arm, runs in others.items() if arm != shadow}
    if shadow is not None and served:
        lines += ["", f"# {shadow}: replayed as the other arms, beside what they did"]
        lines += _table(replayed_arms(arms[shadow], served))
    for arm, runs in served.items():
        ledger = guess_ledger(runs)
        if len(ledger):
            lines += ["", f"# {arm}: what each guess was worth", *_table(ledger_by(ledger, "tool"))]
        lines += ["", f"# {arm}: where its ceiling went"]
        lines += _table(ceiling_losses(runs, arms[baseline] if baseline is not None else None))
    return [printable(line) for line in lines]


def _ceiling_lines(arm: str, runs: Sequence[TaskRun]) -> list[str]:
    from ..replay.tool_speculation import ceiling
    from ..replay.tool_steps import flatten_runs

    most = ceiling(flatten_runs(runs))
    share = f"by their share alone {most.by_share.value:.2f}x"
    saved = f"{most.saved_s:.2f} of {most.sequential_s:.2f} s"
    lines = [f"{arm}: tools take {most.tool_share}; speedup at most {most.one_step} ({share}), {saved}"]
    bounded = sum(run.settings.get("actor_bounded", 0) for run in runs)
    untimed = sum(run.settings.get("untimed_calls", 0) for run in runs)
    if bounded:
        lines.append(
            f"  the actor's time is only bounded in {bounded} steps, because the step waited for its guess"
        )
    if untimed:
        lines.append(f"  {untimed} calls have no time; they count as 0 s")
    return lines


def _all_have(runs: Iterable[TaskRun], policy: str) -> bool:
    return all(run.settings.get("policy") == policy for run in runs)


def _speculates(runs: Iterable[TaskRun]) -> bool:
    return any(run.settings.get("policy") != "off" for run in runs)


def _table(frame: pd.DataFrame) -> list[str]:
    return frame.to_string(float_format=lambda value: f"{value:.3f}").split("\n")


def _write_trace(arms: Arms, task: str | None, path: Path) -> Path:
    """Write the timelines of one task, or of all, as trace events."""
    from ..analysis.tool_timeline import timeline
    from ..report.trace_format import write_trace

    chosen = [(arm, run) for arm, runs in arms.items() for run in runs if task in (None, run.task_id)]
    if not chosen:
        raise UserError(f"--task {task}: no arm has this task; leave it out for all of them")
    return write_trace(path, [(f"{run.task_id}, {arm}", timeline(run)) for arm, run in chosen])

"""Result files of DeepEyes: `result_{split}_{model}.jsonl`, and their judged copies with `acc` (1 or 0) on each line.

Every line is an answer of the agent alone, so an import is a baseline. The judge of DeepEyes counts failed samples as
wrong. After import they are errors, which count as wrong as well.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ..models.thoughts import without_thoughts
from .common import (
    Finder,
    ImportedStage,
    LineError,
    Problems,
    baseline_record,
    files_of,
    json_lines,
    task_in,
    text_of,
    trajectory,
)
from .speceyes_results import failure_of, sample_of


def read(paths: Iterable[Path], finder: Finder, problems: Problems) -> list[ImportedStage]:
    """One imported stage per split. Where a split has a judged file, that one counts."""
    parts: dict[str, ImportedStage] = {}
    for path in files_of(paths, ".jsonl"):
        task = task_in(path.stem)
        if task is None:
            problems.add(path, "the file name holds no split; expected result_{split}_{model}.jsonl")
            continue
        part, earlier = _read(path, task, finder, problems), parts.get(task)
        if earlier and bool(earlier.verdicts) == bool(part.verdicts):
            problems.add(path, f"left out, because {earlier.files[0].name} is of the same split")
        elif earlier is None or part.verdicts:
            parts[task] = part
    return list(parts.values())


def _read(path: Path, task: str, finder: Finder, problems: Problems) -> ImportedStage:
    part = ImportedStage("02_baseline", task, files=[path])
    judged = False
    for number, line in json_lines(path, problems):
        with problems.caught(path, number):
            id_, _, facts = sample_of(task, line, finder)
            failure, correct = failure_of(line), line.get("acc")
            text = None if failure else text_of(line.get("pred_ans"))
            answer = text and without_thoughts(text)
            path_taken = trajectory(answer, line.get("pred_output"), failure)
            part.add(baseline_record(id_, answer, path_taken, failure), facts)
            judged |= correct is not None
            if failure:
                part.judge(id_, "error", "failed")
            elif correct in (0, 1):
                part.judge(id_, "right" if correct else "wrong", "deepeyes_judge", "final", "agent")
            elif correct is not None:
                kept = "the answer was kept without a verdict"
                raise LineError(f"field 'acc' is {correct!r}, expected 0 or 1; {kept}")
    if not judged:
        part.verdicts = {}  # a file that holds only failures was not judged
    finder.report_missing(part, problems)
    return part

"""Result files of DeepEyes: `result_{split}_{model}.jsonl`, and their judged copies with `acc` (1 or 0) on each line.

Every line is an answer of the agent alone, so an import is a baseline. The judge of DeepEyes counts failed samples as
wrong. Here they are errors, which count as wrong as well.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ..runs.records import AgentRecord
from .common import (
    Finder,
    ImportedStage,
    LineError,
    Problem,
    Problems,
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
            problems.append(
                Problem(path, "the file name holds no split; expected result_{split}_{model}.jsonl")
            )
            continue
        part = _read(path, task, finder, problems)
        earlier = parts.get(task)
        if earlier and bool(earlier.verdicts) == bool(part.verdicts):
            problems.append(Problem(path, f"left out, because {earlier.files[0].name} is of the same split"))
        elif earlier is None or part.verdicts:
            parts[task] = part
    return list(parts.values())


def _read(path: Path, task: str, finder: Finder, problems: Problems) -> ImportedStage:
    part = ImportedStage("02_baseline", task, files=[path])
    judged = False
    for number, line in json_lines(path, problems):
        try:
            id_, sample, facts = sample_of(task, line, finder)
            failure = failure_of(line)
            answer = None if failure else text_of(line.get("pred_ans"))
            record = AgentRecord(
                id=id_,
                run_mode="baseline",
                status="error" if failure else "ok",
                error=failure,
                decision="baseline",
                used="large",
                answer=answer,
                trajectory=trajectory(answer, line.get("pred_output"), failure),
                timed=False,
            )
            part.add(record, facts)
            part.samples[id_] = sample
            judged |= line.get("acc") is not None
            _judge(part, record, line.get("acc"))
        except LineError as error:
            problems.append(Problem(path, str(error), number))
    if not judged:
        part.verdicts = {}  # a file that holds only failures was not judged
    if lacking := finder.missing(part):
        problems.append(Problem(path, f"{lacking} of {len(finder.samples(task))} samples have no line"))
    return part


def _judge(part: ImportedStage, record: AgentRecord, acc: object) -> None:
    if record.status == "error":
        part.judge(record.id, "error", "failed")
    elif acc in (0, 1):
        part.judge(record.id, "right" if acc else "wrong", "deepeyes_judge", "final", "agent")
    elif acc is not None:
        raise LineError(f"field 'acc' is {acc!r}, expected 0 or 1; the answer was kept without a verdict")

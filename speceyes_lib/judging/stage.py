"""Stage 03: the verdicts on every answer of finished runs, stored arm by arm and task by task."""

from __future__ import annotations

import csv
import itertools
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from .. import benchmarks
from ..benchmarks import Sample
from ..errors import DataError, StageError
from ..paths import resolve, stage_dir
from ..provenance import code_hash, text_hash
from ..records import AgentRecord, Record, Verdict
from ..store import StageData, StageStore, read_stage
from .rules import Protocol, judge

if TYPE_CHECKING:
    from ..params import JudgingParams


class JudgedRecord(Record):
    """Everything judged about one sample in one arm, and what the analysis needs to know of the sample itself.

    With it the later stages read finished runs only, and never the benchmark again. `group` is the unit that is
    drawn independently (HR-Bench: the question behind its four orders; POPE: the image). `target_fraction` is
    the side of what the question is about as a share of the image's side, where it is known. `options` are the
    texts to choose from in the order shown ("yes", "no" where the question has none of its own).
    """

    id: str
    question: str = ""
    kind: str = ""
    group: str = ""
    target_fraction: float | None = None
    options: tuple[str, ...] = ()
    verdicts: tuple[Verdict, ...]


def judge_record(
    sample: Sample, record: AgentRecord, protocol: Protocol = "strict", target_fraction: float | None = None
) -> JudgedRecord:
    """Verdicts on the final answer, and on the draft, the agent and the first look where there was one.

    Letters are read in the order in which the options were shown.
    """
    sample = benchmarks.shown_as(sample, record.options_shown)
    answers = [("final", record.answer, record.status == "error")]
    parts = {"draft": record.draft, "agent": record.trajectory, "first_look": record.first_look}
    answers += [(name, p.answer, p.status == "error") for name, p in parts.items() if p is not None]
    return JudgedRecord(
        id=sample.id,
        question=sample.question,
        kind=str(sample.meta.get("category", "")),
        group=str(sample.meta.get("group", sample.id)),
        target_fraction=target_fraction,
        options=tuple(sample.options or ("yes", "no")),
        verdicts=tuple(
            Verdict(
                id=sample.id,
                source=source,
                protocol=protocol,
                answer=answer,
                standard=sample.standard,
                **judge(sample, answer, protocol, failed)._asdict(),
            )
            for source, answer, failed in answers
        ),
    )


def run_judging_stage(
    params: JudgingParams, progress: Callable[[int, int, str], None] = lambda done, total, text="": None
) -> list[Path]:
    """Judge every arm of `params.arms` on every task; returns the finished stage folders (`03_judging/<arm>/…`).

    Raises StageError where an arm has not run, or where it ran other samples than `params.data_root` holds.
    """
    root = resolve(params.data_root)
    sizes = _stored_sizes(root)
    folders = []
    for task in params.tasks:
        samples = _samples(task, root)
        folders += [_judge_arm(params, arm, task, samples, sizes, progress) for arm in params.arms]
    return folders


def preview_verdicts(params: JudgingParams, n: int) -> list[JudgedRecord]:
    """The verdicts on the first `n` samples of the first arm and task; nothing is stored."""
    task = params.tasks[0]
    root = resolve(params.data_root)
    ran = _answers(params, params.arms[0], task, samples := _samples(task, root))
    sizes = _stored_sizes(root)
    return [_judged(params, samples[i], r, sizes) for i, r in itertools.islice(ran.records.items(), n)]


def _samples(task: str, root: Path) -> dict[str, Sample]:
    return {sample.id: sample for sample in benchmarks.load_task(task, root)}


def _answers(
    params: JudgingParams, arm: str, task: str, samples: Mapping[str, Sample]
) -> StageData[AgentRecord]:
    ran = read_stage(params.run, f"02_{arm}", task, AgentRecord)
    if strange := ran.records.keys() - samples.keys():
        raise StageError(
            f"run {params.run}: {arm} of {task} holds {sorted(strange)[0]!r}, which {params.data_root} does not; "
            "set data_root to the benchmark the run was made with"
        )
    return ran


def _judged(
    params: JudgingParams, sample: Sample, record: AgentRecord, sizes: Mapping[str, float]
) -> JudgedRecord:
    size = sizes.get(sample.id, _boxes_fraction(sample, record))
    return judge_record(sample, record, params.protocol, size)


def _judge_arm(
    params: JudgingParams,
    arm: str,
    task: str,
    samples: Mapping[str, Sample],
    sizes: Mapping[str, float],
    progress: Callable[[int, int, str], None],
) -> Path:
    ran = _answers(params, arm, task, samples)
    stage, text = f"03_judging/{arm}", f"{task} · {arm}"
    start = time.perf_counter()
    with StageStore(
        stage_dir(params.run, stage, task),
        stage=stage,
        task=task,
        record_type=JudgedRecord,
        config={"protocol": params.protocol, "data_root": params.data_root},
        expected_ids=list(ran.records),
        inputs={
            "records": ran.sha256,
            "truth": text_hash(f"{i} {samples[i].standard}" for i in ran.records),
            "code": code_hash("judging"),
            "sizes": _sizes_hash(sizes, ran.records),
        },
        if_changed=params.if_changed,
    ) as store:
        progress(len(store.done_ids), len(ran.records), text)
        for id_, record in ran.records.items():
            if id_ not in store.done_ids:
                store.append(_judged(params, samples[id_], record, sizes))
        progress(len(store.done_ids), len(ran.records), text)
        store.finish(timing={"session_s": time.perf_counter() - start})
    return store.folder


DIFFICULTY_FILE = (
    "difficulty.csv"  # beside a benchmark: id, w = side of the region that answers it / image side
)


def _stored_sizes(root: Path) -> dict[str, float]:
    path = root / DIFFICULTY_FILE
    if not path.is_file():
        return {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return {row["id"]: float(row["w"]) for row in csv.DictReader(file)}
    except (KeyError, TypeError, ValueError) as e:
        raise DataError(f"{path.name}: expected the columns id and w with a number in w ({e!r})") from e


def _sizes_hash(sizes: Mapping[str, float], ids: Iterable[str]) -> str:
    return text_hash(f"{i} {sizes.get(i)}" for i in ids)


def _boxes_fraction(sample: Sample, record: AgentRecord) -> float | None:
    """Larger side, as a share of the image's, of the smallest box around all targets; None if not known."""
    path = record.trajectory or record.first_look
    if not sample.boxes or path is None or path.image_px is None:
        return None
    left, top, right, bottom = zip(*((x, y, x + w, y + h) for x, y, w, h in sample.boxes), strict=True)
    return max(
        (max(right) - min(left)) / path.image_px[0],
        (max(bottom) - min(top)) / path.image_px[1],
    )

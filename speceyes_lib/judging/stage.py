"""Stage 03: verdicts on every answer of a finished run, stored arm by arm and task by task."""

from __future__ import annotations

import contextlib
import csv
import itertools
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from ..errors import ACCEPT, DataError, StageError
from ..paths import resolve, stage_dir
from ..runs.files import HEADER
from ..runs.provenance import code_hash, text_hash
from ..runs.reading import StageData, read_stage
from ..runs.records import AgentRecord, Failure, JudgeCall, JudgedRecord, Verdict
from ..runs.stage import StageStore
from ..tasks import registry
from ..tasks.sample import Sample, shown_as
from .human import Overrides, overrides_of, reviewed
from .llm import HELD_BACK, JudgingModel, Question, open_judge
from .rules import Protocol, judge
from .verdict_frames import verdict_frame

if TYPE_CHECKING:
    from ..params import JudgingParams


def judge_record(
    sample: Sample, record: AgentRecord, protocol: Protocol = "strict", target_fraction: float | None = None
) -> JudgedRecord:
    """Verdicts by rule on the final answer, and on those of draft, agent and first look where there are any.

    Args:
        sample: letters are read in the order in which its options were shown.
        record: of one arm.
        protocol: "strict" or "paper", see `rules`.
        target_fraction: size of the region that answers the question, side / image side; None: unknown.
    """
    sample = shown_as(sample, record.options_shown)
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
                verdict=judgement.verdict,
                rule=judgement.rule,
                decided_by="none" if judgement.verdict == "undecided" else "rule",
            )
            for source, answer, failed in answers
            for judgement in [judge(sample, answer, protocol, failed)]
        ),
    )


def run_judging(
    params: JudgingParams, progress: Callable[[int, int, str], None] = lambda done, total, text="": None
) -> list[Path]:
    """Judge every arm on every task and store the verdicts; returns the finished stage folders.

    Rules come first. What they leave undecided goes to the judging model, where there is one. The verdict of a person
    outranks both. No verdict is requested twice. Answers without one are sent again when the stage runs again. They are
    `undecided` where the model's reply holds no verdict or its budget is spent. Where its server failed, the arm and
    task are not stored, because a machine's fault is no result.

    Args:
        params: of the stage.
        progress: is called with (done, total, text).

    Raises:
        StageError: an arm has not run, it ran other samples than `params.data_root` holds, or the judging model's
            server failed (all else is stored before).
    """
    with _judging(params) as judging:
        folders = [judging.judge_arm(arm, task, progress) for task in params.tasks for arm in params.arms]
        if held := judging.held_back:
            what = f"{sum(map(len, held.values()))} answers of {len(held)} arms and tasks, first {next(iter(held))}"
            why = next(iter(held.values()))[0].message
            remedy = f"run 03_judging again when the server answers (verdicts that came are kept); {ACCEPT}"
            raise StageError(
                f"run {params.run}: the judging model's server failed for {what}: {why}; {remedy}"
            )
        return folders


def preview_verdicts(params: JudgingParams, n: int) -> pd.DataFrame:
    """`verdict_frame` of the first `n` samples of the first arm and task.

    Only replies of the judging model are stored.
    """
    with _judging(params) as judging:
        ran, samples = judging.answers(params.arms[0], params.tasks[0])
        return verdict_frame(judging.judge(dict(itertools.islice(ran.records.items(), n)), samples)[0])


@dataclass(frozen=True)
class _Judging:
    """What all arms and tasks are judged with."""

    params: JudgingParams
    sizes: Mapping[str, float]
    overrides: Overrides
    model: JudgingModel | None
    code: str  # state of the code, hashed once
    load_task: Callable[[str, Path], list[Sample]]
    held_back: dict[str, list[Failure]] = field(
        default_factory=dict
    )  # arm and task -> failures of the server

    def answers(self, arm: str, task: str) -> tuple[StageData[AgentRecord], dict[str, Sample]]:
        """The answers of an arm, and the samples of the task by id."""
        params, root = self.params, self.params.data_root
        ran = read_stage(params.run, f"02_{arm}", task, AgentRecord)
        samples = {sample.id: sample for sample in self.load_task(task, resolve(root))}
        if strange := ran.records.keys() - samples.keys():
            fault = f"{arm} of {task} has the sample {sorted(strange)[0]!r}, which {root} lacks"
            raise StageError(f"run {params.run}: {fault}; set data_root to the benchmark of the run")
        return ran, samples

    def judge(
        self,
        records: Mapping[str, AgentRecord],
        samples: Mapping[str, Sample],
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> tuple[list[JudgedRecord], dict[str, JudgeCall]]:
        """The records with all their verdicts, and the calls of the model (by key of its cache)."""
        judged = []
        for id_, record in records.items():
            size = self.sizes.get(id_, boxes_fraction(samples[id_], record))
            judged.append(judge_record(samples[id_], record, self.params.protocol, size))
        questions: dict[tuple[str, str | None], Question] = {}
        for record in judged if self.model else ():
            sample = shown_as(samples[record.id], records[record.id].options_shown)
            for v in record.verdicts:
                # a broken box, on which the original crashes, never goes to the model
                is_open = v.verdict == "undecided" and v.rule != "boxed_without_brace"
                if is_open or (self.params.judge_all and v.verdict in ("right", "wrong")):
                    questions[v.id, v.answer] = self.model.question(sample, v.answer or "", v.protocol)
        calls = self.model.judge(list(questions.values()), progress) if questions else {}
        call_of = {answer: calls[question.key] for answer, question in questions.items()}
        for i, record in enumerate(judged):
            verdicts = tuple(reviewed(_with_call(v, call_of), self.overrides) for v in record.verdicts)
            judged[i] = record.model_copy(update={"verdicts": verdicts})
        return judged, calls

    def judge_arm(self, arm: str, task: str, progress: Callable[[int, int, str], None]) -> Path:
        """Judge one arm on one task and store the verdicts, or hold them back; returns the stage's folder."""
        params, model = self.params, self.model
        ran, samples = self.answers(arm, task)
        stage, text, n = f"03_judging/{arm}", f"{task} · {arm}", len(ran.records)
        start, paid = time.perf_counter(), model.cost() if model else {}
        progress(0, n, text)
        # All answers are judged before any verdict is stored. A killed session loses no reply: the cache keeps each.
        judged, calls = self.judge(ran.records, samples, lambda done, of: progress(n * done // of, n, text))
        folder = stage_dir(params.run, stage, task)
        failures = [
            call.failure for call in calls.values() if call.failure and call.failure.type in HELD_BACK
        ]
        if failures and not params.accept_failures:
            self.held_back[f"{arm} of {task}"] = failures
            return folder
        config: dict = {"protocol": params.protocol, "data_root": params.data_root}
        inputs = {
            "records": ran.sha256,
            "truth": text_hash(f"{i} {samples[i].standard}" for i in ran.records),
            "code": self.code,
            "sizes": text_hash(f"{i} {self.sizes.get(i)}" for i in ran.records),
        }
        if model is not None:
            config |= {"judge": model.model, "judge_all": params.judge_all}
            inputs[REPLIES] = text_hash(f"{key} {call.reply!r}" for key, call in calls.items())
        if checks := sorted(f"{i} {a} {c}" for (i, a), c in self.overrides.items() if i in ran.records):
            inputs[CHECKS] = text_hash(checks)
        with StageStore(
            folder,
            stage=stage,
            task=task,
            record_type=JudgedRecord,
            config=config,
            expected_ids=list(ran.records),
            inputs=inputs,
            if_changed="restart" if _only_more_is_known(folder, config, inputs) else params.if_changed,
        ) as store:
            for record in judged:
                if record.id not in store.done_ids:
                    store.append(record)
            progress(n, n, text)
            cost = {name: value - paid[name] for name, value in model.cost().items()} if model else {}
            store.finish(timing={"session_s": time.perf_counter() - start, **cost})
        return folder


@contextlib.contextmanager
def _judging(params: JudgingParams) -> Iterator[_Judging]:
    sizes = _stored_sizes(resolve(params.data_root))
    overrides = overrides_of(params.run) if params.human_checks == "apply" else {}
    load_task = lru_cache(maxsize=1)(registry.load_task)  # all arms of a task share its samples
    with open_judge(params) or contextlib.nullcontext() as model:
        yield _Judging(params, sizes, overrides, model, code_hash("judging.stage"), load_task)


def _with_call(verdict: Verdict, call_of: Mapping[tuple[str, str | None], JudgeCall]) -> Verdict:
    """The verdict with the model's call, which decides only where the rule could not."""
    call = call_of.get((verdict.id, verdict.answer))
    if call is None or verdict.verdict == "error":
        return verdict
    update: dict = {"judge": call}
    if verdict.verdict == "undecided":
        decided_by = "none" if call.verdict == "undecided" else "llm"
        update |= {"verdict": call.verdict, "decided_by": decided_by, "rule_verdict": "undecided"}
    return verdict.model_copy(update=update)


REPLIES, CHECKS = "judge_replies", "human_checks"


def _only_more_is_known(folder: Path, config: Mapping, inputs: Mapping[str, str]) -> bool:
    """Whether the stored verdicts differ from the new ones only by replies and human checks that came since.

    Such verdicts are replaced even where `if_changed` refuses. Nothing is lost: replies and checks are kept elsewhere.
    """

    def fixed(values: Mapping) -> dict:
        return {name: value for name, value in values.items() if name not in (REPLIES, CHECKS, "sample_ids")}

    try:
        before = json.loads((folder / HEADER).read_bytes())
        return before["config"] == config and fixed(before["inputs"]) == fixed(inputs)
    except (OSError, ValueError, KeyError, TypeError):
        return False  # StageStore reports what is wrong with the folder


# beside a benchmark: id, w = side of the region that answers the question / image side
DIFFICULTY_FILE = "difficulty.csv"


def _stored_sizes(root: Path) -> dict[str, float]:
    path = root / DIFFICULTY_FILE
    if not path.is_file():
        return {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return {row["id"]: float(row["w"]) for row in csv.DictReader(file)}
    except (KeyError, TypeError, ValueError) as e:
        raise DataError(f"{path.name}: expected the columns id and w with a number in w ({e!r})") from e


def boxes_fraction(sample: Sample, record: AgentRecord) -> float | None:
    """Larger side of the smallest box around all targets, as a share of the image's; None if unknown."""
    path = record.trajectory or record.first_look
    if not sample.boxes or path is None or path.image_px is None:
        return None
    left, top, right, bottom = zip(*((x, y, x + w, y + h) for x, y, w, h in sample.boxes), strict=True)
    width, height = path.image_px
    return max((max(right) - min(left)) / width, (max(bottom) - min(top)) / height)

"""A small run of real records, as stages 01-03 would leave them: easy and hard samples, plausible mistakes.

Not measured by any model; only the shapes matter. Right answers come from the real judge.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from speceyes_lib.judging.stage import judge_record
from speceyes_lib.paths import stage_dir
from speceyes_lib.runs.arms import CLOCK_STAGE
from speceyes_lib.runs.records import (
    AgentRecord,
    DraftRecord,
    Failure,
    JudgedRecord,
    RouterRecord,
    Trajectory,
    Turn,
)
from speceyes_lib.runs.stage import StageStore
from speceyes_lib.tasks.pictures import ImageRef
from speceyes_lib.tasks.registry import TASKS
from speceyes_lib.tasks.sample import Sample

OPTIONS = ("red", "blue", "green", "white")
THRESHOLD = 0.97


def make_samples(per_task: int = 40, tasks=TASKS) -> list[Sample]:
    samples = []
    for task in tasks:
        benchmark, split = task.split("/")
        for i in range(per_task):
            yes_no = benchmark == "pope"
            group = (
                f"{split}/{i // 4}" if benchmark == "hr" else f"image{i // 2}" if yes_no else f"{split}/{i}"
            )
            samples.append(
                Sample(
                    id=f"{task}/{i:03d}",
                    benchmark=benchmark,
                    split=split,
                    key=f"{i:03d}",
                    question="Is there a star?" if yes_no else "What color is the star?",
                    options=None if yes_no else OPTIONS,
                    answer=("yes", "no")[i % 2] if yes_no else "A" if benchmark == "vstar" else "ABCD"[i % 4],
                    image=ImageRef(Path("none.jpg")),
                    meta={"group": group, "category": "single"},
                )
            )
    return samples


def _answer(sample: Sample, right: bool) -> str:
    if sample.options is None:
        return sample.answer if right else {"yes": "no", "no": "yes"}[sample.answer]
    return sample.answer_text if right else next(o for o in sample.options if o != sample.answer_text)


def make_run(
    per_task: int = 40, tasks=TASKS, seed: int = 0, failed: int = 1, samples: list[Sample] | None = None
) -> tuple[dict[str, dict[str, AgentRecord]], dict[str, dict[str, JudgedRecord]]]:
    """(arms, judged) as `frames.assemble` takes them; the first `failed` samples fail in every arm.

    `samples`: answer these instead of synthetic ones.
    """
    rng = np.random.default_rng(seed)
    arms = {a: {} for a in ("collect", "baseline", "gated", "baseline_batched", "gated_batched")}
    judged = {a: {} for a in arms}
    for number, sample in enumerate(samples or make_samples(per_task, tasks)):
        width = float(rng.uniform(0.12, 0.95))
        draft_right = bool(rng.random() < min(0.98, 0.35 + 1.3 * width))
        score = float(1 / (1 + np.exp(-(rng.normal(3.2 + (1.6 if draft_right else -0.8), 0.9)))))
        agent_right, look_right = bool(rng.random() < 0.95), bool(rng.random() < 0.4 + 0.55 * width)
        to_draft = bool(width > 0.36 or rng.random() < 0.1)
        zoomed = width < 0.9
        scores = {"min": score, "mean": score**0.6, "bottom20": score**0.9, "log": score**1.5}
        ms = lambda low, high: float(rng.uniform(low, high)) / 1000  # noqa: E731
        draft = DraftRecord(
            id=sample.id,
            status="ok",
            answer=_answer(sample, draft_right),
            n_tokens=2,
            scores=scores,
            deciding_token=0,
            decode_s=ms(2, 4),
            draft_s=ms(5, 7),
            batch_size=8,
        )
        router = RouterRecord(
            verdict="no" if to_draft else "yes", text="no" if to_draft else "yes", router_s=ms(5, 7)
        )
        turn = Turn(text="zoom", n_tokens=40, turn_s=ms(55, 65), action="tool", crop_px=(0, 0, 9, 9))
        last = Turn(text="<answer>", n_tokens=9, turn_s=ms(20, 30), action="answer")
        answer = _answer(sample, agent_right)
        path = Trajectory(
            status="ok", answer=answer, answer_from="tag", turns=(turn, last) if zoomed else (last,)
        )
        look = Trajectory(status="ok", answer=_answer(sample, look_right), answer_from="tag", turns=(last,))
        failure = Failure(type="image_error", message="the picture is truncated")
        accepted = to_draft and score > THRESHOLD
        decision = "accepted" if accepted else "rejected" if to_draft else "routed"
        for arm, records in arms.items():
            mode = arm.removesuffix("_batched")
            slow = 0.45 if arm.endswith("_batched") else 1.0
            timed = path.model_copy(
                update={"turns": tuple(t.model_copy(update={"turn_s": t.turn_s * slow}) for t in path.turns)}
            )
            common = {"id": sample.id, "run_mode": mode, "decode_s": draft.decode_s}
            if number < failed:
                record = AgentRecord(
                    **common,
                    status="error",
                    error=failure,
                    decision={"baseline": "baseline", "collect": "collected"}.get(mode, "routed"),
                    used="large",
                    draft=DraftRecord(id=sample.id, status="error", error=failure)
                    if mode == "collect"
                    else None,
                )
            elif mode == "gated":
                record = AgentRecord(
                    **common,
                    status="ok",
                    decision=decision,
                    used="small" if accepted else "large",
                    answer=draft.answer if accepted else answer,
                    router=router,
                    draft=draft if to_draft else None,
                    confidence=score if to_draft else None,
                    threshold=THRESHOLD,
                    trajectory=None if accepted else timed,
                    tool_s=0.0 if accepted or not zoomed else 0.002,
                )
            else:
                record = AgentRecord(
                    **common,
                    status="ok",
                    decision="baseline" if mode == "baseline" else "collected",
                    used="large",
                    answer=answer,
                    router=router if mode == "collect" else None,
                    draft=draft if mode == "collect" else None,
                    confidence=score if mode == "collect" else None,
                    trajectory=timed,
                    first_look=look if mode == "collect" else None,
                    tool_s=0.002 if zoomed else 0.0,
                )
            records[sample.id] = record
            judged[arm][sample.id] = judge_record(sample, record, target_fraction=width)
    return arms, judged


def write_drafts(run: str, arms: dict[str, dict[str, AgentRecord]], config: dict | None = None) -> None:
    """Store the drafts of `collect` as finished stages 01."""
    _write(run, "01_draft", {id_: r.draft for id_, r in arms["collect"].items()}, DraftRecord, config or {})


def write_answers(
    run: str,
    arms: dict[str, dict[str, AgentRecord]],
    config: dict | None = None,
    timing: dict[str, float] | None = None,
) -> None:
    """Store the arms as finished stages 02 of a run, as notebook 02 leaves them; `config` is added to theirs."""
    for arm, records in arms.items():
        gate = {"score": "min", "k": 64, "slope": 0.6, "router": "large", "threshold": THRESHOLD}
        made = (gate if arm.startswith("gated") else {}) | (config or {})
        _write(run, f"02_{arm}", records, AgentRecord, made, timing)


def write_clock(run: str, records: dict[str, AgentRecord], block: int) -> None:
    """Store second timings of samples of `baseline` as the finished A/A line of a run."""
    _write(run, CLOCK_STAGE, records, AgentRecord, {"block": block})


def write_verdicts(
    run: str,
    judged: dict[str, dict[str, JudgedRecord]],
    protocol: str = "strict",
    config: dict | None = None,
) -> None:
    """Store verdicts as finished stages 03; `config` is added to theirs."""
    for arm, records in judged.items():
        _write(run, f"03_judging/{arm}", records, JudgedRecord, {"protocol": protocol} | (config or {}))


def write_run(
    run: str, samples: list[Sample], root: Path, arms: Sequence[str], failed: int = 0, **config: object
) -> dict[str, dict[str, AgentRecord]]:
    """Store stages 01 to 03 of some arms, `collect` among them, that answered the samples of `root`; their records."""
    records_by_arm, judged = make_run(samples=samples, failed=failed)
    records_by_arm = {arm: records_by_arm[arm] for arm in arms}
    config = {
        "data_root": str(root),
        "draft_model": "small",
        "agent_model": "agent",
        "batch_size": 8,
    } | config
    write_drafts(run, records_by_arm, config)
    write_answers(run, records_by_arm, config)
    write_verdicts(run, {arm: judged[arm] for arm in arms})
    return records_by_arm


def _write(
    run: str,
    stage: str,
    records: dict,
    record_type: type,
    config: dict,
    timing: dict[str, float] | None = None,
) -> None:
    tasks = sorted({id_.rsplit("/", 1)[0] for id_ in records})
    for task in tasks:
        of_task = {id_: r for id_, r in records.items() if id_.startswith(f"{task}/")}
        with StageStore(
            stage_dir(run, stage, task),
            stage=stage,
            task=task,
            record_type=record_type,
            config=config,
            expected_ids=list(of_task),
        ) as store:
            for record in of_task.values():
                store.append(record)
            store.finish(timing, environment={"cores": 2} if timing else {})


def write_vstar(root: Path, samples: list[Sample], split: str = "direct_attributes") -> None:
    """The V* samples of a split in their official layout, with a picture each."""
    folder = root / "vstar" / split
    folder.mkdir(parents=True)
    for sample in samples:
        if sample.task == f"vstar/{split}":
            Image.new("RGB", (40, 20), "grey").save(folder / f"{sample.key}.jpg")
            annotation = {"target_object": ["star"], "bbox": [[4, 4, 10, 5]], "question": sample.question}
            (folder / f"{sample.key}.json").write_text(
                json.dumps(annotation | {"options": list(sample.options)})
            )

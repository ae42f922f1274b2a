"""A run as the original's files: answers, drafts, seconds, and a judge's sums where the run was judged.

The format has no place for evidence, the cost of a sample, the answer without a tool, and the reason of a verdict.
Missing numbers are null, never NaN. A run whose options were shown in another order is refused: the format cannot
express the order, and its readers take the first option for the right one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ConfigError, StageError
from ..gating.separability import PAPER_SCORES
from ..paths import resolve
from ..runs.arms import DRAFT_STAGE
from ..runs.reading import StageData, is_finished, read_stage
from ..runs.records import AgentRecord, DraftRecord, JudgedRecord, Trajectory
from ..tasks.registry import TASKS, load_task
from ..tasks.sample import Sample
from .speceyes import JUDGED, LATENCY, PAPER_K, ROUTED, Name
from .speceyes_results import result_of

Record = DraftRecord | AgentRecord
Answers = StageData[DraftRecord] | StageData[AgentRecord]


def export(
    run: str,
    folder: Path,
    arms: Sequence[str] = ("baseline", "gated"),
    tasks: Sequence[str] = (),
    data_root: str | None = None,
) -> list[Path]:
    """Write a run's drafts and arms into `eval_results_<agent>` and `judge_results_<agent>` below `folder`.

    Args:
        run: name of the run.
        folder: where to write.
        arms: arms beside the drafts; arms that have not run are left out.
        tasks: tasks to export; tasks that have not run are left out.
        data_root: folder of the benchmarks, for runs whose manifests do not name it (imported runs).

    Returns:
        The files written.

    Raises:
        StageError: nothing is finished, or a stage cannot be read.
        ConfigError: the benchmark is missing, or two arms have the same name in this format.
    """
    written: dict[Path, str] = {}
    seconds: dict[Path, dict[str, float]] = {}
    for task in tasks or TASKS:
        for stage in (DRAFT_STAGE, *(f"02_{arm}" for arm in arms)):
            if not is_finished(run, stage, task):
                continue
            data = read_stage(run, stage, task, DraftRecord if stage == DRAFT_STAGE else AgentRecord)
            samples = _samples(data, task, data_root)
            name = _name(data, task)
            place = Path(name.large or name.small, task.split("/")[0])
            path = folder / f"eval_results_{place}" / f"{name.stem}.jsonl"
            if path in written:
                arms_of_name = f"{stage} and {written[path]} of {task}"
                raise ConfigError(f"{arms_of_name} have one file name, {path.name}; export one at a time")
            written[path] = stage
            messages = "messages" if data.manifest.config.get("agent") == "thyme" else "print_messages"
            _write(path, *(_eval_line(r, samples[r.id], name, messages) for r in data.records.values()))
            if (total := data.manifest.timing.get("wall_s")) is not None:
                seconds.setdefault(path.parent / LATENCY, {})[path.name] = total
            judged = "collect" if stage == DRAFT_STAGE else stage.removeprefix("02_")
            if is_finished(run, f"03_judging/{judged}", task):
                verdicts = read_stage(run, f"03_judging/{judged}", task, JudgedRecord)
                path = folder / f"judge_results_{place}" / f"{name.stem}{JUDGED}.jsonl"
                _write(path, _sums(data, verdicts.records, samples, total), indent=4)
                written[path] = stage
    if not written:
        stages = ", ".join([DRAFT_STAGE, *arms])
        raise StageError(f"run {run}: none of {stages} is finished; finish the run first")
    for path, by_file in seconds.items():
        _write(path, by_file, indent=4)
    return [*written, *seconds]


def _samples(data: Answers, task: str, data_root: str | None) -> dict[str, Sample]:
    root = data_root or data.manifest.config.get("data_root")
    if root is None:
        raise ConfigError(f"{task}: the run does not name its benchmark; give --data-root")
    samples = {s.id: s for s in load_task(task, resolve(root))}
    for record in data.records.values():
        if record.id not in samples:
            raise StageError(f"{record.id} is not in {root}; give the benchmark of the run as --data-root")
        if record.options_shown is not None:
            fault = "its options were shown in another order than published"
            remedy = "export a run with option_order = as_published"
            raise StageError(f"{record.id}: {fault}, which the original's format cannot express; {remedy}")
    return samples


def _name(data: Answers, task: str) -> Name:
    config, stage = data.manifest.config, data.manifest.stage
    small, large = (_model(config.get(key)) for key in ("draft_model", "agent_model"))
    batch_size = int(config.get("batch_size") or config.get("agent_batch_size") or 1)
    arm = stage.removeprefix("02_").removesuffix("_batched")
    if stage == DRAFT_STAGE:
        return Name(task, None, small, batch_size)
    if arm == "gated":
        k, routes = int(config.get("k", PAPER_K)), config.get("router") == "small"
        return Name(task, large, small, batch_size, config["score"], config["threshold"], k, routes)
    if arm == "specreason":
        return Name(task, large, small, batch_size, arm, config.get("specreason_threshold"))
    return Name(task, large, "baseline", batch_size)


def _model(name: str | None) -> str:
    """The last part of a model's name, without the character that separates the parts of a file name."""
    return Path(name or "unknown").name.replace("_", "-")


# ---------------------------------------------------------------------------------------------- answers


def _eval_line(record: Record, sample: Sample, name: Name, messages: str) -> dict[str, Any]:
    failed, result = record.status == "error", result_of(sample, record.answer)
    error = record.error.message if failed and record.error else None
    line = {"status": "error" if failed else "success", "error": error}
    if isinstance(record, DraftRecord):
        infos = {mode: (record.scores or {}).get(mode) for mode in ("log", "min", "mean", "bottom20")}
        return line | {"confidence_score_infos": infos, "generated_length": record.n_tokens, "result": result}
    draft, routed = record.draft, record.decision == "routed"
    return line | {
        "small_answer": draft.answer if draft and name.arm == "gated" else None,
        "confidence_score": ROUTED if routed else record.confidence,
        "use_model": record.used,
        "generated_length": _tokens(record),
        "judge_tc": record.router.verdict if record.router else None,
        messages: _messages(sample, record.trajectory),
        "result": result,
    }


def _tokens(record: Record) -> int | None:
    """Tokens of the final answer: those of the draft, or of all turns of the agent; None if unknown."""
    if isinstance(record, DraftRecord):
        return record.n_tokens
    if record.used == "small":
        return record.draft.n_tokens if record.draft else None
    if record.trajectory is None:
        return None
    counts = [turn.n_tokens for turn in record.trajectory.turns]
    return record.trajectory.generated_tokens if None in counts or not counts else sum(counts)


def _messages(sample: Sample, path: Trajectory | None) -> list[dict[str, Any]]:
    """The conversation of the agent. A picture is given by the region of the original that it shows."""
    if path is None:
        return []
    messages: list[dict[str, Any]] = [{"role": "user", "content": sample.question}]
    for turn in path.turns:
        messages.append({"role": "assistant", "content": turn.text})
        if turn.crop_px is not None:
            messages.append({"role": "user", "content": [{"type": "image", "crop_px": list(turn.crop_px)}]})
        elif turn.error is not None and turn is not path.turns[-1]:
            messages.append({"role": "user", "content": turn.error.message})
    return messages


# ----------------------------------------------------------------------------------------------- judging


def _sums(
    data: Answers, judged: Mapping[str, JudgedRecord], samples: Mapping[str, Sample], wall_s: float | None
) -> dict[str, Any]:
    """The content of a judge's file. As in the original, failed samples are in no sum, and undecided is not right."""
    source = "draft" if data.manifest.stage == DRAFT_STAGE else "final"
    verdicts = {v.id: v.verdict for r in judged.values() for v in r.verdicts if v.source == source}
    kept = [r for r in data.records.values() if r.status == "ok" and r.id in verdicts]
    right = {r.id: verdicts[r.id] == "right" for r in kept}
    by_model = {who: [r for r in kept if _used(r) == who] for who in ("small", "large")}
    routers = [r.router.verdict for r in data.records.values() if isinstance(r, AgentRecord) and r.router]
    tokens = [count for r in kept if (count := _tokens(r)) is not None]
    sums = {
        "all_acc": _percent(right.values()),
        **{f"{who}_acc": _percent(right[r.id] for r in records) for who, records in by_model.items()},
        **{f"{who}_tokens": _mean(map(_tokens, records)) for who, records in by_model.items()},
        "tokens_per_second": sum(tokens) / wall_s if tokens and wall_s else None,
        "all_cnt": len(kept),
        "small_cnt": len(by_model["small"]),
        "small_ratio": _percent(_used(r) == "small" for r in kept),
        "large_cnt": len(by_model["large"]),
        "yes_cnt": routers.count("yes"),
        "no_cnt": routers.count("no"),
        "error_preds": [result_of(samples[r.id], r.answer) for r in kept if not right[r.id]],
    }
    if data.manifest.task.startswith("hr/"):
        kinds = ("single", "cross")
        of_kind = {kind: [right[r.id] for r in kept if judged[r.id].kind == kind] for kind in kinds}
        sums["acc_per_category"] = {kind: _mean(flags) for kind, flags in of_kind.items()}
    if source == "draft":
        return sums | {"conf_infos": {mode: _by_verdict(kept, right, mode) for mode in PAPER_SCORES}}
    if data.manifest.stage.startswith("02_gated"):
        lists = _by_verdict(kept, right)
        scores = lists["wrong"] + lists["right"]
        deciles = np.percentile(scores, range(10, 100, 10)).tolist() if scores else []
        sums |= {"confidence_scores": deciles} | {f"confidence_scores_{k}": v for k, v in lists.items()}
    return sums


def _used(record: Record) -> str:
    return "small" if isinstance(record, DraftRecord) else record.used


def _by_verdict(records: Iterable[Record], right: Mapping[str, bool], mode: str = "") -> dict[str, list]:
    lists: dict[str, list[float]] = {"wrong": [], "right": []}
    for r in records:
        score = r.confidence if isinstance(r, AgentRecord) else (r.scores or {}).get(mode)
        if score is not None:
            lists["right" if right[r.id] else "wrong"].append(score)
    return lists


def _percent(values: Iterable[bool]) -> float | None:
    return _mean(values, 100.0)


def _mean(values: Iterable[float | None], factor: float = 1.0) -> float | None:
    known = [float(v) for v in values if v is not None]
    return factor * float(np.mean(known)) if known else None


def _write(path: Path, *values: Mapping, indent: int | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    texts = [json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False) for value in values]
    path.write_text("".join(f"{text}\n" for text in texts), "utf-8")

"""A run as the original's files: answers, drafts, seconds, and a judge's sums where the run was judged.

The original's judges and its other programs run on these files unchanged: folders, fields, their order and types, and
the rounding of numbers are theirs. The format has no place for evidence, the cost of a sample, the answer without a
tool, the text of a rejected draft, and the reason of a verdict. Where the original computes NaN (the accuracy of no
sample), there is null, which its readers make of NaN. A run whose options were shown in another order is refused: the
format cannot express the order, and its readers take the first option for the right one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ConfigError, StageError
from ..gating.separability import PAPER_SCORES
from ..paths import is_run_name, resolve
from ..runs.arms import DRAFT_STAGE
from ..runs.reading import StageData, is_finished, read_stage
from ..runs.records import AgentRecord, DraftRecord, JudgedRecord
from ..tasks.registry import TASKS, load_task
from ..tasks.sample import Sample
from .speceyes import JUDGED, LATENCY, PAPER_K, ROUTED, Name
from .speceyes_results import result_of

UNKNOWN = (
    0  # number of tokens that was not recorded, confidence of a draft without one: the original's default
)
FOLDERS = {"specreason": "SpecReason"}  # arm -> folder of its files, below that of the agent; all others:
FOLDER = "SpecEyes"
Record = DraftRecord | AgentRecord
Answers = StageData[DraftRecord] | StageData[AgentRecord]


def export(
    run: str,
    folder: Path,
    arms: Sequence[str] = ("baseline", "gated"),
    tasks: Sequence[str] = (),
    data_root: str | None = None,
    models: Mapping[str, str] | None = None,
) -> list[Path]:
    """Write a run's drafts and arms into `eval_results_…` and `judge_results_…` below `folder`.

    Args:
        run: name of the run.
        folder: where to write.
        arms: arms beside the drafts; arms that have not run are left out.
        tasks: tasks to export; tasks that have not run are left out.
        data_root: folder of the benchmarks, for runs whose manifests do not name it (imported runs).
        models: names for the file names ("draft_model", "agent_model"); without one the model's own name.

    Returns:
        The files written.

    Raises:
        StageError: nothing is finished, or a stage cannot be read.
        ConfigError: the benchmark is missing, a name cannot be part of a file name, or two arms have the same name in
            this format.
    """
    written: dict[Path, str] = {}
    seconds: dict[Path, dict[str, float]] = {}
    for task in tasks or TASKS:
        for stage in (DRAFT_STAGE, *(f"02_{arm}" for arm in arms)):
            if not is_finished(run, stage, task):
                continue
            data = read_stage(run, stage, task, DraftRecord if stage == DRAFT_STAGE else AgentRecord)
            samples = _samples(data, task, data_root)
            config = data.manifest.config | _checked(models or {})
            name, thyme = _name(config, stage, task), _is_thyme(config)
            place = (
                f"{'thyme' if thyme else 'deepeyes'}/{FOLDERS.get(name.arm, FOLDER)}"
                if name.large
                else name.small
            )
            path = folder / f"eval_results_{place}" / f"{name.stem}.jsonl"
            if path in written:
                arms_of_name = f"{stage} and {written[path]} of {task}"
                raise ConfigError(f"{arms_of_name} have one file name, {path.name}; export one at a time")
            written[path] = stage
            lines = _eval_lines(data, samples, "messages" if thyme else "print_messages")
            _write(path, *(json.dumps(line, allow_nan=False) for line in lines))
            if (total := data.manifest.timing.get("wall_s")) is not None:
                seconds.setdefault(path.parent / LATENCY, {})[path.name] = round(total, 4)
            judged = "collect" if stage == DRAFT_STAGE else stage.removeprefix("02_")
            if is_finished(run, f"03_judging/{judged}", task):
                verdicts = read_stage(run, f"03_judging/{judged}", task, JudgedRecord)
                path = folder / f"judge_results_{place}" / f"{name.stem}{JUDGED}.jsonl"
                _write(path, _indented(_sums(data, lines, verdicts.records, total)))
                written[path] = stage
    if not written:
        stages = ", ".join([DRAFT_STAGE, *arms])
        raise StageError(f"run {run}: none of {stages} is finished; finish the run first")
    for path, by_file in seconds.items():
        _write(path, _indented(dict(sorted(by_file.items()))))
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


def _checked(models: Mapping[str, str]) -> Mapping[str, str]:
    for role, name in models.items():
        if not is_run_name(name) or "_" in name:
            raise ConfigError(
                f"{role}: {name!r} cannot be part of a file name, whose parts are separated by _; give a plain name "
                "without _"
            )
    return models


def _name(config: Mapping[str, Any], stage: str, task: str) -> Name:
    small, large = (_model(config.get(key)) for key in ("draft_model", "agent_model"))
    batch_size = int(config.get("batch_size") or config.get("agent_batch_size") or 1)
    arm = stage.removeprefix("02_").removesuffix("_batched")
    if stage == DRAFT_STAGE:
        return Name(task, None, small, batch_size)
    if arm == "gated":
        k, routes = int(config.get("k", PAPER_K)), config.get("router") == "small"
        return Name(task, large, small, batch_size, config["score"], float(config["threshold"]), k, routes)
    if arm == "specreason":
        return Name(task, large, small, batch_size, arm, config.get("specreason_threshold"))
    return Name(task, large, "baseline", batch_size)


def _model(name: str | None) -> str:
    """The last part of a model's name, without the character that separates the parts of a file name."""
    return Path(name or "unknown").name.replace("_", "-")


def _is_thyme(config: Mapping[str, Any]) -> bool:
    """Whether the agent is Thyme; an imported run has only the agent's name."""
    return "thyme" in str(config.get("agent") or config.get("agent_model") or "").casefold()


# ---------------------------------------------------------------------------------------------- answers


def _eval_lines(data: Answers, samples: Mapping[str, Sample], messages: str) -> list[dict[str, Any]]:
    """The lines of a file of answers, in the order of the records."""
    places = {id_: place for place, id_ in enumerate(samples)}
    return [_eval_line(r, samples[r.id], places[r.id], messages) for r in data.records.values()]


def _eval_line(record: Record, sample: Sample, place: int, messages: str) -> dict[str, Any]:
    failed, result = record.status == "error", result_of(sample, place, record.answer)
    line = {
        "status": "error" if failed else "success",
        "error": record.error.message if failed and record.error else "",
    }
    if isinstance(record, DraftRecord):
        scores = record.scores or {}
        infos = {mode: scores.get(mode, UNKNOWN) for mode in ("log", "min", "mean", "bottom20")}
        return line | {
            "small_answer": record.answer or "",
            "confidence_score_infos": infos,
            "result": result,
        }
    gated = record.run_mode == "gated"
    routed = not gated or record.decision == "routed"
    drafted = gated and record.used == "small" and record.draft
    return line | {
        "small_answer": (drafted.answer or "") if drafted else "",
        "confidence_score": ROUTED if routed else UNKNOWN if record.confidence is None else record.confidence,
        "use_model": record.used,
        "generated_length": _tokens(record) or UNKNOWN,
        "judge_tc": "yes" if routed else "no",
        messages: _messages(sample, record),
        "result": result,
    }


def _tokens(record: AgentRecord) -> int | None:
    """Tokens of the final answer: those of the draft, or of all turns of the agent; None if unknown."""
    if record.used == "small":
        return record.draft.n_tokens if record.draft else None
    if record.trajectory is None:
        return None
    counts = [turn.n_tokens for turn in record.trajectory.turns]
    return record.trajectory.generated_tokens if None in counts or not counts else sum(counts)


def _messages(sample: Sample, record: AgentRecord) -> list[dict[str, Any]]:
    """The conversation that gave the answer. A picture is given by the region of the original that it shows."""
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": [_picture(), {"type": "text", "text": sample.question}]}
    ]
    if record.used == "small":
        return [*messages, {"role": "assistant", "content": record.answer or ""}]
    turns = record.trajectory.turns if record.trajectory else ()
    for turn in turns:
        messages.append({"role": "assistant", "content": turn.text})
        if turn.crop_px is not None:
            messages.append({"role": "user", "content": [_picture(crop_px=list(turn.crop_px))]})
        elif turn.error is not None and turn is not turns[-1]:
            messages.append({"role": "user", "content": turn.error.message})
    return messages


def _picture(**more: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,"}} | more


# ----------------------------------------------------------------------------------------------- judging


def _sums(
    data: Answers, lines: Sequence[Mapping], judged: Mapping[str, JudgedRecord], wall_s: float | None
) -> dict[str, Any]:
    """The content of a judge's file, computed from the lines as the original does it.

    Failed samples are in no sum, and undecided is not right. In a file of drafts the original counts no answer as the
    small model's.
    """
    drafts = data.manifest.stage == DRAFT_STAGE
    source = "draft" if drafts else "final"
    verdicts = {v.id: v.verdict for r in judged.values() for v in r.verdicts if v.source == source}
    kept = [
        (line, judged[id_].kind, verdicts[id_] == "right")
        for id_, line in zip(data.records, lines, strict=True)
        if line["status"] == "success" and id_ in verdicts
    ]
    by_model = {
        who: [(a, right) for a, _, right in kept if a.get("use_model") == who] for who in ("small", "large")
    }
    lengths = {who: [a["generated_length"] for a, _ in answers] for who, answers in by_model.items()}
    rate = sum(map(sum, lengths.values())) / wall_s if wall_s else 0.0
    routers = [a.get("judge_tc") for a, *_ in kept]
    sums = {"all_acc": _mean([right for *_, right in kept], 100)}
    if data.manifest.task.startswith("hr/"):
        kinds = ("single", "cross")
        sums["acc_per_category"] = {k: _mean([right for _, kind, right in kept if kind == k]) for k in kinds}
    sums |= {
        **{f"{who}_acc": _mean([right for _, right in answers], 100) for who, answers in by_model.items()},
        **{f"{who}_tokens": _mean(counts, digits=1) for who, counts in lengths.items()},
        "tokens_per_second": round(rate, 1),
        "all_cnt": len(kept),
        "small_cnt": len(by_model["small"]),
        "small_ratio": len(by_model["small"]) / len(kept) * 100 if kept else 0.0,
        "large_cnt": len(by_model["large"]),
        "yes_cnt": routers.count("yes"),
        "no_cnt": routers.count("no"),
        "error_preds": [
            {"result": a["result"], "spec_reason_info": "", "print_messages": a.get("print_messages", "")}
            for a, _, right in kept
            if not right
        ],
    }
    if drafts:
        scores = [(a["confidence_score_infos"], right) for a, _, right in kept]
        return sums | {
            "conf_infos": {
                mode: _by_verdict((s[mode], right) for s, right in scores) for mode in PAPER_SCORES
            }
        }
    drafted = [score for a, *_ in kept if (score := a["confidence_score"]) > 0]
    accepted = _by_verdict((a["confidence_score"], right) for a, right in by_model["small"])
    deciles = (
        {str(p): round(float(np.percentile(drafted, p)), 4) for p in range(10, 100, 10)} if drafted else {}
    )
    return sums | {"confidence_scores": deciles} | {f"confidence_scores_{k}": v for k, v in accepted.items()}


def _by_verdict(scored: Iterable[tuple[float, bool]]) -> dict[str, list[float]]:
    lists: dict[str, list[float]] = {"wrong": [], "right": []}
    for score, right in scored:
        lists["right" if right else "wrong"].append(score)
    return lists


def _mean(values: Sequence[float], factor: float = 1.0, digits: int | None = None) -> float | None:
    if not values:
        return None
    mean = float(np.mean(values)) * factor
    return mean if digits is None else round(mean, digits)


def _indented(value: Mapping) -> str:
    return json.dumps(value, indent=4, ensure_ascii=False, allow_nan=False)


def _write(path: Path, *texts: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{text}\n" for text in texts), "utf-8")

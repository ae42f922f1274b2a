"""Result files of the original: gated runs, their baselines, drafts alone (`Name`), and a judge's sums (`_acc`).

`latency_summary.json` beside them holds the total seconds of each file. A judge's file has no verdict per sample. It
lists wrong answers, and the confidences of right and of wrong answers. A verdict comes from the original's rules, else
from these lists or the sums where they leave no doubt, else it is `undecided`. The sums are compared with the resulting
verdicts.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..gating.separability import PAPER_SCORES
from ..judging.rules import judge
from ..runs.arms import DRAFT_STAGE
from ..runs.records import AgentRecord, DraftRecord, RouterRecord, VerdictValue
from ..texts import storable
from .common import (
    Finder,
    ImportedStage,
    LineError,
    Problems,
    files_of,
    finite,
    json_lines,
    standard_json,
    task_in,
    text_of,
    trajectory,
    whole,
)
from .speceyes_results import failure_of, sample_of

LATENCY = "latency_summary.json"
JUDGED = "_acc"
ROUTED = -1  # confidence_score of a sample that Phase I sent to the agent
PAPER_K = 64  # a file name without _K= means this


# ------------------------------------------------------------------------------------------- file names


@dataclass(frozen=True)
class Name:
    """The content of a file name.

    {benchmark}_{split}_{large}_{small}_{batch}_{mode}_{threshold}[_K={K}][_PhaseIMs]  a gated run
    {benchmark}_{split}_{large}_baseline_{batch}_None_None                             the agent alone
    {benchmark}_{split}_{small}_{batch}                                                drafts alone; `large` is None
    """

    task: str
    large: str | None
    small: str
    batch_size: int
    mode: str | None = None
    threshold: float | None = None
    k: int = PAPER_K
    small_routes: bool = False

    @property
    def arm(self) -> str:
        """The arm of these answers; "" for drafts alone."""
        if self.large is None:
            return ""
        if self.small == "baseline":
            return "baseline"
        return "specreason" if self.mode == "specreason" else "gated"

    @property
    def setting(self) -> str:
        """The part of the name that follows the task: models, batch size, and the setting of the gate."""
        if self.large is None:
            return f"{self.small}_{self.batch_size}"
        suffix = (f"_K={self.k}" if self.k != PAPER_K else "") + ("_PhaseIMs" if self.small_routes else "")
        return f"{self.large}_{self.small}_{self.batch_size}_{self.mode}_{self.threshold}{suffix}"

    @property
    def stem(self) -> str:
        """The file name without its ending."""
        return f"{self.task.replace('/', '_')}_{self.setting}"

    def config(self) -> dict[str, Any]:
        """The part of the stage config that the name holds."""
        config = {"agent_model": self.large, "batch_size": self.batch_size}
        if self.arm != "baseline":
            config["draft_model"] = self.small
        if self.arm == "gated":
            router = "small" if self.small_routes else "large"
            config |= {"score": self.mode, "threshold": self.threshold, "k": self.k, "router": router}
        return config


_REST = re.compile(
    r"(?P<models>.+?)_(?P<batch>\d+)"
    r"(?:_(?P<mode>[A-Za-z]+\d*)_(?P<threshold>None|\d+(?:\.\d+)?(?:e-?\d+)?)(?P<suffixes>(?:_K=\d+|_PhaseIMs)*))?"
)


def parse_name(stem: str) -> Name:
    """The content of a file name without its ending. Raises LineError for a name that the original does not write."""
    task = task_in(stem)
    fields = _REST.fullmatch(stem.partition(f"{task.split('/')[1]}_")[2]) if task else None
    if fields is None:
        raise LineError(
            "the original does not write this name: expected benchmark_split_large_small_batch_mode_threshold.jsonl, "
            "or benchmark_split_model_batch.jsonl for drafts"
        )
    models, batch_size = fields["models"], int(fields["batch"])
    if fields["mode"] is None:
        return Name(task, None, models, batch_size)
    large, _, small = models.rpartition("_")
    if not large:
        raise LineError(f"expected two models in the file name, found {models!r}")
    mode = None if fields["mode"] == "None" else fields["mode"]
    if small != "baseline" and mode not in (*PAPER_SCORES, "specreason"):
        raise LineError(f"mode {mode!r} in the file name is none of {', '.join(PAPER_SCORES)}")
    text = fields["threshold"]
    threshold = None if text == "None" else int(text) if text.isdecimal() else float(text)  # 7 stays 7
    k = re.search(r"_K=(\d+)", fields["suffixes"])
    routes = "_PhaseIMs" in fields["suffixes"]
    return Name(task, large, small, batch_size, mode, threshold, int(k[1]) if k else PAPER_K, routes)


# ---------------------------------------------------------------------------------------------- reading


def read(paths: Iterable[Path], finder: Finder, problems: Problems) -> dict[str, list[ImportedStage]]:
    """Imported stages by the setting of their gated run ("" where there is none).

    A setting comes with the baseline of the same agent and the drafts of the same small model, where the files hold
    them. Baseline and drafts together make `collect`, the arm on which thresholds are analysed. Its router verdicts
    are those of the gated run.
    """
    evals: dict[Name, ImportedStage] = {}
    judges: dict[Name, Path] = {}
    for path in files_of(paths, ".jsonl"):
        try:
            name = parse_name(path.stem.removesuffix(JUDGED))
        except LineError as error:
            problems.add(path, error)
            continue
        if path.stem.endswith(JUDGED):
            judges[name] = path
        elif name in evals:
            problems.add(path, f"{evals[name].files[0].name} was read before from another folder")
        else:
            evals[name] = _read_eval(path, name, finder, problems)
    for name, path in judges.items():
        if name in evals:
            _apply_judge(path, evals[name], finder, problems)
        else:
            problems.add(path, "holds only sums, and the answers that it judged are not among the files")
    return _by_setting(evals, problems)


def _read_eval(path: Path, name: Name, finder: Finder, problems: Problems) -> ImportedStage:
    stage = f"02_{name.arm}" if name.arm else DRAFT_STAGE
    part = ImportedStage(stage, name.task, protocol="paper", config=name.config(), files=[path])
    part.wall_s = _total_s(path, problems)
    for number, line in json_lines(path, problems):
        with problems.caught(path, number):
            result = line.get("result")
            if not isinstance(result, dict):
                raise LineError("field 'result' is missing, so the sample is not known")
            id_, sample, facts = sample_of(name.task, result, finder)
            record = _agent_record(id_, name, line, result) if name.arm else _draft_record(id_, line, result)
            part.add(record, facts)
            part.by_rule[id_] = judge(sample, record.answer, "paper", record.status == "error")
    finder.report_missing(part, problems)
    return part


def _draft_record(id_: str, line: Mapping, result: Mapping) -> DraftRecord:
    failure = failure_of(line)
    answer = text_of(result.get("pred_ans")) or text_of(line.get("small_answer"))
    by_score = line.get("confidence_score_infos")
    if not isinstance(by_score, Mapping):
        expected = "a file of drafts has four confidences a line"
        raise LineError(f"field 'confidence_score_infos' is missing; {expected}")
    scores = {
        mode: score for mode in PAPER_SCORES if (score := finite(by_score.get(mode)))
    }  # 0: there was none
    return DraftRecord(
        id=id_,
        status="error" if failure else "ok",
        error=failure,
        answer=None if failure else answer,
        n_tokens=whole(line.get("generated_length")),
        scores=scores or None,
        score_reason=None if len(scores) == len(PAPER_SCORES) else "non_finite" if answer else "empty_answer",
        timed=False,
    )


def _agent_record(id_: str, name: Name, line: Mapping, result: Mapping) -> AgentRecord:
    failure = failure_of(line)
    answer = None if failure else text_of(result.get("pred_ans"))
    used = line.get("use_model") or ("large" if name.arm == "baseline" or failure else None)
    if used not in ("small", "large"):
        raise LineError(f"field 'use_model' is {used!r}, expected 'small' or 'large'")
    messages = line.get("print_messages") or line.get("messages")
    length = whole(line.get("generated_length")) or None  # 0: not recorded
    path = trajectory(answer, messages, failure, length) if used == "large" and (answer or messages) else None
    fields = {"status": "error" if failure else "ok", "error": failure, "used": used, "answer": answer}
    fields |= {"id": id_, "run_mode": name.arm, "trajectory": path, "timed": False}
    if name.arm != "gated":
        return AgentRecord(**fields, decision=name.arm)
    score, reply = finite(line.get("confidence_score")), line.get("judge_tc")
    routed = reply == "yes" or (reply is None and score == ROUTED)
    # the original writes the text of an accepted draft only, and a confidence for every draft
    small = None if routed else text_of(line.get("small_answer")) or None
    confidence = None if routed or score in (ROUTED, 0) else score
    draft = None
    if small is not None or used == "small":
        draft = DraftRecord(
            id=id_,
            status="ok",
            answer=small or "",
            n_tokens=length if used == "small" else None,
            scores=None if confidence is None else {name.mode: confidence},
            score_reason="non_finite" if confidence is None else None,
            timed=False,
        )
    rejected = small is not None or confidence is not None
    fallback = "routed" if routed else "rejected" if rejected else "draft_failed"
    return AgentRecord(
        **fields,
        decision="accepted" if used == "small" else fallback,
        router=RouterRecord(verdict=reply, text=reply) if reply in ("yes", "no") else None,
        draft=draft,
        confidence=confidence,
        threshold=name.threshold,
    )


def _total_s(path: Path, problems: Problems) -> float | None:
    """Seconds of the split from the summary beside a file; None without one."""
    summary = path.with_name(LATENCY)
    if not summary.is_file():
        return None
    try:
        seconds = json.loads(summary.read_text("utf-8"))
        return finite(seconds.get(path.name, seconds.get(path.stem)))
    except (ValueError, AttributeError, RecursionError) as error:
        if not any(p.file == summary for p in problems):
            problems.add(summary, f"expected one JSON object of seconds by file name ({error})")
        return None


# --------------------------------------------------------------------------------------------- judging

_LISTS = ("error_preds", "conf_infos", *(f"confidence_scores{end}" for end in ("", "_wrong", "_right")))
Verdicts = dict[str, tuple[VerdictValue, str]]


def _apply_judge(path: Path, part: ImportedStage, finder: Finder, problems: Problems) -> None:
    """Add the verdicts that follow from a judge's file."""
    try:
        sums = storable(json.loads(path.read_text("utf-8")))
        if not isinstance(sums, dict):
            raise ValueError(f"found {type(sums).__name__}")
        judged = standard_json({key: value for key, value in sums.items() if key not in _LISTS})
    except (ValueError, RecursionError) as error:
        problems.add(path, f"expected one JSON object with a judge's sums ({error})")
        return
    part.files.append(path)
    part.judged = judged
    verdicts: Verdicts = dict(part.by_rule)
    _settle_by_errors(verdicts, part.task, sums, finder)
    _settle_by_scores(verdicts, part, sums)
    if contradiction := _settle_by_sums(verdicts, sums):
        problems.add(path, contradiction)
    for id_, (verdict, rule) in verdicts.items():
        record = part.records[id_]
        sources = ["draft"]
        if isinstance(record, AgentRecord):
            answered_by = ["draft"] if record.used == "small" else ["agent"] * bool(record.trajectory)
            sources = ["final", *answered_by]
        part.judge(id_, verdict, rule, *sources)


def _settle_by_errors(verdicts: Verdicts, task: str, sums: Mapping, finder: Finder) -> None:
    """Decide what no rule decided by the list of wrong answers, if it is as long as the sums say."""
    try:
        entries = sums.get("error_preds") or ()
        results = [e["result"] if isinstance(e.get("result"), Mapping) else e for e in entries]
        wrong = {sample_of(task, result, finder)[0] for result in results}
    except (LineError, AttributeError, TypeError):
        return  # not a list of results
    counts = _counts(sums)
    if counts is None or len(wrong) != counts[1] - counts[0]:
        return
    for id_, (verdict, _) in verdicts.items():
        if verdict == "undecided":
            verdicts[id_] = ("wrong" if id_ in wrong else "right", "judge_error_preds")


def _settle_by_scores(verdicts: Verdicts, part: ImportedStage, sums: Mapping) -> None:
    """Decide what no rule decided by the list that holds the confidence. A value in both lists stays undecided."""
    infos = sums.get("conf_infos")
    if isinstance(infos, Mapping):
        by_score = {mode: infos[mode] for mode in PAPER_SCORES if isinstance(infos.get(mode), Mapping)}
        lists = {mode: [_numbers(by.get(w)) for w in ("right", "wrong")] for mode, by in by_score.items()}
    else:
        lists = {"": [_numbers(sums.get(f"confidence_scores_{w}")) for w in ("right", "wrong")]}
    for mode, (right, wrong) in lists.items():
        for id_, (verdict, _) in verdicts.items():
            record = part.records[id_]
            score = record.confidence if isinstance(record, AgentRecord) else (record.scores or {}).get(mode)
            if verdict == "undecided" and (score in right) != (score in wrong):
                verdicts[id_] = ("right" if score in right else "wrong", "judge_by_confidence")


def _numbers(values: Any) -> set[float]:
    """The finite numbers of a list; empty where it is not a list."""
    return {n for v in values if (n := finite(v)) is not None} if isinstance(values, list) else set()


def _counts(sums: Mapping) -> tuple[int, int] | None:
    """(right, judged) by a judge's sums; None where they hold no possible numbers."""
    accuracy, count = finite(sums.get("all_acc")), whole(sums.get("all_cnt"))
    if accuracy is None or count is None or not 0 <= accuracy <= 100:
        return None
    return round(accuracy * count / 100), count


def _settle_by_sums(verdicts: Verdicts, sums: Mapping) -> str:
    """Decide the rest where all of it must be right, or all wrong; returns how the verdicts differ from the sums."""
    counts = _counts(sums)
    if counts is None:
        return "all_acc or all_cnt is missing or not a number; the verdicts cannot be checked against them"
    right, count = counts
    by_verdict = Counter(verdict for verdict, _ in verdicts.values())
    n = by_verdict.total() - by_verdict["error"]
    if n != count:
        return f"all_cnt is {count}, but {n} answers did not fail; the sums belong to other answers"
    missing = right - by_verdict["right"]
    undecided = [id_ for id_, (verdict, _) in verdicts.items() if verdict == "undecided"]
    if undecided and missing in (0, len(undecided)):
        verdicts |= dict.fromkeys(undecided, ("right" if missing else "wrong", "judge_by_sum"))
    elif undecided and 0 < missing < len(undecided):
        unknown = f"{missing} of them are right by the sums, which do not name them"
        return f"{len(undecided)} answers stay undecided; {unknown}"
    elif missing:
        n_right, accuracy = by_verdict["right"], finite(sums["all_acc"])
        return f"all_acc is {accuracy:.2f} %, {right} of {count} right; the verdicts have {n_right}"
    return ""


# ------------------------------------------------------------------------------------------ runs from files


def _by_setting(evals: Mapping[Name, ImportedStage], problems: Problems) -> dict[str, list[ImportedStage]]:
    keys = {(n.large, n.small, n.setting) for n in evals if n.arm == "gated"}
    if not keys:
        agents = {(n.large, None if n.arm == "baseline" else n.small) for n in evals if n.arm}
        drafts = {n.small for n in evals if not n.arm} or {None}
        pairs = {(large, small or draft) for large, small in agents for draft in drafts}
        keys = {(*pair, "_".join(filter(None, pair))) for pair in pairs or {(None, d) for d in drafts}}
    runs = {}
    for large, small, setting in sorted(keys, key=str):
        stages: dict[tuple[str, str], ImportedStage] = {}
        for name, part in evals.items():
            fits = {
                "gated": name.setting == setting,
                "baseline": name.large == large,
                "specreason": (name.large, name.small) == (large, small),
                "": name.small == small,
            }[name.arm]
            if fits and (part.stage, part.task) in stages:
                taken = stages[part.stage, part.task].files[0].name
                problems.add(part.files[0], f"left out, because {taken} holds the same arm")
            elif fits:
                stages[part.stage, part.task] = part
        runs[setting] = [*stages.values(), *_collected(stages, problems)]
    return runs if len(runs) != 1 else {"": next(iter(runs.values()))}


def _collected(parts: Mapping[tuple[str, str], ImportedStage], problems: Problems) -> list[ImportedStage]:
    """`collect` for every task that has drafts and a baseline: the samples that are in both."""
    collected = []
    for (stage, task), drafts in parts.items():
        baseline = parts.get(("02_baseline", task))
        if stage != DRAFT_STAGE or baseline is None:
            continue
        gated = parts.get(("02_gated", task))
        both = ImportedStage("02_collect", task, protocol="paper", config=drafts.config | baseline.config)
        both.files = [*drafts.files, *baseline.files, *(gated.files if gated else ())]
        for id_, agent in baseline.records.items():
            if id_ not in drafts.records:
                continue
            gated_record = gated.records.get(id_) if gated else None
            update = {"run_mode": "collect", "decision": "collected", "draft": drafts.records[id_]}
            update |= {"router": gated_record.router if gated_record else None}
            both.add(agent.model_copy(update=update), baseline.facts[id_])
        if missing := len(baseline.records.keys() ^ drafts.records.keys()):
            problems.add(drafts.files[0], f"{missing} samples are missing in the drafts or in the baseline")
        if drafts.verdicts and baseline.verdicts:
            for part in (baseline, drafts):
                for source, verdicts in part.verdicts.items():
                    both.verdicts[source] = {i: v for i, v in verdicts.items() if i in both.records}
        collected.append(both)
    return collected

"""Result files of Speculative Tool Calling: one JSON file per task, read into runs and written from them.

A file `result_level{L}_{example}_{spec|baseline}.json` holds less than a run of this suite, and some of its times mean
something else than their names say. What an imported run therefore lacks is in its `settings`:

- `actor_bounded`: steps whose actor time is only known to be at most what is recorded. The original's `llm_time` ends
  when actor, speculator and the guessed tool have all ended.
- `untimed_calls`: calls of steps with several; only the last one has a time.
- `reported`: the file's own counts and verdict.

Results of guesses are not in the files, so false hits cannot be seen.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from ..errors import UserError
from ..judging.gaia import original_right
from ..paths import is_run_name, shown
from ..texts import storable
from ..tool_speculation.matching import STRATEGIES
from ..tool_speculation.records import Guess, MadeCall, Step, TaskRun
from .common import LineError, Problems, field_of, files_of, finite, text_of, whole

NAME = re.compile(r"result_level(\d+)_(.+)_(spec|baseline)\.json")
SLACK_S = 0.05  # between what a step waits for and its recorded end
LONG_TOKENS = 4000


@dataclass(frozen=True)
class OriginalResult:
    """A result file, its fields as the original names them, and what its name says."""

    task_id: str
    level: str
    question: str
    ground_truth: str
    predicted: str | None
    correct: bool
    steps: int
    time_seconds: float
    actor_model: str
    spec_model: str | None
    speculation_enabled: bool
    verification_strategy: str | None
    spec_hits: int
    spec_misses: int
    spec_predictions: int
    trajectory: list[dict[str, Any]]
    messages: list[dict[str, Any]]
    error: str | None
    example: str = field(default="", compare=False)

    @property
    def arm(self) -> str:
        """The arm's name in files: spec or baseline."""
        return "spec" if self.speculation_enabled else "baseline"

    @property
    def file_name(self) -> str:
        """The file's name in the original."""
        return f"result_level{self.level}_{self.example}_{self.arm}.json"


FIELDS = tuple(name for name in OriginalResult.__dataclass_fields__ if name != "example")


# ------------------------------------------------------------------ reading


def read_tool_results(paths: Iterable[Path]) -> tuple[list[OriginalResult], Problems]:
    """The results of files and folders, sorted by level and task, and what could not be read.

    A folder may hold a task twice in one arm; the last file by name counts then, as in the original's tables.

    Raises:
        DataError: a path does not exist, or holds no such file.
    """
    problems = Problems()
    results: dict[tuple[str, str], tuple[Path, OriginalResult]] = {}
    for path in files_of(paths, ".json"):
        if not NAME.fullmatch(path.name):
            continue  # a summary or settings beside the results
        try:
            result = _read(path)
        except Exception as error:  # a file may hold anything; the others are read
            problems.add(path, error)
            continue
        key = (result.task_id, result.arm)
        if key in results:
            other = results[key][0].name
            problems.add(path, f"task {result.task_id} is also in {other}; {path.name} counts")
        results[key] = (path, result)
    if not results and not problems:
        problems.add(Path(next(iter(paths))), "no file is named result_level1_example_000_spec.json or alike")
    return sorted((r for _, r in results.values()), key=lambda r: (r.level, r.task_id, r.arm)), problems


def _read(path: Path) -> OriginalResult:
    name = NAME.fullmatch(path.name)
    content = storable(json.loads(path.read_text("utf-8-sig")))
    if not isinstance(content, dict):
        raise LineError(f"expected a JSON object, found {type(content).__name__}")
    for key in ("task_id", "time_seconds", "trajectory"):
        if key not in content:
            raise LineError(f"field {key!r} is missing; the file is of another version or was cut off")
    seconds, level = finite(content["time_seconds"]), whole(content.get("level", name[1]))
    if seconds is None or seconds < 0:
        raise LineError(f"field 'time_seconds' is {content['time_seconds']!r}, expected seconds")
    if level is None:
        raise LineError(f"field 'level' is {content['level']!r}, expected 1, 2 or 3")
    for key in ("trajectory", "messages"):
        if not isinstance(content.get(key, []), list):
            raise LineError(f"field {key!r} is {type(content[key]).__name__}, expected a list")
    speculative = content.get("speculation_enabled")
    return OriginalResult(
        task_id=str(field_of(content, "task_id")),
        level=str(level),
        question=text_of(content.get("question")) or "",
        ground_truth=text_of(content.get("ground_truth")) or "",
        predicted=text_of(content.get("predicted")),
        correct=content.get("correct") is True,
        steps=whole(content.get("steps")) or 0,
        time_seconds=seconds,
        actor_model=text_of(content.get("actor_model")) or "",
        spec_model=text_of(content.get("spec_model")),
        speculation_enabled=speculative if isinstance(speculative, bool) else name[3] == "spec",
        verification_strategy=text_of(content.get("verification_strategy")),
        spec_hits=whole(content.get("spec_hits")) or 0,
        spec_misses=whole(content.get("spec_misses")) or 0,
        spec_predictions=whole(content.get("spec_predictions")) or 0,
        trajectory=[event for event in content["trajectory"] if isinstance(event, dict)],
        messages=[message for message in content.get("messages", []) if isinstance(message, dict)],
        error=text_of(content.get("error")),
        example=name[2],
    )


def tool_run_of(result: OriginalResult) -> TaskRun:
    """A result as the run of a task, for replay and analysis."""
    reader = _Trajectory(result)
    reported = {key: getattr(result, key) for key in FIELDS if key.startswith(("spec_", "correct", "steps"))}
    return TaskRun(
        task_id=result.task_id,
        level=int(result.level),
        question=result.question,
        truth=result.ground_truth,
        arm=result.arm,
        settings={
            "policy": "original" if result.speculation_enabled else "off",
            "strategy": result.verification_strategy,
            "imported_from": "spec_tool_call",
            "actor_bounded": reader.actor_bounded,
            "untimed_calls": reader.untimed_calls,
            "reported": reported,
        },
        answer=result.predicted,
        error=result.error,
        seconds=result.time_seconds,
        steps=reader.steps,
        messages=result.messages,
        models={"actor": result.actor_model, "speculator": result.spec_model},
    )


class _Trajectory:
    """The steps of a result's events. Event times are those of their ends; their sum may exceed the whole."""

    def __init__(self, result: OriginalResult) -> None:
        self.steps: list[Step] = []
        self.actor_bounded = self.untimed_calls = 0
        self.strategy = STRATEGIES.get(result.verification_strategy or "", STRATEGIES["exact"])
        self.clock = 0.0
        for event in result.trajectory:
            if event.get("node") == "llm":
                self._llm(event)
            elif event.get("node") == "tools" and self.steps:
                self._tools(event)

    def _llm(self, event: Mapping[str, Any]) -> None:
        took = max(0.0, finite(event.get("llm_time")) or 0.0)
        end = max(self.clock, finite(event.get("timestamp")) or self.clock + took)
        start = max(self.clock, end - took)
        guesses = [self._guess(p, i, start) for i, p in enumerate(_objects(event.get("spec_predictions")))]
        waited = max((g.tool_end_s or g.end_s for g in guesses), default=start)
        self.actor_bounded += bool(guesses) and end <= waited + SLACK_S
        calls = [
            MadeCall(**_call(c), start_s=end, end_s=end, error="it was not carried out")
            for c in _objects(event.get("actor_tool_calls"))
        ]
        self.clock = end
        self.steps.append(
            Step(
                index=len(self.steps) + 1,
                actor_start_s=start,
                actor_end_s=end,
                text=text_of(event.get("actor_reasoning")) or text_of(event.get("final_answer")) or "",
                calls=calls,
                guesses=guesses,
            )
        )

    def _guess(self, prediction: Mapping[str, Any], rank: int, start: float) -> Guess:
        decoded = start + max(0.0, finite(prediction.get("spec_inference_time")) or 0.0)
        took = max(0.0, finite(prediction.get("exec_time")) or 0.0)
        times: dict[str, Any] = {"result_error": "it failed, or there is no such tool", "outcome": "failed"}
        if prediction.get("pre_executed") is True:
            times = {"tool_start_s": decoded, "tool_end_s": decoded + took, "tool_s": took}
        return Guess(**_call(prediction), rank=rank, start_s=start, end_s=decoded, **times)

    def _tools(self, event: Mapping[str, Any]) -> None:
        """The event holds the time and result of the step's last call alone."""
        step = self.steps[-1]
        took = max(0.0, finite(event.get("tool_time")) or 0.0)
        end = max(self.clock, finite(event.get("timestamp")) or self.clock)
        executed = event.get("tool_executed") if isinstance(event.get("tool_executed"), dict) else {}
        self.untimed_calls += max(0, len(step.calls) - 1)
        for place, call in enumerate(step.calls):
            last = place == len(step.calls) - 1
            call.error, call.end_s = None, end
            call.start_s = self.clock if place == 0 else end
            fitting = [
                (score, -i)
                for i, guess in enumerate(step.guesses)
                if guess.tool_s is not None and (score := self.strategy.match(guess, call)) is not None
            ]
            if last:
                call.tool_s, call.result = took, text_of(executed.get("result")) or ""
            if fitting:
                call.source, call.guess = "used", -max(fitting)[1]
                step.guesses[call.guess].outcome = "used"
        self.clock = end


def _objects(value: Any) -> list[dict]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _call(call: Mapping[str, Any]) -> dict[str, Any]:
    """Name and arguments of a call. The original knows no schema, so texts are stripped and nothing is filled in."""
    arguments = call.get("args") if isinstance(call.get("args"), dict) else {}
    name = text_of(call.get("name")) or ""
    plain = {
        key: value.strip() if isinstance(value, str) else _by_value(value) for key, value in arguments.items()
    }
    canonical = f"{name} {json.dumps(plain, sort_keys=True, ensure_ascii=False)}"
    return {"name": name, "arguments": arguments, "given": arguments, "canonical": canonical}


def _by_value(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


# ------------------------------------------------------------------ writing


def result_of_tool_run(run: TaskRun, example: str) -> OriginalResult:
    """A run as the original would have recorded it.

    `llm_time` is the actor's time. A step with several calls keeps the time and result of its last one.
    """
    speculative = run.settings.get("policy", "off") not in ("off", "shadow")
    trajectory: list[dict[str, Any]] = [{"node": "start", "question": run.question, "timestamp": 0}]
    for step in run.steps:
        llm: dict[str, Any] = {"node": "llm", "timestamp": step.actor_end_s, "step": step.index}
        llm |= {
            "actor_model": run.models.get("actor") or "",
            "llm_time": step.actor_end_s - step.actor_start_s,
        }
        if step.calls:
            llm["actor_reasoning"] = step.text
            llm["actor_tool_calls"] = [{"name": c.name, "args": c.given or c.arguments} for c in step.calls]
        if speculative:
            llm["spec_model"] = run.models.get("speculator") or ""
            llm["spec_predictions"] = [_prediction(guess) for guess in step.guesses]
        if not step.calls:
            llm["final_answer"] = step.text
        trajectory.append(llm)
        if step.calls:
            last = step.calls[-1]
            tools = {"node": "tools", "timestamp": last.end_s, "tool_time": last.tool_s}
            trajectory.append(tools | {"tool_executed": {"name": last.name, "result": last.result}})
    calls = [call for step in run.steps for call in step.calls]
    guesses = [guess for step in run.steps for guess in step.guesses]
    hits = sum(call.source != "executed" for call in calls)
    launched = sum(guess.tool_end_s is not None and guess.result_error is None for guess in guesses)
    return OriginalResult(
        task_id=run.task_id,
        level=str(run.level),
        question=run.question,
        ground_truth=run.truth,
        predicted=run.answer,
        correct=original_right(run.truth, run.answer),
        steps=len(run.steps),
        time_seconds=run.seconds,
        actor_model=run.models.get("actor") or "",
        spec_model=run.models.get("speculator") if speculative else None,
        speculation_enabled=speculative,
        verification_strategy=run.settings.get("strategy") if speculative else None,
        spec_hits=hits if speculative else 0,
        spec_misses=len(calls) - hits if speculative else 0,
        spec_predictions=launched if speculative else 0,
        trajectory=trajectory,
        messages=run.messages,
        error=run.error,
        example=example,
    )


def _prediction(guess: Guess) -> dict[str, Any]:
    executed = guess.tool_end_s is not None and guess.result_error is None
    return {
        "name": guess.name,
        "args": guess.given or guess.arguments,
        "pre_executed": executed,
        "exec_time": guess.tool_s or 0.0,
        "spec_inference_time": guess.end_s - guess.start_s,
    }


def write_tool_results(
    runs: Iterable[TaskRun], folder: Path, examples: Mapping[str, str] | None = None
) -> list[Path]:
    """Write runs as result files of the original; returns the files.

    Args:
        runs: of one arm.
        folder: made if it does not exist.
        examples: task_id -> name of the example ("example_000"); None: the task_id.

    Raises:
        UserError: an example has a name that no file can have, or two tasks have the same file.
    """
    written: list[Path] = []
    for run in runs:
        example = (examples or {}).get(run.task_id, run.task_id)
        if not is_run_name(example):
            raise UserError(
                f"task {run.task_id!r}: {example!r} cannot be part of a file's name; give examples"
            )
        result = result_of_tool_run(run, example)
        path = folder / result.file_name
        if path in written:
            raise UserError(f"{shown(path)}: two tasks would have this file; give their examples other names")
        folder.mkdir(parents=True, exist_ok=True)
        content = {key: value for key, value in asdict(result).items() if key != "example"}
        path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8")
        written.append(path)
    return written


# ------------------------------------------------------------------ the original's own tables


def original_pairs(
    speculative: Iterable[OriginalResult], baseline: Iterable[OriginalResult], only_faster: bool = False
) -> pd.DataFrame:
    """The tasks that are in both sets, compared as the original's script does: with the files' own numbers.

    Args:
        speculative: results of one folder.
        baseline: results of the other.
        only_faster: only the tasks that the speculative run did faster, as an option of the script has it. What is
            chosen by its result proves nothing.

    Returns:
        Index: task_id. Columns: level, and for both arms (`_spec`, `_baseline`) correct, seconds, steps; hits, misses,
        predictions.
    """
    by_id = {result.task_id: result for result in baseline}
    rows = {}
    for spec in speculative:
        base = by_id.get(spec.task_id)
        if base is None or (only_faster and spec.time_seconds >= base.time_seconds):
            continue
        rows[spec.task_id] = (
            *(spec.level, spec.correct, base.correct, spec.time_seconds, base.time_seconds),
            *(spec.steps, base.steps, spec.spec_hits, spec.spec_misses, spec.spec_predictions),
        )
    columns = ["level", "correct_spec", "correct_baseline", "seconds_spec", "seconds_baseline", "steps_spec"]
    columns += ["steps_baseline", "hits", "misses", "predictions"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("task_id")


def original_summary(pairs: pd.DataFrame) -> pd.DataFrame:
    """The table that the original's script prints of `original_pairs`, without its verdict.

    Index: arm ("spec", "baseline"). Columns: tasks, correct, accuracy_pct, mean_s, mean_steps; hits and hit_pct of hits
    and misses, both missing for the baseline.
    """
    rows = {}
    for arm in ("spec", "baseline"):
        spec, checked = arm == "spec", int(pairs["hits"].sum() + pairs["misses"].sum())
        rows[arm] = {
            "tasks": len(pairs),
            "correct": int(pairs[f"correct_{arm}"].sum()),
            "accuracy_pct": 100.0 * pairs[f"correct_{arm}"].astype(float).mean(),
            "mean_s": pairs[f"seconds_{arm}"].mean(),
            "mean_steps": pairs[f"steps_{arm}"].mean(),
            "hits": int(pairs["hits"].sum()) if spec else None,
            "hit_pct": 100.0 * int(pairs["hits"].sum()) / checked if spec and checked else None,
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("arm")


def long_episodes(
    results: Iterable[OriginalResult],
    least_tokens: int = LONG_TOKENS,
    count: Callable[[str], int] = lambda text: len(text) // 4,
) -> list[dict[str, Any]]:
    """Long trajectories in the form that the original's converter gives them.

    Args:
        results: of any arm.
        least_tokens: shorter ones are left out.
        count: tokens of a text; four characters are one where no tokenizer is given.
    """
    episodes = []
    for result in results:
        turns = []
        for step in tool_run_of(result).steps:
            action = "; ".join(f"{c.name}({json.dumps(c.arguments, ensure_ascii=False)})" for c in step.calls)
            observation = step.calls[-1].result if step.calls else ""
            turns.append(
                {
                    "turn_idx": len(turns),
                    "action": action,
                    "explanation": step.text,
                    "observation": observation,
                }
            )
        total = sum(count(turn[key]) for turn in turns for key in ("action", "explanation", "observation"))
        if total > least_tokens:
            episodes.append(
                {
                    "episode_id": f"{result.task_id}_{result.arm}",
                    "task": result.question,
                    "file": result.file_name,
                    "success": result.correct,
                    "num_turns": len(turns),
                    "total_tokens": total,
                    "trajectory": turns,
                    "source": "spec_tool_call",
                }
            )
    return episodes

"""What the console shows of tasks with tools: a header, each step, and the end."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..errors import printable
from ..judging.gaia import is_right
from ..tool_speculation.episode import Assignment
from ..tool_speculation.records import Guess, MadeCall, Step, TaskRun

PREVIEW_CHARS = 200


def header_lines(task: Assignment, models: dict[str, str | None], arm: str, max_steps: int) -> list[str]:
    """The task, its right answer, the models and the limit."""
    return [
        f"task        {task.task_id} (level {task.level})",
        f"question    {_short(task.question, 600)}",
        f"truth       {task.truth}",
        f"actor       {models['actor']}",
        f"speculator  {models['speculator'] or 'none'}",
        f"arm         {arm}, at most {max_steps} steps",
    ]


def step_lines(step: Step) -> list[str]:
    """The times of a step, what the actor thought, guesses, calls, where results came from, and what was saved."""
    lines = [
        "",
        f"step {step.index}: actor {step.actor_end_s - step.actor_start_s:.2f} s, {step.actor_tokens} tokens"
        + (f"; speculator {step.speculator_s:.2f} s" if step.speculator_s is not None else ""),
    ]
    if step.text:
        lines.append(f"  thought   {_short(step.text)}")
    if step.speculator_error:
        lines.append(f"  speculator failed: {_short(step.speculator_error)}")
    lines += [_guess_line(guess) for guess in step.guesses]
    for call in step.calls:
        lines += _call_lines(call)
    return lines


def end_lines(run: TaskRun) -> list[str]:
    """Answer, truth, right or wrong by both protocols, and the sums of the run."""
    calls = [call for step in run.steps for call in step.calls]
    guesses = [guess for step in run.steps for guess in step.guesses]
    executed = [g for g in guesses if g.tool_start_s is not None]
    hits = [call for call in calls if call.source != "executed"]
    actor_s = sum(s.actor_end_s - s.actor_start_s for s in run.steps)
    tool_s = sum(call.tool_s for call in calls)
    speculator_s = sum(s.speculator_s or 0.0 for s in run.steps)
    lines = [
        "",
        f"predicted   {_short(run.answer) if run.answer is not None else 'none'}",
        f"truth       {run.truth}",
        f"result      {verdict(run)} (as the original scores: {_word(run, 'original')})",
        f"time        {run.seconds:.2f} s in {len(run.steps)} steps",
        f"in it       actor {actor_s:.2f} s, speculator {speculator_s:.2f} s, tools {tool_s:.2f} s",
        f"guesses     {len(guesses)} made, {len(executed)} executed, {len(hits)} of {len(calls)} calls served"
        + (f" ({len(hits) / len(calls):.0%})" if calls else ""),
        f"saved       {saved_seconds(run):.2f} s of tools",
    ]
    return lines + ([f"error       {_short(run.error, 600)}"] if run.error else [])


def batch_line(number: int, total: int, run: TaskRun, example: str, earlier: bool) -> str:
    """One line for a task of a batch."""
    note = " (done before)" if earlier else ""
    error = f", {_short(run.error)}" if run.error else ""
    return (
        f"[{number}/{total}] {printable(example)} {run.arm}: {verdict(run)}, {run.seconds:.2f} s{note}{error}"
    )


def batch_lines(runs: Sequence[TaskRun]) -> list[str]:
    """Accuracy and time per arm."""
    lines = []
    for arm in dict.fromkeys(run.arm for run in runs):
        rows = [run for run in runs if run.arm == arm]
        known = [r for r in map(_right, rows) if r is not None]
        seconds = sum(run.seconds for run in rows)
        accuracy = f"{sum(known)} of {len(known)} right" if known else "right answers are withheld"
        lines.append(f"{arm}: {accuracy}, {seconds / len(rows):.2f} s per task, {seconds:.2f} s in total")
    return lines


def verdict(run: TaskRun) -> str:
    """Right, wrong or unknown, by the official protocol."""
    return _word(run, "official")


def saved_seconds(run: TaskRun) -> float:
    """Seconds of tools that the actor did not have to wait for."""
    calls = [call for step in run.steps for call in step.calls if call.source != "executed"]
    return sum(max(0.0, call.tool_s - (call.end_s - call.start_s)) for call in calls)


def _right(run: TaskRun, protocol: str = "official") -> bool | None:
    return is_right(run.truth, run.answer, protocol)


def _word(run: TaskRun, protocol: str) -> str:
    return {True: "right", False: "wrong", None: "unknown"}[_right(run, protocol)]


def _guess_line(guess: Guess) -> str:
    kind = ["", f" (fork {guess.rank})"][guess.rank > 0] + (f" ({guess.ahead} ahead)" if guess.ahead else "")
    score = guess.scores.get("separability_min")
    sure = f", separability {score:.2f}" if isinstance(score, float) else ""
    why = (
        f": {_short(guess.refused or guess.result_error or '')}"
        if guess.refused or guess.result_error
        else ""
    )
    took = f", tool {guess.tool_s:.2f} s" if guess.tool_s is not None else ""
    decoded = f"after {guess.end_s - guess.start_s:.2f} s"
    return f"  guess     {_call(guess)}{kind} {decoded}{sure}{took}: {guess.outcome}{why}"


def _call_lines(call: MadeCall) -> Iterable[str]:
    waited = call.end_s - call.start_s
    saved = f", {max(0.0, call.tool_s - waited):.2f} s saved" if call.source != "executed" else ""
    yield f"  call      {_call(call)}"
    yield f"  {call.source:9} in {waited:.2f} s (the tool took {call.tool_s:.2f} s){saved}"
    yield f"  result    {_short(call.result)}"


def _call(call: Guess | MadeCall) -> str:
    arguments = ", ".join(f"{name}={value!r}" for name, value in (call.given or call.arguments).items())
    return _short(f"{call.name or '(no call)'}({arguments})")


def _short(text: str, most: int = PREVIEW_CHARS) -> str:
    text = printable(" ".join(text.split()))
    return text if len(text) <= most else text[: most - 1] + "…"

"""The steps of recorded tool runs as arrays, which `replay/tool_speculation.py` replays.

Rows are steps, in the order of their tasks. Calls and guesses of a step are padded to the longest. All times are in
seconds and count from the step's start.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError
from ..tool_speculation.matching import STRATEGIES
from ..tool_speculation.records import TaskRun
from ..tools.waits import Waits

RECORDED = "recorded"  # name of the latencies that the run had
SHORTEST_S = 1e-6  # by which a cancelled guess would have run longer at least
# (name of the tool, canonical call, recorded seconds) -> seconds
Latency = Callable[[str, str, float], float]


@dataclass(frozen=True, eq=False)
class ToolSteps:
    """n steps of T tasks, with at most M calls and K guesses each.

    Attributes:
        task_ids: of the tasks [T].
        task: index of the step's task [n], ascending.
        index: number of the step in its task [n], ascending from 1.
        rest_s: seconds of a task outside its steps [T].
        actor_s: until the actor had finished [n].
        actor_tokens: that it decoded [n].
        n_calls: [n].
        made_s: when the call was made, inf where there is none [n, M].
        names, canonicals: of the calls, "" where there is none [n, M].
        guess_s: when the guess was decoded, inf where there is none [n, K].
        guess_names, guess_canonicals: [n, K].
        rank, ahead: as in `records.Guess` [n, K].
        tokens: decoded for the guess [n, K].
        allowed: may be executed: it was not refused [n, K].
        failed: the tool reported an error for the guess, which is then never served [n, K].
        estimated: the guess was not executed to its end, so its seconds are those of an equal call, or else the median
            of its tool, but no less than it ran [n, K].
        silent_s: when the speculator had ended, for steps without a guess [n].
        scores: name -> float64 [n, K], nan where there is none.
        latencies: name -> (seconds of the calls [n, M], seconds of the guesses [n, K]).
        alike: name of a strategy -> how well a guess fits a call, float32 in [0, 1] [n, M, K].
    """

    task_ids: tuple[str, ...]
    task: NDArray[np.int64]
    index: NDArray[np.int64]
    rest_s: NDArray[np.float64]
    actor_s: NDArray[np.float64]
    actor_tokens: NDArray[np.int64]
    n_calls: NDArray[np.int64]
    made_s: NDArray[np.float64]
    names: NDArray
    canonicals: NDArray
    guess_s: NDArray[np.float64]
    guess_names: NDArray
    guess_canonicals: NDArray
    rank: NDArray[np.int64]
    ahead: NDArray[np.int64]
    tokens: NDArray[np.int64]
    allowed: NDArray[np.bool_]
    failed: NDArray[np.bool_]
    estimated: NDArray[np.bool_]
    silent_s: NDArray[np.float64]
    scores: dict[str, NDArray[np.float64]]
    latencies: dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]
    alike: dict[str, NDArray[np.float32]]

    def __len__(self) -> int:
        return len(self.task)

    @cached_property
    def has_call(self) -> NDArray[np.bool_]:
        """Where there is a call [n, M]."""
        return np.asfortranarray(np.arange(self.made_s.shape[1]) < self.n_calls[:, None])

    @cached_property
    def has_guess(self) -> NDArray[np.bool_]:
        """Where there is a guess [n, K]."""
        return np.isfinite(self.guess_s)

    @cached_property
    def finite_guess_s(self) -> NDArray[np.float64]:
        """`guess_s` with 0 where there is no guess [n, K]."""
        return np.where(self.has_guess, self.guess_s, 0.0)

    @cached_property
    def first_guess(self) -> NDArray[np.bool_]:
        """The first call of the speculator's own turn in each step [n, K]."""
        own = self.has_guess & (self.rank == 0) & (self.ahead == 0)
        return own & (np.cumsum(own, axis=1) == 1)

    @cached_property
    def repeated(self) -> list[tuple[int, int, NDArray[np.bool_]]]:
        """Places of two guesses, and the steps in which they are the same call for the same step [n]."""
        codes, pairs = self.codes[1], []
        for second in range(1, codes.shape[1]):
            for first in range(second):
                equal = (codes[:, first] == codes[:, second]) & (
                    self.ahead[:, first] == self.ahead[:, second]
                )
                equal &= self.guess_canonicals[:, first] != ""
                if equal.any():
                    pairs.append((first, second, equal))
        return pairs

    @cached_property
    def keys(self) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
        """Numbers of (task, canonical call) for calls [n, M] and guesses [n, K], -1 where there is none; how many."""
        calls, guesses = self.codes
        n_codes = int(max(calls.max(initial=0), guesses.max(initial=0))) + 1
        both = [self.task[:, None] * n_codes + codes for codes in (calls, guesses)]
        names, code = np.unique(np.concatenate([keys.ravel() for keys in both]), return_inverse=True)
        call_key, guess_key = (
            code[: calls.size].reshape(calls.shape),
            code[calls.size :].reshape(guesses.shape),
        )
        call_key = np.where(self.canonicals != "", call_key, -1)
        return call_key, np.where(self.guess_canonicals != "", guess_key, -1), len(names)

    @cached_property
    def codes(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The canonical calls and guesses as numbers, equal for equal texts: [n, M] and [n, K]."""
        texts = np.concatenate([self.canonicals.ravel(), self.guess_canonicals.ravel()])
        _, code = np.unique(texts.astype(str), return_inverse=True)
        return (
            np.asfortranarray(code[: self.canonicals.size].reshape(self.canonicals.shape)),
            np.asfortranarray(code[self.canonicals.size :].reshape(self.guess_canonicals.shape)),
        )

    def per_task(self, values: NDArray) -> NDArray[np.float64]:
        """Sums of the steps' values [n] in each task [T]."""
        return np.bincount(self.task, values, len(self.task_ids))

    def with_score(self, name: str, values: NDArray[np.float64]) -> ToolSteps:
        """The same steps with one more score of the guesses [n, K], for instance an expected value."""
        if values.shape != self.guess_s.shape:
            raise UserError(f"score {name!r} has the shape {values.shape}, expected {self.guess_s.shape}.")
        return replace(self, scores=self.scores | {name: values})


def flatten_runs(runs: Sequence[TaskRun], latencies: Mapping[str, Latency] | None = None) -> ToolSteps:
    """The steps of the recorded runs of one arm, ours or imported.

    A shadow pass is the best source: there every guess was executed to its end.

    Args:
        runs: one per task; those without a step are kept as tasks without steps.
        latencies: name -> function that gives another tool time. The name "recorded" is always there.

    Raises:
        UserError: there is no run, or a task occurs twice.
    """
    if not runs:
        raise UserError("There is no recorded run; give those of a file, as read_runs returns them.")
    ids = [run.task_id for run in runs]
    if len(set(ids)) < len(ids):
        twice = next(task for task in ids if ids.count(task) > 1)
        raise UserError(f"Task {twice} occurs twice; give the runs of one arm, one per task.")
    steps = [step for run in runs for step in run.steps]
    task = np.repeat(np.arange(len(runs)), [len(run.steps) for run in runs])
    calls, guesses = _padded([step.calls for step in steps]), _padded([step.guesses for step in steps])
    start = np.array([step.actor_start_s for step in steps])
    actor_s = np.array([step.actor_end_s for step in steps]) - start
    end_s = np.array([max([s.actor_end_s, *(call.end_s for call in s.calls)]) for s in steps]) - start
    made_s = _of(calls, lambda call: call.start_s, np.inf) - start[:, None]
    # a call that waited for the one before it was made when the actor had finished
    made_s = np.where(np.isinf(made_s), np.inf, np.minimum(made_s, actor_s[:, None]))
    names, guess_names = _of(calls, lambda c: c.name, ""), _of(guesses, lambda g: g.name, "")
    canonicals, guess_canonicals = (
        _of(calls, lambda c: c.canonical, ""),
        _of(guesses, lambda g: g.canonical, ""),
    )
    refused = _of(guesses, lambda g: g.refused is not None, True)
    call_s = _of(calls, lambda c: c.tool_s, 0.0)
    measured_s = _of(guesses, lambda g: np.nan if g.tool_s is None else g.tool_s, 0.0)
    tool_s = _estimated(names, canonicals, call_s, guess_names, guess_canonicals, measured_s)
    began = (
        _of(guesses, lambda g: np.nan if g.tool_start_s is None else g.tool_start_s, np.nan) - start[:, None]
    )
    unended = np.isnan(measured_s) & ~np.isnan(began)  # it was still running when it was cancelled
    tool_s = np.where(unended, np.fmax(tool_s, actor_s[:, None] - began + SHORTEST_S), tool_s)
    kinds = {
        name for step in steps for guess in step.guesses for name, v in guess.scores.items() if _number(v)
    }
    i, j, g = np.nonzero((names != "")[:, :, None] & (guess_names != "")[:, None, :])
    own_alike = _alike(calls[i, j], guesses[i, g])
    alike = {}
    for strategy, values in own_alike.items():
        alike[strategy] = np.zeros((*names.shape, guess_names.shape[1]), np.float32, "F")
        alike[strategy][i, j, g] = values
    known = {RECORDED: (call_s, tool_s)}
    for name, latency in (latencies or {}).items():
        known[name] = (
            _changed(latency, names, canonicals, call_s),
            _changed(latency, guess_names, guess_canonicals, tool_s),
        )
    return ToolSteps(
        task_ids=tuple(ids),
        task=task,
        index=np.array([step.index for step in steps], np.int64),
        rest_s=_rest_s(runs, np.bincount(task, end_s, len(runs))),
        actor_s=actor_s,
        actor_tokens=np.array([step.actor_tokens for step in steps], np.int64),
        n_calls=np.array([len(step.calls) for step in steps], np.int64),
        made_s=made_s,
        names=names,
        canonicals=canonicals,
        guess_s=_of(guesses, lambda g: g.end_s, np.inf) - start[:, None],
        guess_names=guess_names,
        guess_canonicals=guess_canonicals,
        rank=_of(guesses, lambda g: g.rank, 0),
        ahead=_of(guesses, lambda g: g.ahead, 0),
        tokens=_of(guesses, lambda g: g.tokens, 0),
        allowed=~refused & (guess_canonicals != ""),
        failed=_of(guesses, lambda g: g.result_error is not None, False),
        estimated=np.isnan(measured_s),
        silent_s=np.array([step.speculator_s or 0.0 for step in steps]),
        scores={
            kind: _of(
                guesses,
                lambda g, kind=kind: g.scores[kind] if _number(g.scores.get(kind)) else np.nan,
                np.nan,
            )
            for kind in sorted(kinds)
        },
        latencies=known,
        alike=alike,
    )


def other_waits(recorded: Waits | None, other: Waits | None, tools: Collection[str]) -> Latency:
    """Tool times under another table of waits: each recorded time without its own wait, and with the other one.

    Args:
        recorded: the waits that the run had; None: none.
        other: those to replay, for instance of another profile; None: none.
        tools: names of the tools that wait.
    """

    def latency(name: str, canonical: str, seconds: float) -> float:
        if name not in tools:
            return seconds
        before, after = (waits.seconds(canonical) if waits else 0.0 for waits in (recorded, other))
        return max(0.0, seconds - before) + after

    return latency


def _rest_s(runs: Sequence[TaskRun], steps_s: NDArray[np.float64]) -> NDArray[np.float64]:
    """Seconds outside the steps. A shadow pass and the original wait for guesses there, which is none of this."""
    rest_s = np.maximum([run.seconds for run in runs] - steps_s, 0.0)
    waits = [run.settings.get("policy") in ("shadow", "original") for run in runs]
    before = [run.steps[0].actor_start_s if run.steps else run.seconds for run in runs]
    return np.where(waits, before, rest_s)


def _padded(rows: list[list]) -> NDArray:
    """Lists as rows of objects, None where a row is shorter than the longest [n, at least 1]."""
    table = np.full((len(rows), max([1, *map(len, rows)])), None, object)
    for i, row in enumerate(rows):
        table[i, : len(row)] = row
    return table


def _of(table: NDArray, get: Callable[[Any], Any], missing: Any) -> NDArray:
    """A property of every object of a padded table."""
    kind = object if isinstance(missing, str) else type(missing)
    values = [missing if item is None else get(item) for item in table.ravel()]
    return np.asfortranarray(np.array(values, kind).reshape(table.shape))  # columns are read one by one


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _estimated(
    names: NDArray,
    canonicals: NDArray,
    call_s: NDArray,
    guess_names: NDArray,
    guesses: NDArray,
    measured_s: NDArray,
) -> NDArray[np.float64]:
    """Tool seconds of the guesses: as measured, else those of an equal call, else the median of the tool, else 0."""
    unknown = np.isnan(measured_s)
    if not unknown.any():
        return measured_s
    of_call = dict(zip(canonicals.ravel(), call_s.ravel(), strict=True))
    by_tool = defaultdict(list)
    for name, seconds in zip(names.ravel(), call_s.ravel(), strict=True):
        by_tool[name].append(seconds)
    median = {name: float(np.median(seconds)) for name, seconds in by_tool.items()}
    seconds = measured_s.copy()
    for i, g in np.argwhere(unknown):
        seconds[i, g] = of_call.get(guesses[i, g], median.get(guess_names[i, g], 0.0))
    return seconds


def _changed(latency: Latency, names: NDArray, canonicals: NDArray, seconds: NDArray) -> NDArray[np.float64]:
    changed = seconds.copy()
    for at in np.argwhere(names != ""):
        at = tuple(at)
        changed[at] = latency(names[at], canonicals[at], float(seconds[at]))
    return changed


def _alike(calls: NDArray, guesses: NDArray) -> dict[str, NDArray[np.float32]]:
    """How well each guess fits its call by every strategy [pairs]."""
    pairs = list(zip(guesses, calls, strict=True))
    return {
        name: np.array([strategy.score(guess, call) for guess, call in pairs], np.float32)
        for name, strategy in STRATEGIES.items()
    }

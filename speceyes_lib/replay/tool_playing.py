"""What one setting of tool speculation does at every recorded step, by the rules of `tool_speculation/episode.py`.

Decisions that do not depend on earlier steps are made for all steps at once. With a cache the steps of a task follow
each other: then the first steps of all tasks are done at once, the second ones, and so on. Guesses for later steps
(look-ahead) are left out: each was made from the result of another guess, at the time it had one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, fields
from itertools import product
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError, nearest
from ..tool_speculation.gate import reaches
from ..tool_speculation.matching import JACCARD_THRESHOLD, STRATEGIES
from .tool_steps import RECORDED, ToolSteps

POLICIES = ("concurrent", "original", "off")
NEVER = ("code_exec",)  # tools that are not carried out in advance
SOURCES = ("", "executed", "used", "awaited", "cached")
EXECUTED, USED, AWAITED, CACHED = range(1, 5)


@dataclass(frozen=True)
class ToolSetting:
    """One way to speculate. The first fields are those of `SpeculationSettings`.

    Attributes:
        policy: "concurrent" (the actor never waits for a guess that it does not need), "original" (every step waits
            for the speculator and the tool of its first guess, which serves in this step alone), "off".
        strategy: when a guess stands for a call, one of `matching.STRATEGIES`.
        jaccard_threshold: least fit that a graded strategy takes.
        guesses: per step.
        score: of the gate.
        threshold: a guess is executed where its score reaches it, never without a score. None: every guess is.
        thresholds: of single tools, by name; they go before.
        guess_slots: guesses that are executed at once; 0: any number.
        cache: whether results of guesses are kept for later steps.
        speculator: factor on the seconds of decoding a guess.
        latency: name of the tool times, one of `ToolSteps.latencies`.
        tool_scale: factor on them.
    """

    policy: Literal["concurrent", "original", "off"] = "concurrent"
    strategy: str = "exact"
    jaccard_threshold: float = JACCARD_THRESHOLD
    guesses: int = 1
    score: str = "separability_min"
    threshold: float | None = None
    thresholds: Mapping[str, float] = field(default_factory=dict)
    guess_slots: int = 0
    cache: bool = True
    speculator: float = 1.0
    latency: str = RECORDED
    tool_scale: float = 1.0

    @classmethod
    def of(cls, recorded: Mapping[str, Any], **changes: Any) -> ToolSetting:
        """The setting of a recorded run (`TaskRun.settings`), with some fields changed.

        Raises:
            UserError: the run looked ahead.
        """
        if recorded.get("look_ahead"):
            raise UserError(
                "A run with look_ahead cannot be replayed: its guesses were made from results of guesses."
            )
        return cls(**{name: recorded[name] for name in AXES if name in recorded} | changes)


AXES = tuple(f.name for f in fields(ToolSetting))


def tool_grid(**axes: Any) -> list[ToolSetting]:
    """Every combination of the given values; an axis may have one value or a list of them.

    Raises:
        UserError: an axis that settings do not have.
    """
    for name in axes:
        if name not in AXES:
            raise UserError(
                f"settings have no axis {name!r}{nearest(name, AXES)}; there are {', '.join(AXES)}."
            )
    values = [list(v) if isinstance(v, list | tuple | range | np.ndarray) else [v] for v in axes.values()]
    return [ToolSetting(**dict(zip(axes, row, strict=True))) for row in product(*values)]


@dataclass(frozen=True, eq=False)
class Played:
    """What a setting does, as if every step were reached.

    Attributes:
        duration_s: of the step [n].
        source: where each result came from, an index into SOURCES [n, M].
        served_by: flat index (step * K + place) of the guess that served it, -1 if none did [n, M].
        started: guesses that were executed [n, K].
        served: guesses that were needed [n, K].
        wasted_s: seconds of guesses that were not needed, until they ended or were cancelled [n, K].
        waited_s: seconds between a call and the result that a guess had for it [n, M].
        false_hit: a call got the result of another one [n].
        sequential_s: of the step without speculation, at the same tool times [n].
        call_s: seconds of the tools [n, M].
    """

    duration_s: NDArray[np.float64]
    source: NDArray[np.int8]
    served_by: NDArray[np.int64]
    started: NDArray[np.bool_]
    served: NDArray[np.bool_]
    wasted_s: NDArray[np.float64]
    waited_s: NDArray[np.float64]
    false_hit: NDArray[np.bool_]
    sequential_s: NDArray[np.float64]
    call_s: NDArray[np.float64]


def play(steps: ToolSteps, setting: ToolSetting) -> Played:
    """What a setting does at every step.

    Raises:
        UserError: the setting names something that does not exist, or asks for what cannot be replayed.
    """
    _check(setting, steps)
    player = _Player(steps, setting)
    if setting.policy == "concurrent" and setting.cache:
        player.play_in_order()
    else:
        player.play_all()
    return player.played()


def sequential_s(steps: ToolSteps, call_s: NDArray[np.float64]) -> NDArray[np.float64]:
    """Seconds of each step without speculation [n], from those of its calls [n, M]."""
    return _chained_s(steps, call_s, np.full(call_s.shape, np.inf))


def hideable_s(
    steps: ToolSteps,
    call_s: NDArray[np.float64],
    never: Collection[str] = NEVER,
    guessed: NDArray[np.bool_] | None = None,
) -> NDArray[np.float64]:
    """Seconds of each step that guesses would save if they were there at once [n].

    Args:
        steps: recorded steps.
        call_s: seconds of the calls [n, M].
        never: tools that may not be carried out in advance.
        guessed: the calls that are guessed [n, M]; None: all.
    """
    hidden = steps.has_call & ~np.isin(steps.names, list(never))
    if guessed is not None:
        hidden &= guessed
    at_once = np.where(hidden, call_s, np.inf)  # when the result is there
    return sequential_s(steps, call_s) - _chained_s(steps, call_s, at_once)


def _chained_s(
    steps: ToolSteps, call_s: NDArray[np.float64], ready_s: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Seconds of each step whose calls follow each other, with results that are there at `ready_s` (inf: never)."""
    now = np.zeros(len(steps))
    duration = steps.actor_s.copy()
    for place in range(int(steps.n_calls.max(initial=0))):
        inside = steps.n_calls > place
        demanded = np.maximum(np.where(inside, steps.made_s[:, place], 0.0), now)
        ready = ready_s[:, place]
        done = np.where(np.isfinite(ready), np.maximum(demanded, ready), demanded + call_s[:, place])
        now = np.where(inside, done, now)
        duration = np.maximum(duration, now)
    return duration


def _check(setting: ToolSetting, steps: ToolSteps) -> None:
    known("strategy", setting.strategy, STRATEGIES)
    known("policy", setting.policy, POLICIES)
    known("latency", setting.latency, steps.latencies)
    if setting.threshold is not None or setting.thresholds:
        known("score", setting.score, steps.scores)
    for name in ("guesses", "guess_slots", "speculator", "tool_scale"):
        if not getattr(setting, name) >= 0:
            raise UserError(f"{name} must be at least 0, got {getattr(setting, name)}.")


def known(what: str, name: str, names: Iterable[str]) -> None:
    """Raise UserError where a name is none of these."""
    names = list(names)
    if name not in names:
        raise UserError(f"{what}: {name!r} is none of {', '.join(names) or '(none)'}{nearest(name, names)}.")


def _fitting(alike: dict[str, NDArray[np.float32]], setting: ToolSetting) -> NDArray[np.float32]:
    """How well guesses fit calls, 0 where they do not match."""
    fits = alike[setting.strategy]
    if not STRATEGIES[setting.strategy].graded:
        return fits
    return np.where(fits >= np.float32(setting.jaccard_threshold), fits, np.float32(0))  # both rounded alike


def _queued(
    decoded: NDArray, tool_s: NDArray, admitted: NDArray, demand: NDArray, slots: int
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """When each guess begins, first come first served, and which ones begin before the actor has made its call."""
    rows = np.arange(len(decoded))
    begin, started = decoded.copy(), np.zeros(decoded.shape, bool)
    free = np.zeros((len(decoded), slots))
    order = np.argsort(np.where(admitted, decoded, np.inf), axis=1, kind="stable")
    for column in order.T:
        slot = free.argmin(axis=1)
        at = np.maximum(decoded[rows, column], free[rows, slot])
        begins = admitted[rows, column] & (at < demand)
        begin[rows, column], started[rows, column] = at, begins
        free[rows, slot] = np.where(begins, at + tool_s[rows, column], free[rows, slot])
    return begin, started


class _Player:
    """The state of a replay. Arrays are [n, K] for guesses and [n, M] for calls."""

    def __init__(self, steps: ToolSteps, setting: ToolSetting) -> None:
        self.steps, self.setting = steps, setting
        (n, m), k = steps.made_s.shape, steps.guess_s.shape[1]
        self.call_s, self.tool_s = (setting.tool_scale * s for s in steps.latencies[setting.latency])
        self.decoded = np.where(steps.has_guess, setting.speculator * steps.finite_guess_s, np.inf)
        self.admitted = self._admitted()
        self.original = setting.policy == "original"
        if self.original:
            self.admitted &= steps.first_guess
            self.demand = self._joined_s()
            self.made = np.where(steps.has_call, self.demand[:, None], np.inf)
        else:
            self.demand = np.where(steps.n_calls > 0, steps.made_s[:, 0], steps.actor_s)
            self.made = steps.made_s
        self.own_fits = _fitting(steps.alike, setting)
        self.begin, self.started = self.decoded.copy("F"), np.zeros((n, k), bool, "F")
        self.ready = np.full((n, k), np.inf, order="F")
        self.live = np.zeros((n, k), bool, "F")  # may serve: started, or the same as something that is there
        self.served = np.zeros((n, k), bool, "F")
        self.cancelled = np.full((n, k), np.inf, order="F")
        self.duration = np.maximum(steps.actor_s, self.demand if self.original else 0.0)
        self.source = np.zeros((n, m), np.int8, "F")
        self.served_by = np.full((n, m), -1, np.int64, "F")
        self.waited_s = np.zeros((n, m), order="F")
        # which guess made the result that a guess stands for: itself, unless an equal one was executed before
        self.stands_for = np.arange(n * k).reshape(n, k).copy("F")
        self.kept_by = np.full(
            (n, m), -1, np.int64, "F"
        )  # guess of an earlier step that has the result of a call
        self.any_failed = bool(steps.failed.any())

    def _admitted(self) -> NDArray[np.bool_]:
        """Guesses that this setting executes if they are decoded in time."""
        steps, setting = self.steps, self.setting
        if setting.policy == "off":
            return np.zeros(steps.guess_s.shape, bool, "F")
        admitted = steps.allowed & (steps.rank < setting.guesses) & (steps.ahead == 0)
        if setting.threshold is not None and not setting.thresholds:
            admitted &= reaches(steps.scores[setting.score], setting.threshold)  # a missing score is nan
        for name in np.unique(steps.guess_names[steps.has_guess]) if setting.thresholds else ():
            least = setting.thresholds.get(name, setting.threshold)
            if least is not None:
                admitted &= (steps.guess_names != name) | reaches(steps.scores[setting.score], least)
        for first, second, equal in steps.repeated:
            admitted[:, second] &= ~(equal & admitted[:, first])
        return admitted

    def _joined_s(self) -> NDArray[np.float64]:
        """When a step of the original goes on: actor, speculator and the tool of the first guess are done [n]."""
        first = self.steps.first_guess
        end = np.where(first, self.decoded + np.where(self.admitted, self.tool_s, 0.0), 0.0).max(axis=1)
        silent = np.where(first.any(axis=1), 0.0, self.setting.speculator * self.steps.silent_s)
        return np.maximum(self.steps.actor_s, np.maximum(end, silent))

    # ------------------------------------------------------------------ the order of steps

    def play_all(self) -> None:
        """All steps at once."""
        every = slice(None)
        self._execute(every, self.admitted)
        self._serve_calls(every)

    def play_in_order(self) -> None:
        """The steps of every task one after another, each with what the earlier ones have left."""
        steps, setting = self.steps, self.setting
        call_key, guess_key, n_keys = steps.keys
        kept = np.full(n_keys, -1, np.int64)  # the guess that has the result of a task's call
        depth = np.arange(len(steps)) - np.searchsorted(steps.task, steps.task)
        strategy = STRATEGIES[setting.strategy]
        lossless = strategy.lossless and strategy.name != "none"
        for level in range(int(depth.max(initial=-1)) + 1):
            rows = np.flatnonzero(depth == level)
            if lossless:  # the others take what is meant for this step alone
                self.kept_by[rows] = np.where(call_key[rows] >= 0, kept[call_key[rows]], -1)
            by = np.where((guess_key[rows] >= 0) & self.admitted[rows], kept[guess_key[rows]], -1)
            repeats = by >= 0
            self.stands_for[rows] = np.where(repeats, by, self.stands_for[rows])
            self._execute(rows, self.admitted[rows] & ~repeats)
            in_time = repeats & (self.decoded[rows] < self.demand[rows, None])
            self.live[rows] |= in_time
            for times in (self.begin, self.ready):
                times[rows] = np.where(in_time, -np.inf, times[rows])
            self._serve_calls(rows)
            finished = self.started[rows] & ~steps.failed[rows]
            finished &= self.served[rows] | (self.ready[rows] <= self.demand[rows, None])
            kept[guess_key[rows][finished]] = self.stands_for[rows][finished]

    # ------------------------------------------------------------------ one step

    def _execute(self, rows: NDArray | slice, admitted: NDArray[np.bool_]) -> None:
        """Begin the guesses that are decoded, and find a slot, before the actor has made its call."""
        decoded, tool_s, demand = self.decoded[rows], self.tool_s[rows], self.demand[rows]
        slots = self.setting.guess_slots
        if self.original:
            begin, started = decoded, admitted
        elif not slots or slots >= decoded.shape[1]:
            begin, started = decoded, admitted & (decoded < demand[:, None])
        else:
            begin, started = _queued(decoded, tool_s, admitted, demand, slots)
        self.started[rows] = started
        self.live[rows] |= started
        self.begin[rows] = np.where(started, begin, self.begin[rows])
        self.ready[rows] = np.where(started, begin + tool_s, self.ready[rows])
        self.cancelled[rows] = np.inf if self.original else demand[:, None]

    def _serve_calls(self, rows: NDArray | slice) -> None:
        n_calls = self.steps.n_calls[rows]
        numbers = np.arange(len(self.steps))[rows]
        now = np.full(len(numbers), -np.inf)
        duration = self.duration[rows].copy()
        for place in range(int(n_calls.max(initial=0))):
            at = n_calls > place
            if at.all():
                now = self._serve(rows, numbers, place, now)
            else:
                now[at] = self._serve(numbers[at], numbers[at], place, now[at])
            duration = np.maximum(duration, now)
        self.duration[rows] = duration

    def _serve(
        self, rows: NDArray | slice, numbers: NDArray, place: int, previous: NDArray
    ) -> NDArray[np.float64]:
        """When the results of these steps' calls at this place are there.

        The guess that serves is the most alike, then one that is ready when the actor has made its calls, then the
        one that began first.
        """
        demand = self.demand[rows]
        demanded = np.maximum(self.made[rows, place], previous)
        by = self.kept_by[rows, place]
        cached = by >= 0
        when, best, is_ready = np.where(cached, -np.inf, np.inf), cached.astype(np.float32), cached
        began = when
        fails = np.zeros(len(demanded), bool)
        for guess in range(self.ready.shape[1]):
            fit, ready, begin = (
                self.own_fits[rows, place, guess],
                self.ready[rows, guess],
                self.begin[rows, guess],
            )
            live = self.live[rows, guess] & (fit > 0)
            there = ready <= demand
            if self.any_failed:
                failed = self.steps.failed[rows, guess]
                live &= ~(failed & there)
            sooner = (there & ~is_ready) | ((there == is_ready) & (begin < began))
            better = live & ((fit > best) | ((fit == best) & sooner))
            when, best, began = (
                np.where(better, ready, when),
                np.where(better, fit, best),
                np.where(better, begin, began),
            )
            by, is_ready = (
                np.where(better, self.stands_for[rows, guess], by),
                np.where(better, there, is_ready),
            )
            # a kept result that this step guesses again is meant for this step
            cached = cached & ~(better | (live & (self.stands_for[rows, guess] == by)))
            if self.any_failed:
                fails = np.where(better, failed, fails)
        hit = (by >= 0) & ~fails
        # a guess in flight is awaited; if it fails then, the call is carried out after all
        ended = np.where(by >= 0, np.maximum(demanded, when), demanded)
        done = np.where(hit, ended, ended + self.call_s[rows, place])
        source = np.where(when <= demanded, np.where(cached, CACHED, USED), AWAITED)
        self.source[rows, place] = np.where(hit, source, EXECUTED)
        self.served_by[rows, place] = np.where(hit, by, -1)
        self.waited_s[rows, place] = np.where(hit, done - demanded, 0.0)
        k = self.ready.shape[1]
        self.served[by[hit] // k, by[hit] % k] = True
        return done

    def played(self) -> Played:
        """The result."""
        wasted = self.started & ~self.served
        ran = np.where(wasted, np.minimum(self.ready, self.cancelled), 0.0) - np.where(
            wasted, self.begin, 0.0
        )
        return Played(
            duration_s=self.duration,
            source=self.source,
            served_by=self.served_by,
            started=self.started,
            served=self.served,
            wasted_s=np.maximum(ran, 0.0),
            waited_s=self.waited_s,
            false_hit=self._false_hits(),
            sequential_s=sequential_s(self.steps, self.call_s),
            call_s=self.call_s,
        )

    def _false_hits(self) -> NDArray[np.bool_]:
        step, place = np.nonzero(self.served_by >= 0)
        calls, guesses = self.steps.codes
        by, k = self.served_by[step, place], guesses.shape[1]
        false = np.zeros(len(self.steps), bool)
        false[step[guesses[by // k, by % k] != calls[step, place]]] = True
        return false

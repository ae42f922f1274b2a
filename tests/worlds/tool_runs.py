"""Recorded tool runs of chance, as a shadow pass leaves them, and a simulation of what a setting does with them."""

from __future__ import annotations

import heapq
import json
import random

from speceyes_lib.replay.tool_playing import ToolSetting
from speceyes_lib.tool_speculation.matching import STRATEGIES
from speceyes_lib.tool_speculation.records import Guess, MadeCall, Step, TaskRun

TOOLS = ("web_search", "file_read", "calculate")
PHRASES = ("mass of Korvan", "mass of the Korvan", "price of Korvan", "Belin", "mass Belin", "Oru")


def canonical(name: str, arguments: dict) -> str:
    return f"{name} {json.dumps(arguments, sort_keys=True)}"


def made_call(name: str, argument: str, start_s: float, tool_s: float, **fields) -> MadeCall:
    arguments = {"q": argument}
    texts = {
        "name": name,
        "arguments": arguments,
        "given": arguments,
        "canonical": canonical(name, arguments),
    }
    return MadeCall(**texts, start_s=start_s, end_s=start_s + tool_s, tool_s=tool_s, **fields)


def made_guess(name: str, argument: str, start_s: float, end_s: float, took_s: float, **fields) -> Guess:
    arguments = {"q": argument}
    texts = {
        "name": name,
        "arguments": arguments,
        "given": arguments,
        "canonical": canonical(name, arguments),
    }
    times = {"start_s": start_s, "end_s": end_s, "tool_s": took_s}
    times |= {"tool_start_s": end_s, "tool_end_s": end_s + took_s}
    return Guess(**texts | times | fields)


def recorded_runs(
    n_tasks: int = 8,
    seed: int = 0,
    max_steps: int = 5,
    max_calls: int = 2,
    max_guesses: int = 3,
    words: int = 3,
) -> list[TaskRun]:
    """Runs of chance. Times are multiples of 1/64, so that sums are exact and ties occur."""
    rng = random.Random(seed)

    def seconds(most: int) -> float:
        return rng.randint(0, most) / 64

    tool_s: dict[str, float] = {}  # equal calls take equal times
    runs = []
    for number in range(n_tasks):
        clock, steps = 0.0, []
        n_steps = rng.randint(0, max_steps)
        for index in range(1, n_steps + 1):
            end = clock + seconds(256) + 1 / 64
            n_calls = 0 if index == n_steps else rng.randint(1, max_calls)
            now, calls = end, []
            for _ in range(n_calls):
                call = (rng.choice(TOOLS), rng.choice(PHRASES[:words]))
                took = tool_s.setdefault(canonical(call[0], {"q": call[1]}), seconds(256))
                calls.append(made_call(*call, now, took))
                now += took
            guesses = []
            for rank in range(rng.randint(0, max_guesses)):
                copied = calls and rng.random() < 0.5
                name, word = (rng.choice(TOOLS), rng.choice(PHRASES[:words]))
                if copied:
                    name, word = calls[-1].name, calls[-1].arguments["q"]
                took = tool_s.setdefault(canonical(name, {"q": word}), seconds(256))
                fields = {"rank": rank, "ahead": int(rng.random() < 0.3), "tokens": 5}
                fields["scores"] = {"separability_min": rng.random(), "weakest_argument": "q"}
                if rng.random() < 0.1:
                    fields |= {"refused": "writes", "tool_start_s": None, "tool_end_s": None, "tool_s": None}
                elif rng.random() < 0.1:
                    fields["result_error"] = "broken"
                guesses.append(made_guess(name, word, clock, clock + seconds(200), took, **fields))
            times = {"actor_start_s": clock, "actor_end_s": end, "actor_tokens": 40}
            spoken = max([0.0, *(guess.end_s - clock for guess in guesses)])
            steps.append(Step(index=index, **times, calls=calls, guesses=guesses, speculator_s=spoken))
            clock = now
        task = {"task_id": f"t{number:05}", "level": 1 + number % 3, "question": "q", "truth": "a"}
        runs.append(TaskRun(**task, arm="shadow", answer="a", seconds=clock + 1 / 64, steps=steps))
    return runs


class Simulated:
    """One task under a setting, event by event."""

    def __init__(self, run: TaskRun, setting: ToolSetting) -> None:
        self.setting = setting
        self.sources: list[str] = []
        self.false_hits: list[int] = []
        self.started = 0
        self.wasted_s = 0.0
        self.kept: dict[str, dict] = {}  # canonical call -> finished execution of an earlier step
        last_end = max([0.0, *(max([s.actor_end_s, *(c.end_s for c in s.calls)]) for s in run.steps)])
        clock = 0.0
        for step in run.steps:
            clock = (
                self.original(step, clock) if setting.policy == "original" else self.concurrent(step, clock)
            )
        self.seconds = clock + run.seconds - last_end

    def score(self, guess: Guess, call: MadeCall) -> float:
        return STRATEGIES[self.setting.strategy].match(guess, call, self.setting.jaccard_threshold) or 0.0

    def admitted(self, step: Step) -> list[Guess]:
        s, chosen = self.setting, []
        if s.policy == "off":
            return []
        for guess in step.guesses:
            if guess.refused is not None or guess.rank >= s.guesses or guess.ahead:
                continue
            least = s.thresholds.get(guess.name, s.threshold)
            if least is not None and not guess.scores[s.score] >= least:
                continue
            if all(guess.canonical != other.canonical for other in chosen):
                chosen.append(guess)
        return chosen

    def concurrent(self, step: Step, clock: float) -> float:
        s = self.setting
        first = clock + step.actor_end_s - step.actor_start_s
        events: list = []
        for place, guess in enumerate(self.admitted(step)):
            at = clock + s.speculator * (guess.end_s - step.actor_start_s)
            heapq.heappush(events, (at, 2, place, guess))
        jobs: list[dict] = []
        moved: list[dict] = []  # kept results that are guessed again
        queue: list[Guess] = []
        running = 0
        while events:
            at, kind, _, what = heapq.heappop(events)
            if at >= first:
                break
            if kind == 1:
                running -= 1
            elif what.canonical in self.kept:
                moved.append(self.kept[what.canonical])
            else:
                queue.append(what)
            while queue and (not s.guess_slots or running < s.guess_slots):
                guess = queue.pop(0)
                job = {"guess": guess, "begin": at, "ready": at + s.tool_scale * (guess.tool_s or 0.0)}
                job |= {"used": False, "wasted_s": 0.0}
                heapq.heappush(events, (job["ready"], 1, len(jobs), job))
                jobs.append(job)
                running += 1
        self.started += len(jobs)
        lossless = STRATEGIES[s.strategy].lossless
        chosen = []
        for call in step.calls:
            attempts = jobs + moved + [j for j in self.kept.values() if lossless and j not in moved]
            there = [j["ready"] <= first for j in attempts]
            ranked = [
                (-self.score(job["guess"], call), not ready, job["begin"], i)
                for i, (job, ready) in enumerate(zip(attempts, there, strict=True))
                if self.score(job["guess"], call) > 0 and not (ready and job["guess"].result_error)
            ]
            chosen.append(attempts[min(ranked)[3]] if ranked else None)
        now = first
        for call, job in zip(step.calls, chosen, strict=True):
            if job is None or job["guess"].result_error:
                now = (now if job is None else max(now, job["ready"])) + s.tool_scale * call.tool_s
                self.sources.append("executed")
                continue
            old = job not in jobs and job not in moved
            self.sources.append("cached" if old else "used" if job["ready"] <= now else "awaited")
            now = max(now, job["ready"])
            if not job["used"]:
                self.wasted_s -= job["wasted_s"]
            job["used"] = True
            if job["guess"].canonical != call.canonical:
                self.false_hits.append(step.index)
        for job in jobs:
            if not job["used"]:
                job["wasted_s"] = max(0.0, min(job["ready"], first) - job["begin"])
                self.wasted_s += job["wasted_s"]
            if s.cache and (job["ready"] <= first or job["used"]) and not job["guess"].result_error:
                self.kept[job["guess"].canonical] = job
        return now

    def original(self, step: Step, clock: float) -> float:
        s = self.setting
        now = clock + step.actor_end_s - step.actor_start_s
        firsts = [g for g in step.guesses if g.rank == 0 and g.ahead == 0][:1]
        if not firsts:
            now = max(now, clock + s.speculator * (step.speculator_s or 0.0))
        executed = [g for g in self.admitted(step) if g in firsts]
        for guess in firsts:
            took = s.tool_scale * guess.tool_s if guess in executed else 0.0
            now = max(now, clock + s.speculator * (guess.end_s - step.actor_start_s) + took)
        used = False
        for call in step.calls:
            if any(not g.result_error and self.score(g, call) > 0 for g in executed):
                self.sources.append("used")
                used = True
                if executed[0].canonical != call.canonical:
                    self.false_hits.append(step.index)
            else:
                self.sources.append("executed")
                now += s.tool_scale * call.tool_s
        self.started += len(executed)
        self.wasted_s += 0.0 if used else sum(s.tool_scale * g.tool_s for g in executed)
        return now

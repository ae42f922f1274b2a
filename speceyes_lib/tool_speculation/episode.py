"""One task, run by an actor whose next calls a speculator guesses and tools carry out meanwhile.

Per step, actor and speculator stream side by side. A guess is executed as soon as its arguments are complete. When the
actor makes its call, a guess that stands for it serves: at once if it has ended, else when it does. Whatever else is
still going on for the step is cancelled at that moment, and without a match the call is executed like any other. The
actor never waits for the speculator, and its calls need no slot. Errors of guesses are never served: where a guess
fails after the actor has made the same call, the call is executed again.

All times come from the event loop, so that tests can run on a clock of their own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime

from ..errors import UserError, printable
from ..texts import storable
from ..tools.declared import Call, Effect, MalformedCall, Toolbox, Workspace
from .cache import Attempt, AttemptCache, Write
from .gate import call_scores, fork_prefixes
from .models import (
    CallComplete,
    CallStarted,
    Finished,
    Malformed,
    Policy,
    PolicyError,
    Token,
    final_answer,
    parse_call,
    parse_calls,
    without_calls,
)
from .records import Guess, MadeCall, Step, TaskRun
from .settings import SpeculationSettings

MOST_CALLS = 4  # guessed in one turn of the speculator
LIMIT_REACHED = "The limit of steps is reached. Answer now, without tools, after FINAL ANSWER:"


@dataclass(frozen=True)
class Assignment:
    """What a task's run needs to know of the task.

    Attributes:
        task_id, level, truth: for the record.
        question: as the actor reads it.
        attachment: name of a file in the task's folder, or "".
    """

    task_id: str
    level: int
    question: str
    truth: str = ""
    attachment: str = ""


class Episode:
    """The run of one task. `run` may be called once.

    Args:
        task: what is asked.
        actor: decides everything.
        speculator: guesses the actor's calls; None without speculation.
        toolbox: the tools.
        workspace: what they work on.
        settings: how it is run.
        arm: name of the settings, for the record.
        observe: called with every step when it is over.
    """

    def __init__(
        self,
        task: Assignment,
        actor: Policy,
        speculator: Policy | None,
        toolbox: Toolbox,
        workspace: Workspace,
        settings: SpeculationSettings,
        arm: str = "",
        observe: Callable[[Step], object] = lambda step: None,
    ) -> None:
        self.observe = observe
        self.task, self.actor, self.toolbox, self.workspace = task, actor, toolbox, workspace
        self.settings, self.arm = settings, arm
        self.speculator = None if settings.policy == "off" else speculator
        self.messages: list[dict] = [{"role": "user", "content": task.question}]
        self.steps: list[Step] = []
        self.cache = AttemptCache(settings.cached_results)
        self._slots = asyncio.Semaphore(settings.guess_slots)
        self._speculation: asyncio.Task | None = None  # of this step
        self._background: set[asyncio.Task] = set()  # everything that is not awaited where it begins
        self._warmed: set[str] = set()

    async def run(self) -> TaskRun:
        """The record of the task. Failures of the actor are in it.

        Raises:
            UserError: a mistake of the user's that concerns every task, such as a key that is not set.
        """
        self._clock = asyncio.get_running_loop().time
        self._origin_s = self._clock()
        started, answer, error, cause = datetime.now(UTC).isoformat(timespec="seconds"), None, None, ""
        try:
            answer = await self._conversation()
            if answer is None:
                error, cause = f"no answer after {self.settings.max_steps} steps", "limit"
        except UserError:
            raise
        except Exception as e:  # whatever a model does is a result of its task
            error, cause = _words(e), "model"
        finally:
            seconds = self._now()
            await self._end()
        return TaskRun(
            task_id=self.task.task_id,
            level=self.task.level,
            question=self.task.question,
            truth=self.task.truth,
            arm=self.arm,
            settings=self.settings.recorded(),
            answer=answer,
            error=error,
            cause=cause,
            seconds=seconds,
            steps=self.steps,
            messages=_with_system(self.actor, self.messages),
            models={"actor": self.actor.name, "speculator": self.speculator and self.speculator.name},
            started=started,
        )

    # ---------------------------------------------------------------------------------------- the actor
    async def _conversation(self) -> str | None:
        """The actor's answer; None if it gives none."""
        if self.settings.warm_up and self.task.attachment:
            self._warm_attachment()
        for index in range(1, self.settings.max_steps + 2):
            last = index > self.settings.max_steps
            if last:
                self.messages.append({"role": "user", "content": LIMIT_REACHED})
            self.steps.append(step := Step(index=index, actor_start_s=self._now(), actor_end_s=self._now()))
            if self.speculator is not None and not last:
                guessing = self._speculate(list(self.messages), index, None)
                self._speculation = self._start(guessing)
            turn = await self._turn(step, Toolbox([]) if last else self.toolbox)
            step.actor_end_s, step.text = self._now(), without_calls(turn)
            if self.settings.policy == "original":
                await self._guesses_ended()
            self.messages.append({"role": "assistant", "content": turn})
            calls = [] if last else parse_calls(turn)
            await self._carry_out(step, calls)
            self.observe(step)
            answer = None if calls else final_answer(turn)
            if answer is not None or last:
                return answer
        return None

    async def _turn(self, step: Step, toolbox: Toolbox) -> str:
        """The text of the actor's next turn."""
        messages = _with_system(self.actor, self.messages)
        async with aclosing(self.actor.stream(messages, toolbox, self.workspace)) as events:
            async for event in events:
                if isinstance(event, Token):
                    step.actor_tokens += 1
                elif isinstance(event, CallStarted) and self.settings.warm_up:
                    self._warm(event.name)
                elif isinstance(event, Finished):
                    return storable(event.text)
        raise PolicyError(f"{self.actor.name}: the turn has no end")

    # ----------------------------------------------------------------------------------- the actor's calls
    async def _carry_out(self, step: Step, parsed: Sequence[tuple[str, str] | Malformed]) -> None:
        """Put the results of the actor's calls into the conversation, in order."""
        now_s, settings = self._now(), self.settings
        wanted = [(_name(p), self._checked(p)) for p in parsed]
        serving: list[Attempt | None] = [
            self.cache.best(call, settings.matching, settings.jaccard_threshold, step.index, now_s)
            if isinstance(call, Call)
            else None
            for _, call in wanted
        ]
        if settings.policy != "original":
            self._cancel_useless(step, {a for a in serving if a is not None})
        for (name, call), attempt in zip(wanted, serving, strict=True):
            if isinstance(call, str):
                made = MadeCall(
                    name=name, start_s=self._now(), end_s=self._now(), result=f"Error: {call}", error=call
                )
            else:
                made = await self._result(step, call, None if settings.policy == "shadow" else attempt)
            step.calls.append(made)
            self.messages.append({"role": "tool", "name": made.name, "content": made.result})
        if settings.policy == "shadow":
            await self._guesses_ended()
        elif settings.policy == "original":
            self.cache.clear()
        self.cache.trim()

    def _checked(self, parsed: tuple[str, str] | Malformed) -> Call | str:
        """The call, or a sentence that says why it is none."""
        if isinstance(parsed, Malformed):
            return parsed.reason
        try:
            return self.toolbox.call(*parsed)
        except MalformedCall as error:
            return str(error)

    async def _result(self, step: Step, call: Call, attempt: Attempt | None) -> MadeCall:
        """The actor's call with its result: of the attempt if it has a valid one, else of an execution now."""
        start_s, source, tool = self._now(), "executed", self.toolbox.tools[call.name]
        if attempt is not None and not self.cache.valid(
            attempt, start_s
        ):  # written by a call before this one
            attempt = None
        if attempt is not None and attempt.in_flight:
            await asyncio.wait([attempt.task])
            source = "awaited"
        elif attempt is not None:
            source = "used" if attempt.target == step.index else "cached"
        if attempt is not None and attempt.ready:
            result = attempt.result
            if attempt.guess.outcome == "unused":
                attempt.guess.outcome = "awaited" if source == "awaited" else "used"
        else:
            source, attempt = "executed", None
            write = self._begin_write(tool.effect, call.name)
            result = await self.toolbox.execute(call, self.workspace)
            if write is not None:
                write.end_s = self._now()
        place = attempt and attempt.place
        return MadeCall(
            name=call.name,
            arguments=call.arguments,
            canonical=call.canonical,
            given=call.given,
            start_s=start_s,
            end_s=self._now(),
            source=source,
            guess=place[1] if place and place[0] == step.index else place,
            tool_s=result.seconds,
            result=result.message,
            error=result.error,
        )

    def _begin_write(self, effect: Effect | None, name: str) -> Write | None:
        """For a tool that may write: mark what it may change as invalid, and cancel such guesses."""
        if effect not in (None, Effect.writes):
            return None
        write = self.cache.begin_write(self.toolbox.tools[name])
        for attempt in self.cache:
            if attempt.in_flight and not self.cache.valid(attempt, self._now()):
                self._cancel(attempt)
        return write

    # ---------------------------------------------------------------------------------- the speculator
    async def _speculate(self, messages: list[dict], target: int, parent: Attempt | None) -> None:
        """Guess the calls of step `target`, and start to execute them."""
        step = self.steps[-1]
        try:
            first, turn = await self._guess(messages, target, parent, 0, ())
            if first is not None and self.speculator.can_fork and parent is None:
                for rank, prefix in enumerate(fork_prefixes(first, turn, self.settings.guesses - 1), start=1):
                    await self._guess(messages, target, None, rank, prefix)
        except Exception as error:  # a speculator that fails costs nothing but its guesses
            step.speculator_error = _words(error)
        finally:
            if parent is None:
                step.speculator_s = self._now() - step.actor_start_s

    async def _guess(
        self,
        messages: list[dict],
        target: int,
        parent: Attempt | None,
        rank: int,
        prefix: Sequence[Token],
    ) -> tuple[CallComplete | None, list[Token]]:
        """Read one turn of the speculator and propose its calls. Returns the first call and the turn's tokens."""
        start_s, seen, first, n_calls = self._now(), 0, None, 0
        tokens, settings = list(prefix), self.settings
        only_one = rank > 0 or settings.policy == "original"
        prompted = _with_system(self.speculator, messages)
        async with aclosing(self.speculator.stream(prompted, self.toolbox, self.workspace, prefix)) as events:
            async for event in events:
                if isinstance(event, Token):
                    tokens.append(event)
                    seen += 1
                    if len(tokens) > settings.guess_tokens:
                        raise PolicyError(
                            f"{self.speculator.name}: more than {settings.guess_tokens} tokens without an end"
                        )
                elif isinstance(event, CallStarted) and settings.warm_up:
                    self._warm(event.name)
                elif isinstance(event, CallComplete):
                    attempt = self._propose(event, target, parent, rank, start_s, seen)
                    if first is None:
                        first = event
                        self._look_ahead(attempt, messages, event, target)
                    n_calls, start_s, seen = n_calls + 1, self._now(), 0
                    if only_one or n_calls == MOST_CALLS:
                        break
                elif isinstance(event, Finished):
                    calls = parse_calls(event.text)
                    if calls and isinstance(calls[-1], Malformed) and len(calls) > n_calls:
                        self._propose(CallComplete(calls[-1].text), target, parent, rank, start_s, seen)
        return first, tokens

    def _propose(
        self,
        event: CallComplete,
        target: int,
        parent: Attempt | None,
        rank: int,
        start_s: float,
        tokens: int,
    ) -> Attempt | None:
        """Record a guess and execute it unless something speaks against it. Returns the attempt that stands for it."""
        step, now_s = self.steps[-1], self._now()
        if target < step.index:
            return None  # its step is over
        parsed = parse_call(event.text)
        guess = Guess(
            name=_name(parsed),
            rank=rank,
            ahead=target - step.index,
            start_s=start_s,
            end_s=now_s,
            tokens=tokens,
            scores=call_scores(event),
        )
        place = (step.index, len(step.guesses))
        step.guesses.append(guess)
        call = self._checked(parsed)
        if isinstance(call, str):
            guess.refused, guess.outcome = call, "refused"
            return None
        guess.arguments, guess.canonical, guess.given = call.arguments, call.canonical, call.given
        refused = self.toolbox.refusal(
            call, self.settings.effects, self.workspace
        ) or self.settings.gate.refusal(call.name, guess.scores)
        if refused:
            guess.refused, guess.outcome = refused, "refused"
            if self.settings.warm_up:
                self._warm(call.name, call)
            return None
        if (same := self.cache.same(call, now_s)) is not None:
            guess.same_as = same.place
            if same.target < step.index:  # an older result, which is now expected for this step
                same.target = target
            return same
        attempt = Attempt(guess, place, call, self.toolbox.tools[call.name], target, parent)
        self.cache.add(attempt)
        attempt.task = self._start(self._execute(attempt))
        return attempt

    async def _execute(self, attempt: Attempt) -> None:
        async with self._slots:
            guess = attempt.guess
            attempt.started_s = guess.tool_start_s = self._now()
            result = await self.toolbox.execute(
                attempt.call, self.workspace, speculated=True, allowed_effects=self.settings.effects
            )
            if attempt.cancelled:
                return
            guess.tool_end_s, guess.tool_s = self._now(), result.seconds
            guess.result_error, attempt.result = result.error, result
            if result.error is not None:
                guess.outcome = "failed"

    def _look_ahead(
        self, attempt: Attempt | None, messages: list[dict], event: CallComplete, target: int
    ) -> None:
        """Guess the step after an attempt once its result is there, if the settings look that far ahead."""
        if (
            attempt is None
            or attempt.follow is not None
            or attempt.target != target
            or target - self.steps[-1].index >= self.settings.look_ahead
        ):
            return

        async def follow() -> None:
            await asyncio.wait([attempt.task])
            if attempt.ready:
                turn = {"role": "assistant", "content": f"<tool_call>{event.text}</tool_call>"}
                result = {"role": "tool", "name": attempt.call.name, "content": attempt.result.message}
                await self._speculate([*messages, turn, result], target + 1, attempt)

        attempt.follow = self._start(follow())

    # -------------------------------------------------------------------------------------- warming up
    def _warm(self, name: str, call: Call | None = None) -> None:
        """Have a tool prepare itself, once per name or call. It changes no result, so that it needs no permission."""
        key = call.canonical if call else name
        tool = self.toolbox.tools.get(name)
        if tool is None or tool.warm_up is None or key in self._warmed:
            return
        self._warmed.add(key)
        if self.steps:
            self.steps[-1].warmed.append(name)
        self._start(self.toolbox.warm_up(name, self.workspace, call))

    def _warm_attachment(self) -> None:
        """Have the tools that take a path prepare themselves for the attachment."""
        for tool in self.toolbox.tools.values():
            if tool.warm_up is not None and tool.paths:
                call = self._checked((tool.name, {tool.paths[0]: self.task.attachment}))
                if isinstance(call, Call):
                    self._warm(tool.name, call)

    # ------------------------------------------------------------------------------------- cancellation
    def _cancel_useless(self, step: Step, serving: set[Attempt]) -> None:
        """Cancel what cannot help any more now that the step's calls are known.

        What goes on: the attempts that serve, and the look-ahead from their results. In a shadow pass also the other
        attempts for this step, whose seconds are wanted.
        """
        shadow = self.settings.policy == "shadow"
        if self._speculation is not None and not shadow:
            self._speculation.cancel()
        for attempt in self.cache:
            on_path = attempt in serving or (
                attempt.target > step.index and attempt.ancestor(step.index) in serving
            )
            late = attempt.target < step.index or not on_path
            if attempt.follow is not None and late:
                attempt.follow.cancel()
            if not on_path and not (shadow and attempt.target <= step.index):
                self._cancel(attempt)

    def _cancel(self, attempt: Attempt) -> None:
        """End the execution of an attempt that has no result yet."""
        if attempt.result is None and not attempt.cancelled:
            attempt.guess.outcome = "cancelled"
            attempt.task.cancel()
        if attempt.follow is not None and attempt.result is None:
            attempt.follow.cancel()

    async def _guesses_ended(self) -> None:
        """Wait until the speculator and all that it started have ended: what the original does in every step."""
        while waiting := {
            task
            for task in (self._speculation, *(t for a in self.cache for t in (a.task, a.follow)))
            if task is not None and not task.done()
        }:
            await asyncio.wait(waiting)

    def _start(self, work: Coroutine) -> asyncio.Task:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

    async def _end(self) -> None:
        """Cancel what is left, wait until it has gone, and complete the record."""
        for attempt in self.cache:
            self._cancel(attempt)
        tasks = set(self._background)
        for task in tasks:
            if not task.cancelling():  # a second time would interrupt what it does to end
                task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for task in tasks:
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error  # a mistake in this file: the tasks catch what models and tools raise
        for guess in (g for step in self.steps for g in step.guesses):
            if guess.same_as is not None:
                step, index = guess.same_as
                other = self.steps[step - 1].guesses[index]
                guess.tool_s, guess.result_error = other.tool_s, other.result_error

    def _now(self) -> float:
        return self._clock() - self._origin_s


def _with_system(policy: Policy, messages: Sequence[dict]) -> list[dict]:
    system = [{"role": "system", "content": policy.system}] if policy.system else []
    return [*system, *messages]


def _name(parsed: tuple[str, str] | Malformed) -> str:
    return "" if isinstance(parsed, Malformed) else storable(parsed[0])[:200]


def _words(error: Exception) -> str:
    text = str(error) if isinstance(error, PolicyError | UserError) else f"{type(error).__name__}: {error}"
    return printable(storable(text))[:1000]

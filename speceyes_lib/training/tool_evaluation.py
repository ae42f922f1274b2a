"""How good the text pair of the tool tasks is: episodes with the real tools, and guesses of the actor's own calls."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import torch

from ..demo.tool_tasks import Split, embedded_resources, embedded_toolbox, files_of, world_tasks
from ..demo.tool_vocabulary import ASSISTANT, END, TOKEN_IDS, TOOL, USER, decode, encode
from ..demo.tool_world import GoldCall, WorldTask
from ..gating.separability import DEFAULT_K
from ..stats.ranking import auroc
from ..tool_speculation.gate import call_scores, fork_prefixes
from ..tool_speculation.models import CallComplete, CallReader, Malformed, Token, final_answer, parse_call
from ..tools.declared import Call, MalformedCall, Toolbox, Workspace
from ..tools.worker import ToolError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MOST_STEPS, TURN_TOKENS, GUESS_TOKENS, BATCH = 10, 200, 48, 60


@dataclass
class EvaluatedStep:
    """A turn of the actor: its tokens, and the call that it makes, None at the end or if it is malformed."""

    tokens: int
    call: Call | None
    malformed: bool
    result: str = ""


@dataclass
class EvaluatedTask:
    """A task's episode. `ids` grows with every turn."""

    task_id: str
    task: WorldTask
    ids: list[int]
    steps: list[EvaluatedStep] = field(default_factory=list)
    answer: str | None = None
    done: bool = False

    @property
    def solved(self) -> bool:
        """The answer is right."""
        return self.answer == self.task.answer


@torch.no_grad()
def greedy_turns(
    model: PreTrainedModel, prompts: Sequence[list[int]], limit: int, kept: int = 2
) -> list[list[tuple[int, list[int], list[float]]]]:
    """Per prompt the tokens of the next turn, each with its `kept` best alternatives and their log-probabilities."""
    end, turns = TOKEN_IDS[END], []
    for first in range(0, len(prompts), BATCH):
        rows = prompts[first : first + BATCH]
        width = max(map(len, rows))
        ids = torch.zeros(len(rows), width, dtype=torch.long)
        mask = torch.zeros(len(rows), width, dtype=torch.long)
        for i, row in enumerate(rows):
            ids[i, width - len(row) :], mask[i, width - len(row) :] = torch.tensor(row), 1
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        out: list[list] = [[] for _ in rows]
        going = set(range(len(rows)))
        reply = model(
            input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=True, logits_to_keep=1
        )
        place = positions[:, -1:]
        for _ in range(limit):
            best, tokens = reply.logits[:, -1].log_softmax(-1).topk(min(kept, reply.logits.shape[-1]))
            chosen, logprobs = tokens.tolist(), best.tolist()
            for i in list(going):
                if chosen[i][0] == end:
                    going.discard(i)
                out[i].append((chosen[i][0], chosen[i], logprobs[i]))
            if not going:
                break
            mask, place = torch.cat([mask, torch.ones(len(rows), 1, dtype=torch.long)], 1), place + 1
            reply = model(
                input_ids=tokens[:, :1],
                attention_mask=mask,
                position_ids=place,
                past_key_values=reply.past_key_values,
                use_cache=True,
            )
        turns += out
    return turns


def _question(task: WorldTask) -> list[int]:
    return encode(f"{USER}{task.question}{END}")


def run_episodes(
    model: PreTrainedModel,
    split: Split,
    per_level: int,
    vision: Callable[[Path, str], str] | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> list[EvaluatedTask]:
    """The actor's episodes on the tasks of a split, all in step, with really executed tools.

    Args:
        model: the actor.
        split: of the embedded tasks.
        per_level: tasks per level.
        vision: answers vision_analyze; by default what a picture really shows.
        report: gets a line per step.
    """
    episodes = [EvaluatedTask(i, t, _question(t)) for i, t in world_tasks(split, per_level).items()]
    with tempfile.TemporaryDirectory() as root:
        tools = _Tools(split, Path(root), vision)
        for number in range(MOST_STEPS):
            live = [e for e in episodes if not e.done]
            if not live:
                break
            report(f"step {number + 1}: {len(live)} tasks")
            turns = greedy_turns(model, [e.ids + encode(ASSISTANT) for e in live], TURN_TOKENS)
            for episode, turn in zip(live, turns, strict=True):
                _take_turn(episode, [token for token, _, _ in turn], tools)
    return episodes


def _take_turn(episode: EvaluatedTask, ids: list[int], tools: _Tools) -> None:
    text = decode(ids).removesuffix(END)
    episode.ids += encode(ASSISTANT) + ids
    calls = [e for token in _tokens(ids) for e in tools.reader_feed(token)] if "<tool_call>" in text else []
    step = EvaluatedStep(len(ids), None, False)
    episode.steps.append(step)
    if "<tool_call>" not in text:
        episode.answer, episode.done = final_answer(text), True
        return
    step.call = tools.read(calls[0].text) if calls else None
    if step.call is None:
        step.malformed = episode.done = True
        return
    try:
        step.result = tools.execute(episode.task_id, episode.task, step.call)
        episode.ids += encode(f"{TOOL}{step.result}{END}")
    except (ToolError, ValueError):  # an error, or a text outside the vocabulary: the actor knows neither
        step.result, episode.done = "", True


class _Tools:
    """The embedded tools, each task with its own folder. Calls of the perfect agent have known results."""

    def __init__(self, split: Split, root: Path, vision: Callable[[Path, str], str] | None) -> None:
        self.split, self.root, self.vision = split, root, vision
        self.toolbox: Toolbox = embedded_toolbox()
        self._reader = CallReader()

    def reader_feed(self, token: Token) -> list[CallComplete]:
        events = self._reader.feed(token)
        if token.text == END:
            self._reader = CallReader()
        return [e for e in events if isinstance(e, CallComplete)]

    def read(self, text: str) -> Call | None:
        parsed = parse_call(text)
        if isinstance(parsed, Malformed):
            return None
        try:
            return self.toolbox.call(*parsed)
        except MalformedCall:
            return None

    def execute(self, task_id: str, task: WorldTask, call: Call) -> str:
        for turn in task.turns:
            known = turn.call
            if known and not (self.vision and known.name == "vision_analyze"):
                same = self.toolbox.call(known.name, known.arguments)
                if same == call:
                    return known.result
        folder = self.root / task_id
        if not folder.is_dir():
            folder.mkdir()
            for name, data in files_of(task, self.split).items():
                (folder / name).write_bytes(data)
        seen = self.vision or (lambda path, question: task.scene[1] if task.scene else "")
        workspace = Workspace(folder, embedded_resources(self.split, vision=seen))
        return self.toolbox.tools[call.name].run(call.checked, workspace)


def _tokens(ids: Iterable[int]) -> list[Token]:
    return [Token(decode([i])) for i in ids]


# ---------------------------------------------------------------------------------------------- the guesses
def guess_frame(model: PreTrainedModel, episodes: Sequence[EvaluatedTask]) -> pd.DataFrame:
    """The speculator's guesses at every step of these episodes, one row per step.

    Returns:
        task_id, level, kind, step, name (the actor's tool, "" at the last step), guessed (name, "" if silent), exact,
        same_name, second (the forked guess is right), separability_min, logprob_sum.
    """
    toolbox, rows, prompts = embedded_toolbox(), [], []
    for episode in episodes:
        ids = _question(episode.task)
        for number, step in enumerate(episode.steps, 1):
            prompts.append(ids + encode(ASSISTANT))
            facts = {
                "task_id": episode.task_id,
                "level": episode.task.level,
                "kind": episode.task.kind,
                "step": number,
            }
            rows.append(facts | {"call": step.call, "name": step.call.name if step.call else ""})
            if step.call is None or not step.result:
                break
            call = GoldCall(step.call.name, step.call.given, step.result)
            ids = ids + encode(f"{ASSISTANT}{call.text}{END}{TOOL}{step.result}{END}")
    turns = [_with_alternatives(t) for t in greedy_turns(model, prompts, GUESS_TOKENS, DEFAULT_K)]
    forks: list[tuple[Token, ...] | None] = []
    for row, turn in zip(rows, turns, strict=True):
        call, complete = _guess(toolbox, turn)
        row |= {"guessed": call.name if call else "", "exact": call is not None and call == row["call"]}
        row["same_name"] = call is not None and call.name == row["name"]
        scores = call_scores(complete) if complete else {}
        row |= {name: scores.get(name, float("nan")) for name in ("separability_min", "logprob_sum")}
        prefixes = fork_prefixes(complete, turn, 1) if complete else []
        forks.append(prefixes[0] if prefixes else None)
    forked = [i for i, fork in enumerate(forks) if fork is not None]
    begun = [prompts[i] + [TOKEN_IDS[token.text] for token in forks[i]] for i in forked]
    for row in rows:
        row["second"] = False
    for i, turn in zip(forked, greedy_turns(model, begun, GUESS_TOKENS), strict=True):
        call, _ = _guess(toolbox, [*forks[i], *_tokens(token for token, _, _ in turn)])
        rows[i]["second"] = call is not None and call == rows[i]["call"]
    return pd.DataFrame([{k: v for k, v in row.items() if k != "call"} for row in rows])


def _with_alternatives(turn: Sequence[tuple[int, list[int], list[float]]]) -> list[Token]:
    return [
        Token(decode([token]), tuple(values), tuple(decode([i]) for i in others[:2]), tuple(others[:2]))
        for token, others, values in turn
    ]


def _guess(toolbox: Toolbox, turn: Sequence[Token]) -> tuple[Call | None, CallComplete | None]:
    """The first call of a turn, and where its tokens are."""
    reader = CallReader()
    for token in turn:
        for event in reader.feed(token):
            if isinstance(event, CallComplete):
                parsed = parse_call(event.text)
                try:
                    return (None if isinstance(parsed, Malformed) else toolbox.call(*parsed)), event
                except MalformedCall:
                    return None, event
    return None, None


# --------------------------------------------------------------------------------------------- the numbers
def actor_figures(episodes: Sequence[EvaluatedTask]) -> dict:
    """Shares of solved tasks, valid calls and calls of the perfect agent, for the model card."""
    steps = [(e, i, s) for e in episodes for i, s in enumerate(e.steps)]
    calls = [s for _, _, s in steps if s.call is not None or s.malformed]
    toolbox = embedded_toolbox()

    def gold(episode: EvaluatedTask, i: int) -> Call | None:
        turn = episode.task.turns[i] if i < len(episode.task.turns) else None
        return toolbox.call(turn.call.name, turn.call.arguments) if turn and turn.call else None

    return {
        "tasks": len(episodes),
        "solved": _share(e.solved for e in episodes),
        "valid_calls": _share(not s.malformed for s in calls),
        "calls": len(calls),
        "calls_of_perfect_agent": _share(s.call == gold(e, i) for e, i, s in steps),
        "tokens_per_turn": sum(s.tokens for _, _, s in steps) / max(1, len(steps)),
        "solved_by_level": _grouped((e.task.level, e.solved) for e in episodes),
        "calls_by_level": _grouped(
            (e.task.level, sum(s.call is not None for s in e.steps)) for e in episodes
        ),
        "solved_by_kind": _grouped((f"{e.task.level} {e.task.kind}", e.solved) for e in episodes),
    }


def speculator_figures(guesses: pd.DataFrame) -> dict:
    """Match rates and ranking of the scores over the steps at which the actor calls a tool, for the model card."""
    calls = guesses[guesses.name != ""]
    last = guesses[guesses.name == ""]
    spoken = calls[calls.guessed != ""]
    figures = {
        "calls": len(calls),
        "exact": float(calls.exact.mean()),
        "same_name": float(calls.same_name.mean()),
        "hit_at_2": float((calls.exact | calls.second).mean()),
        "silent_at_last_step": float((last.guessed == "").mean()),
        "silent_at_a_call": float((calls.guessed == "").mean()),
    }
    for score in ("separability_min", "logprob_sum"):
        estimate = auroc(spoken[score], spoken.exact, spoken.task_id)
        figures[f"auroc_{score}"] = [
            round(estimate.value, 4),
            round(estimate.low, 4),
            round(estimate.high, 4),
        ]
    for by in ("level", "step", "name"):
        groups = calls.groupby(by)
        figures[f"exact_by_{by}"] = {str(k): float(v) for k, v in groups.exact.mean().items()}
        second = (calls.exact | calls.second).groupby(calls[by]).mean()
        figures[f"hit_at_2_by_{by}"] = {str(k): float(v) for k, v in second.items()}
        figures[f"calls_by_{by}"] = {str(k): int(v) for k, v in groups.size().items()}
    return figures


def _share(flags: Iterable[bool]) -> float:
    values = list(flags)
    return sum(values) / len(values) if values else float("nan")


def _grouped(pairs: Iterable[tuple[object, float]]) -> Mapping[str, float]:
    groups: dict[str, list[float]] = {}
    for key, value in pairs:
        groups.setdefault(str(key), []).append(float(value))
    return {key: sum(values) / len(values) for key, values in sorted(groups.items())}

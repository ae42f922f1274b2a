"""The world of the embedded tool tasks: names, facts, tasks of three levels, and what a perfect agent does.

Everything is drawn from a seed. A task knows its question, its answer, its files, and the turns of a perfect agent with
the text that each tool returns. `demo/tool_tasks.py` writes the files of a task; the tools in `tools/` then return the
same texts from these files (a test compares them).

What makes the tiny models of this world able to read a table: every cell repeats the name of its row, a table has one
column beside the names, so that one key finds a value, rows are numbered, and numbers are compared digit by digit.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from ..tools.search import Article, Corpus, page_text, snippet_text
from ..tools.tables import labelled_rows
from .scenes import COLORS, SHAPES
from .tool_vocabulary import (
    ASSISTANT,
    ATTRIBUTES,
    END,
    ITEMS,
    MAKERS,
    STEMS,
    TABLE_KINDS,
    TOOL,
    TOOL_ARGUMENTS,
    USER,
)

LEVELS = (1, 2, 3)
KINDS = {1: ("cell", "two_cells", "fact"), 2: ("own", "maker"), 3: ("own", "maker", "total", "scene")}
ARTICLES = len(ITEMS) + len(MAKERS)  # of a full corpus
OPERATIONS = {"sum": "+", "difference": "-"}


# ------------------------------------------------------------------------------------------------- facts
def draw_corpus(rng: random.Random, items: Sequence[str] = ITEMS, makers: Sequence[str] = MAKERS) -> Facts:
    """The facts of a world: of every item its maker and four attributes, of every maker its workers."""
    facts: dict[str, dict[str, str]] = {}
    for item in items:
        facts[item] = {"maker": rng.choice(list(makers))}
        facts[item] |= {a: number(rng) for a in rng.sample(ATTRIBUTES, 4)}
    for maker in makers:
        facts[maker] = {"workers": number(rng)}
    ids = rng.sample(range(1, ARTICLES + 1), len(facts))
    return Facts(facts, {name: f"d{i}" for name, i in zip(facts, ids, strict=True)})


@dataclass(frozen=True)
class Facts:
    """What the corpus holds.

    of: entity -> attribute -> value. ids: entity -> id of its article. The first three facts of an article are its
    lead, which web_search searches; enhanced_search searches the whole article.
    """

    of: dict[str, dict[str, str]]
    ids: dict[str, str]

    LEAD = 3

    def lead(self, entity: str) -> tuple[str, ...]:
        """The attributes that web_search can find."""
        return tuple(self.of[entity])[: self.LEAD]

    @cached_property
    def corpus(self) -> Corpus:
        """The articles as the search tools take them, in the order of their ids."""
        articles = [
            Article(self.ids[entity], tuple(f"{entity} {a}={v}" for a, v in facts.items()), self.LEAD)
            for entity, facts in self.of.items()
        ]
        return Corpus(sorted(articles, key=lambda article: (len(article.id), article.id)))


def number(rng: random.Random) -> str:
    """A number of three digits."""
    return str(rng.randint(100, 999))


# ------------------------------------------------------------------------------------------------- tasks
Segment = tuple[str, str | None]  # text of a turn, and what it is; None: not written by the agent
Row = tuple[str, dict[str, str]]  # name, and column -> value


@dataclass(frozen=True)
class GoldCall:
    """A call of the perfect agent: tool, arguments and the text that the tool returns."""

    name: str
    arguments: dict[str, str]
    result: str

    @property
    def text(self) -> str:
        """The call as models write it."""
        return f"<tool_call>{json.dumps({'name': self.name, 'arguments': self.arguments})}</tool_call>"


@dataclass(frozen=True)
class GoldTurn:
    """A turn of the perfect agent: its thought, and a call unless it is the last."""

    thought: tuple[Segment, ...]
    call: GoldCall | None


@dataclass
class WorldTask:
    """A task of the world.

    table: rows of the document named `document` ("" if there is none). picture: name of a picture, which shows the name
    of the document, or a scene where `scene` is (shape, color). turns: those of a perfect agent.
    """

    level: int
    kind: str
    question: str = ""
    answer: str = ""
    document: str = ""
    table: list[Row] = field(default_factory=list)
    notes: list[Row] = field(default_factory=list)  # second sheet of an xlsx file
    picture: str = ""
    scene: tuple[str, str] | None = None
    turns: list[GoldTurn] = field(default_factory=list)

    @property
    def attachment(self) -> str:
        """The file that the question comes with."""
        return self.picture or self.document


def document_text(task: WorldTask) -> str:
    """What file_read returns for the task's document, in the form with the row's name in every cell."""
    rows = _labelled(task.table)
    kind = task.document.rpartition(".")[2]
    if kind == "xlsx":
        return f"sheet items: {rows}\nsheet notes: {_labelled(task.notes)}"
    if kind == "zip":
        return f"file {task.document.removesuffix('.zip')}.csv: {rows}"
    return rows


def table_cells(rows: Sequence[Row]) -> list[list[str]]:
    """A table as rows of texts, header first."""
    columns = list(rows[0][1])
    return [["name", *columns], *([name, *(cells[c] for c in columns)] for name, cells in rows)]


def _labelled(rows: Sequence[Row]) -> str:
    header, *body = table_cells(rows)
    return labelled_rows(header, body)


class _Agent:
    """Writes the turns of the perfect agent."""

    def __init__(self, task: WorldTask, goal: str) -> None:
        self.task, self.goal = task, goal

    def call(
        self, seen: Sequence[Segment], plan: Sequence[Segment], name: str, result: str, *values: str
    ) -> str:
        arguments = dict(zip(TOOL_ARGUMENTS[name], values, strict=True))
        self._turn([*seen, *plan, ("\n", "layout")], GoldCall(name, arguments, result))
        return result

    def finish(self, seen: Sequence[Segment], answer: str) -> None:
        self.task.answer = answer
        self._turn([*seen, ("done\n", "plan"), ("FINAL ANSWER: ", "layout"), (answer, "answer")], None)

    def _turn(self, thought: Sequence[Segment], call: GoldCall | None) -> None:
        goal = [("goal:", "layout"), (self.goal, "goal"), ("\n", "layout")]
        self.task.turns.append(GoldTurn((*goal, *thought), call))


def cell(entity: str, attribute: str, value: str, entity_tag: str = "entity") -> list[Segment]:
    """The line of a thought that looks up a value."""
    return [(entity, entity_tag), (f" {attribute}=", "attribute"), (value, "lookup"), ("\n", "layout")]


def comparison(rows: Sequence[Row], attribute: str, mode: str) -> tuple[list[Segment], int]:
    """The lines that find the row with the highest or lowest value, and the index of that row.

    Digits are compared one by one. The first pair that differs decides.
    """
    segments: list[Segment] = []
    best = 0
    for i, (entity, cells) in enumerate(rows):
        value, champion = cells[attribute], rows[best][1][attribute]
        segments += [
            (f"{i + 1}: ", "row_number"),
            *cell(entity, attribute, value, "row_name")[:-1],
            (";", "layout"),
        ]
        better = i == 0
        for new, old in zip(value, champion, strict=True) if i else ():
            segments += [(new + old, "digits"), ("=" if new == old else "<" if new < old else ">", "compare")]
            if new != old:
                better = (new > old) == (mode == "highest")
                break
        best = i if better else best
        name, cells = rows[best]
        segments += [
            (" take " if better else " keep ", "keep"),
            (f"{name}={cells[attribute]}", "best"),
            ("\n", "layout"),
        ]
    return segments, best


def draw_task(
    seed: int | str,
    level: int | None = None,
    kind: str | None = None,
    facts: Facts | None = None,
    stem: str = "",
) -> WorldTask:
    """A task with its gold turns.

    Args:
        seed: of everything that is drawn.
        level: 1 to 3; drawn if None (level 1 half as often as the others).
        kind: of `KINDS` of the level; drawn if None.
        facts: of the corpus. Without it a small corpus of the task's own is drawn.
        stem: of its file names; drawn if empty.

    Raises:
        ValueError: the level has no such kind.
    """
    rng = random.Random(f"tool task {seed}")
    level = level or rng.choice((1, 2, 2, 3, 3))
    kind = kind or rng.choice(KINDS[level])
    if kind not in KINDS[level]:
        raise ValueError(f"level {level} has no tasks of kind {kind!r}; it has {', '.join(KINDS[level])}")
    task = WorldTask(level, kind)
    stem = stem or rng.choice(STEMS)
    attributes = rng.sample(ATTRIBUTES, 2)
    names = rng.sample(ITEMS, 7)
    if facts is None:
        facts = draw_corpus(
            rng, [*names, *rng.sample([i for i in ITEMS if i not in names], 3)], rng.sample(MAKERS, 4)
        )
    draw = _DRAW[kind]
    if kind == "fact":
        draw(task, rng, facts, stem)
        return task
    task.document = f"{stem}.{rng.choice(TABLE_KINDS)}"
    keys = rng.sample(COLORS, rng.randint(3, 5)) if kind == "scene" else names[: rng.randint(3, 6)]
    column = "item" if kind == "scene" else attributes[0]
    values = iter(names) if kind == "scene" else iter(lambda: number(rng), "")
    task.table = [(key, {column: next(values)}) for key in keys]
    if task.document.endswith(".xlsx"):
        task.notes = [(names[-1], {attributes[1]: number(rng)})]
    if level == 3:
        task.picture = f"{stem}.png"
    draw(task, rng, facts, stem)
    return task


def _fact(rng: random.Random, facts: Facts, entity: str, level: int) -> str:
    """An attribute of the item; one that web_search does not find half of the time at level 3."""
    lead = [a for a in facts.lead(entity) if a != "maker"]
    deep = [a for a in facts.of[entity] if a not in facts.lead(entity)]
    return rng.choice(deep if level == 3 and deep and rng.random() < 0.5 else lead)


def _read_document(agent: _Agent, task: WorldTask) -> None:
    if task.picture and task.scene is None:
        agent.call(
            [], [("first read ", "plan"), (task.picture, "plan")], "vision_ocr", task.document, task.picture
        )
    first = "next read " if task.picture else "first read "
    agent.call(
        [], [(first, "plan"), (task.document, "plan")], "file_read", document_text(task), task.document
    )


def _look_up(
    agent: _Agent, facts: Facts, entity: str, attribute: str, seen: Sequence[Segment], first: bool = False
) -> list[Segment]:
    """Search a fact; returns the line of the next thought that copies the value."""
    query, corpus = f"{entity} {attribute}", facts.corpus
    result = snippet_text(corpus.search(query), query)
    plan = [("first search " if first else "next search ", "plan"), (query, "plan")]
    agent.call(seen, plan, "web_search", result, query)
    if attribute not in facts.lead(entity):
        page = page_text(corpus.search(query, whole=True))
        agent.call(
            [("no results", "layout"), ("\n", "layout")],
            [("so page ", "plan"), (query, "plan")],
            "enhanced_search",
            page,
            query,
        )
    return cell(entity, attribute, facts.of[entity][attribute])


def _calculate(agent: _Agent, seen: Sequence[Segment], left: str, sign: str, right: str) -> None:
    expression = f"{left}{sign}{right}"
    result = str(int(left) + int(right) if sign == "+" else int(left) - int(right))
    agent.call(seen, [("so calculate ", "plan"), (expression, "plan")], "calculate", result, expression)
    agent.finish([("result=", "layout"), (result, "lookup"), ("\n", "layout")], result)


def _draw_cell(task: WorldTask, rng: random.Random, facts: Facts, stem: str) -> None:
    entity, cells = rng.choice(task.table)
    attribute = rng.choice(list(cells))
    task.question = f"In {task.document}, what is the {attribute} of {entity}?"
    agent = _Agent(task, f" {attribute} of {entity}")
    _read_document(agent, task)
    agent.finish(cell(entity, attribute, cells[attribute]), cells[attribute])


def _draw_two_cells(task: WorldTask, rng: random.Random, facts: Facts, stem: str) -> None:
    (one, left), (two, right) = rng.sample(task.table, 2)
    a, b = rng.choice(list(left)), rng.choice(list(right))
    operation = rng.choice(list(OPERATIONS))
    goal = f" {operation} of {a} of {one} and {b} of {two}"
    task.question = f"In {task.document}, what is the{goal}?"
    agent = _Agent(task, goal)
    _read_document(agent, task)
    seen = [*cell(one, a, left[a]), *cell(two, b, right[b])]
    _calculate(agent, seen, left[a], OPERATIONS[operation], right[b])


def _draw_fact(task: WorldTask, rng: random.Random, facts: Facts, stem: str) -> None:
    entity = rng.choice([e for e in facts.of if e in ITEMS])
    attribute = _fact(rng, facts, entity, task.level)
    task.question = f"What is the {attribute} of {entity}?"
    agent = _Agent(task, f" {attribute} of {entity}")
    seen = _look_up(agent, facts, entity, attribute, [], first=True)
    agent.finish(seen, facts.of[entity][attribute])


def _where(task: WorldTask) -> str:
    return f"Image {task.picture} names a file. In it" if task.picture else f"In {task.document}"


def _draw_choice(task: WorldTask, rng: random.Random, facts: Facts, stem: str) -> None:
    attribute, mode = rng.choice(list(task.table[0][1])), rng.choice(("highest", "lowest"))
    operation = rng.choice(list(OPERATIONS))
    segments, best = comparison(task.table, attribute, mode)
    entity, cells = task.table[best]
    if task.kind == "own":
        wanted = _fact(rng, facts, entity, task.level)
        tail = f" {operation} of its {attribute} and its {wanted}"
    else:
        wanted, tail = "maker", f" {operation} of its {attribute} and the workers of its maker"
    task.question = f"{_where(task)}, take the item with the {mode} {attribute}. What is the{tail}?"
    agent = _Agent(task, f" {mode} {attribute};{tail}")
    _read_document(agent, task)
    seen = [("compare\n", "layout"), *segments, ("best ", "layout"), (entity, "entity"), ("\n", "layout")]
    seen = _look_up(agent, facts, entity, wanted, seen)
    value = facts.of[entity][wanted]
    if task.kind == "maker":
        maker, value = value, facts.of[value]["workers"]
        seen = _look_up(agent, facts, maker, "workers", seen)
    seen = [*cell(entity, attribute, cells[attribute]), *seen]
    _calculate(agent, seen, cells[attribute], OPERATIONS[operation], value)


def _draw_total(task: WorldTask, rng: random.Random, facts: Facts, stem: str) -> None:
    attribute = rng.choice(list(task.table[0][1]))
    entity = rng.choice([e for e in facts.of if e in ITEMS])
    wanted = _fact(rng, facts, entity, task.level)
    goal = f" total {attribute} minus the {wanted} of {entity}"
    task.question = f"{_where(task)}, what is the{goal}?"
    agent = _Agent(task, goal)
    _read_document(agent, task)
    lines = [
        s
        for i, (name, cells) in enumerate(task.table)
        for s in ((f"{i + 1}: ", "row_number"), *cell(name, attribute, cells[attribute], "row_name"))
    ]
    values = [cells[attribute] for _, cells in task.table]
    code = f"print(sum([{','.join(values)}]))"
    total = agent.call(lines, [("so code", "plan")], "code_exec", str(sum(map(int, values))), code)
    line = [("total=", "layout"), (total, "lookup"), ("\n", "layout")]
    seen = _look_up(agent, facts, entity, wanted, line)
    _calculate(agent, [*line, *seen], total, "-", facts.of[entity][wanted])


def _draw_scene(task: WorldTask, rng: random.Random, facts: Facts, stem: str) -> None:
    shape = rng.choice(SHAPES)
    color, cells = rng.choice(task.table)
    task.scene = (shape, color)
    item = cells["item"]
    one = _fact(rng, facts, item, task.level)
    two = rng.choice([a for a in facts.of[item] if a not in ("maker", one)])
    operation = rng.choice(list(OPERATIONS))
    tail = f" {operation} of its {one} and its {two}"
    place = f"Image {task.picture} shows a {shape}. In {task.document}"
    task.question = f"{place}, take the item of its color. What is the{tail}?"
    agent = _Agent(task, f" color of the {shape};{tail}")
    looking = f"What is the color of the {shape}?"
    agent.call(
        [], [("so look at ", "plan"), (task.picture, "plan")], "vision_analyze", color, task.picture, looking
    )
    plan = [("next read ", "plan"), (task.document, "plan")]
    seen = [("color=", "layout"), (color, "lookup"), ("\n", "layout")]
    agent.call(seen, plan, "file_read", document_text(task), task.document)
    seen = _look_up(agent, facts, item, one, cell(color, "item", item))
    seen = [*seen, *_look_up(agent, facts, item, two, seen)]
    _calculate(agent, seen, facts.of[item][one], OPERATIONS[operation], facts.of[item][two])


_DRAW = {
    "cell": _draw_cell,
    "two_cells": _draw_two_cells,
    "fact": _draw_fact,
    "own": _draw_choice,
    "maker": _draw_choice,
    "total": _draw_total,
    "scene": _draw_scene,
}


# ---------------------------------------------------------------------------------------- training sequences
def call_segments(call: GoldCall) -> Iterator[Segment]:
    """The tokens of a call, each with what it is; `argument_TOOL` for values."""
    yield '<tool_call>{"name": "', "open"
    yield call.name, "name"
    separator = '", "arguments": {"'
    for argument, value in call.arguments.items():
        yield f'{separator}{argument}": "', "layout"
        yield value, f"argument_{call.name}"
        separator = '", "'
    yield '"}}</tool_call>', "layout"


def actor_segments(task: WorldTask) -> list[Segment]:
    """The whole episode of the agent that thinks."""
    return _episode(task, thoughts=True)


def speculator_segments(task: WorldTask) -> list[Segment]:
    """The episode of the model that only predicts calls. At the last step it ends its turn at once."""
    return _episode(task, thoughts=False)


def _episode(task: WorldTask, thoughts: bool) -> list[Segment]:
    segments: list[Segment] = [(f"{USER}{task.question}{END}", None)]
    for turn in task.turns:
        segments += [(ASSISTANT, None), *(turn.thought if thoughts else ())]
        if turn.call is None:
            segments.append((END, "layout" if thoughts else "open"))
            continue
        segments += [*call_segments(turn.call), (END, "layout"), (f"{TOOL}{turn.call.result}{END}", None)]
    return segments


def drill_segments(seed: int | str) -> list[Segment]:
    """A dense exercise: one table, of which all rows are looked up in any order or compared."""
    rng = random.Random(f"drill {seed}")
    column, count = rng.choice(ATTRIBUTES), rng.randint(2, 7)
    rows = [(name, {column: number(rng)}) for name in rng.sample(ITEMS, count)]
    segments: list[Segment] = [(f"{TOOL}{_labelled(rows)}{END}{ASSISTANT}", None)]
    if rng.random() < 0.5:
        mode = rng.choice(("highest", "lowest"))
        segments.append((f"goal: {mode} {column}; sum of its {column}\ncompare\n", None))
        return segments + comparison(rows, column, mode)[0]
    for i in rng.sample(range(count), count):
        name, cells = rows[i]
        segments += [(f"{i + 1}: ", None), (name, "row_name")] if rng.random() < 0.5 else [(name, None)]
        segments += [(f" {column}=", None), (cells[column], "lookup"), ("\n", "layout")]
    return segments

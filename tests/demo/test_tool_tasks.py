from __future__ import annotations

import asyncio
import hashlib
import json

import pytest

from speceyes_lib.demo import tool_tasks, tool_vocabulary, tool_world
from speceyes_lib.demo.tool_tasks import (
    LAYOUTS,
    embedded_resources,
    embedded_toolbox,
    embedded_waits,
    waiting_share,
    world_tasks,
    write_tool_tasks,
)
from speceyes_lib.demo.tool_vocabulary import STEMS, TABLE_KINDS, VOCABULARY, decode, encode
from speceyes_lib.demo.tool_world import (
    KINDS,
    LEVELS,
    actor_segments,
    draw_task,
    drill_segments,
    speculator_segments,
)
from speceyes_lib.tasks.gaia import load_gaia
from speceyes_lib.tools.declared import Workspace


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tool_tasks")
    write_tool_tasks(folder, "validation", 8)
    return folder


@pytest.mark.parametrize("level", LEVELS)
def test_sequences_are_in_the_closed_vocabulary_and_tokens_do_not_depend_on_segments(level):
    for kind in KINDS[level]:
        for seed in range(8):
            task = draw_task(seed, level, kind)
            for segments in (actor_segments(task), speculator_segments(task), drill_segments(seed)):
                ids = [i for text, _ in segments for i in encode(text)]
                assert decode(ids) == "".join(text for text, _ in segments)
                assert encode(decode(ids)) == ids
                assert 20 < len(ids) < 700
    with pytest.raises(ValueError, match="not in the vocabulary"):
        encode("unheard")


def test_a_task_depends_on_its_seed_alone_and_its_answer_follows_from_its_calls():
    assert draw_task("a", 2) == draw_task("a", 2) != draw_task("b", 2)
    for seed in range(20):
        task = draw_task(seed, 2)
        *calls, last = task.turns
        assert last.call is None
        assert calls[-1].call.name == "calculate"
        assert task.answer == calls[-1].call.result == str(eval(calls[-1].call.arguments["expression"]))
    with pytest.raises(ValueError, match="level 1 has no tasks of kind 'total'"):
        draw_task(1, 1, "total")


def test_validation_and_test_tasks_share_no_question_and_all_kinds_occur():
    tests, validation = world_tasks("test"), world_tasks("validation")
    assert len(tests) == len(validation) == 120
    assert not {t.question for t in tests.values()} & {t.question for t in validation.values()}
    for tasks in (tests, validation):
        assert {(t.level, t.kind) for t in tasks.values()} == {
            (level, k) for level in LEVELS for k in KINDS[level]
        }
        assert {t.document.rpartition(".")[2] for t in tasks.values() if t.document} == set(TABLE_KINDS)
        names = [name for t in tasks.values() for name in {t.document, t.picture} - {""}]
        assert len(names) == len(set(names))
    assert len(STEMS) == 120
    calls = {level: [len(t.turns) - 1 for t in tests.values() if t.level == level] for level in LEVELS}
    assert [(min(calls[level]), max(calls[level])) for level in LEVELS] == [(1, 2), (3, 4), (4, 7)]


def test_the_tools_return_what_the_perfect_agent_reads(root, tmp_path):
    box, worlds = embedded_toolbox(), world_tasks("validation", 8)

    async def results():
        pairs = []
        for task in load_gaia(root / "folders"):
            world = worlds[task.task_id]
            seen = embedded_resources("validation", vision=lambda path, question, w=world: w.scene[1])
            workspace = Workspace(task.workspace(tmp_path / task.task_id), seen)
            for turn in world.turns:
                if turn.call and turn.call.name != "code_exec":
                    call = box.call(turn.call.name, turn.call.arguments)
                    pairs.append(((await box.execute(call, workspace)).message, turn.call.result))
        return pairs

    pairs = asyncio.run(results())
    assert len(pairs) > 60
    assert [a for a, b in pairs if a != b] == []


def test_both_layouts_hold_the_same_tasks_and_equal_seeds_give_equal_bytes(root, tmp_path):
    folders, official = (load_gaia(root / name) for name in LAYOUTS)
    assert [(t.task_id, t.level, t.question, t.answer, t.attachment) for t in folders] == [
        (t.task_id, t.level, t.question, t.answer, t.attachment) for t in official
    ]
    for one, two in zip(folders, official, strict=True):
        if one.attachment:
            assert one.attachment_path.read_bytes() == two.attachment_path.read_bytes()
    write_tool_tasks(tmp_path, "validation", 8)

    def digest(folder):
        files = sorted(p for p in folder.rglob("*") if p.is_file())
        return [(str(p.relative_to(folder)), hashlib.sha256(p.read_bytes()).hexdigest()) for p in files]

    assert digest(tmp_path) == digest(root)


def test_waits_fall_on_most_steps_and_grow_with_the_profile():
    assert 0.5 < waiting_share() < 0.9
    means = [
        embedded_waits(p, 0.1).mean_s for p in ("none", "long_thinking", "science", "research", "coding")
    ]
    assert means == sorted(means)
    assert means[0] == 0


def test_the_vocabulary_is_the_one_that_the_models_were_trained_with():
    assert len(VOCABULARY) == len(set(VOCABULARY)) <= 700
    text = json.dumps(VOCABULARY, ensure_ascii=False)
    assert hashlib.sha256(text.encode()).hexdigest() == VOCABULARY_HASH
    assert tool_vocabulary.TOKEN_IDS[VOCABULARY[-1]] == len(VOCABULARY) - 1
    assert len(tool_tasks.facts_of("test").of) == tool_world.ARTICLES


VOCABULARY_HASH = "c14ec1ad019fba5cfcf3fe3b280a5d0b339fe892d96391bbcd8ea0fb46881bb4"

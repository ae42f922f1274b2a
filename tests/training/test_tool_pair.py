from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from speceyes_lib.demo import tool_world
from speceyes_lib.demo.tool_vocabulary import ASSISTANT, END, TOKEN_IDS, VOCABULARY, encode
from speceyes_lib.errors import UserError
from speceyes_lib.training import tool_evaluation
from speceyes_lib.training.tool_pair import (
    DrillStalled,
    ToolPhase,
    ToolRecipe,
    ToolTrainer,
    build_tool_model,
    build_tool_tokenizer,
    load_tool_model,
    smoke_tool_recipe,
    train_tool_model,
)

MODELS = Path(__file__).parents[2] / "data" / "demo" / "models"


def messages_of(task):
    """The conversation of the perfect agent as the engine keeps it, with a note behind the question."""
    messages = [{"role": "user", "content": f"{task.question}\n\n[Attached file: {task.attachment}.]"}]
    for turn in task.turns:
        thought = "".join(text for text, _ in turn.thought)
        messages.append({"role": "assistant", "content": thought + (turn.call.text if turn.call else "")})
        if turn.call:
            messages.append({"role": "tool", "name": turn.call.name, "content": turn.call.result})
    return messages


@pytest.mark.parametrize("role", ["actor", "speculator"])
def test_the_tokenizer_gives_the_tokens_of_the_training(role):
    tokenizer = build_tool_tokenizer(role)
    segments = tool_world.actor_segments if role == "actor" else tool_world.speculator_segments
    for seed in range(12):
        task = tool_world.draw_task(seed)
        expected = [i for text, _ in segments(task) for i in encode(text)]
        text = tokenizer.apply_chat_template(messages_of(task), tokenize=False)
        assert tokenizer(text)["input_ids"] == expected
        assert tokenizer.decode(expected) == text
    begun = tokenizer.apply_chat_template(
        messages_of(task)[:1], tools=[{}], tokenize=False, add_generation_prompt=True
    )
    assert begun == f"<|user|>{task.question}{END}{ASSISTANT}"
    unknown = tokenizer("Error: nobody knows é")["input_ids"]
    assert TOKEN_IDS["<|unknown|>"] in unknown
    assert len(tokenizer) == len(VOCABULARY)


def test_an_actor_begins_with_heads_that_copy():
    torch.manual_seed(3)
    model = build_tool_model("actor").eval()
    model.set_attn_implementation("eager")
    ids = encode(tool_world.document_text(tool_world.draw_task(4, 1, "two_cells")))
    with torch.no_grad():
        first, second = model(torch.tensor([ids + ids]), output_attentions=True).attentions[:2]
    assert first[0, 0].diagonal(-1)[1:].mean() > 0.9
    assert first[0, 1].diagonal(-2)[1:].mean() > 0.9
    # in a text that comes twice, the place after the same token's first occurrence gets most of the attention
    length = len(ids)
    again = second[0, 0, length:]
    following = torch.zeros(length)
    for t in range(length):
        places = [s + 1 for s in range(length + t) if (ids + ids)[s] == ids[t]]
        following[t] = again[t, places].sum()
    assert following.mean() > 0.4


def test_a_drill_that_is_not_mastered_ends_the_attempt(tmp_path):
    recipe = ToolRecipe(
        (ToolPhase("drill", "drill", 2, mastery=2.0, min_steps=0),), tokens=256, max_attempts=2
    )
    with pytest.raises(DrillStalled, match="after 2 steps"):
        list(ToolTrainer("speculator", recipe, 1).run())
    lines = []
    with pytest.raises(UserError, match="no attempt mastered the drill"):
        train_tool_model("actor", 1, tmp_path / "out", recipe=recipe, report=lines.append)
    assert [line for line in lines if "attempt 1 (seed 1001) stalled" in line]


def test_a_smoke_run_writes_both_models_and_measures_them(tmp_path):
    actor, speculator = tmp_path / "actor", tmp_path / "speculator"
    with pytest.raises(UserError, match="train tools-actor first"):
        train_tool_model("speculator", 1, speculator, actor=actor, recipe=smoke_tool_recipe("speculator"))
    for role, out in (("actor", actor), ("speculator", speculator)):
        facts = train_tool_model(
            role, 1, out, actor=actor, recipe=smoke_tool_recipe(role), per_level=1, report=lambda line: None
        )
        assert json.loads((out / "training.json").read_text("utf-8")) == facts
        assert facts["which"] == f"tools-{role}"
        assert f"speceyes train tools-{role} --seed 1" in (out / "README.md").read_text("utf-8")
        assert sum(f.stat().st_size for f in out.iterdir()) < 3e6
        assert not (tmp_path / f"{role}.partial").exists()
        assert AutoTokenizer.from_pretrained(out).chat_template
        model = load_tool_model(out)
        assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert facts["validation"]["calls"] == 0  # an actor that has learned nothing calls nothing


def test_episodes_and_guesses_of_a_perfect_pair_are_perfect(monkeypatch):
    def perfect(model, prompts, limit, kept=2):
        turns = []
        for prompt in prompts:
            ids = continuations[model][tuple(prompt)]
            turns.append(
                [
                    (i, [i, TOKEN_IDS[END]] + [TOKEN_IDS["="]] * (kept - 2), [-0.1, *[-3.0] * (kept - 1)])
                    for i in ids
                ]
            )
        return turns

    worlds = tool_evaluation.world_tasks("validation", 4)
    continuations = {"actor": {}, "speculator": {}}
    for world in worlds.values():
        for role, segments in (
            ("actor", tool_world.actor_segments),
            ("speculator", tool_world.speculator_segments),
        ):
            prompt, own = [], []
            for text, tag in segments(world):
                if tag is None:
                    if own:
                        prompt, own = prompt + own, []
                    prompt = prompt + encode(text)
                    key = tuple(prompt)
                else:
                    own = own + encode(text)
                    continuations[role][key] = own
    monkeypatch.setattr(tool_evaluation, "greedy_turns", perfect)
    episodes = tool_evaluation.run_episodes("actor", "validation", 4)
    figures = tool_evaluation.actor_figures(episodes)
    assert (figures["solved"], figures["valid_calls"], figures["calls_of_perfect_agent"]) == (1.0, 1.0, 1.0)
    monkeypatch.setattr(tool_evaluation, "fork_prefixes", lambda *_: [])
    guesses = tool_evaluation.guess_frame("speculator", episodes)
    figures = tool_evaluation.speculator_figures(guesses)
    assert (figures["exact"], figures["hit_at_2"], figures["silent_at_last_step"]) == (1.0, 1.0, 1.0)
    assert len(guesses) == sum(len(w.turns) for w in worlds.values())
    assert guesses[guesses.name != ""].logprob_sum.max() < 0


@pytest.mark.parametrize("role", ["actor", "speculator"])
def test_the_committed_pair_belongs_to_this_vocabulary_and_its_card_has_what_was_measured(role):
    folder = MODELS / f"tools_{role}"
    facts = json.loads((folder / "training.json").read_text("utf-8"))
    assert facts["which"] == f"tools-{role}"
    assert AutoTokenizer.from_pretrained(folder).get_vocab() == TOKEN_IDS
    assert sum(p.numel() for p in load_tool_model(folder).parameters()) == facts["parameters"]
    share = facts["validation"]["solved" if role == "actor" else "exact"]
    assert f"| {share:.3f} |" in (folder / "README.md").read_text("utf-8")
    assert sum(f.stat().st_size for f in folder.iterdir()) < 3e6

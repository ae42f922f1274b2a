"""Training writes a complete folder, and the committed models do what the embedded run relies on."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path

import pytest
import torch

from speceyes_lib.agents import prompt_sets
from speceyes_lib.demo import scenes
from speceyes_lib.errors import UserError
from speceyes_lib.training import curriculum, evaluation, modeling, pretraining

MODELS = Path(__file__).parents[2] / "data" / "demo" / "models"
FILES = {
    "README.md",
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "training.json",
    "training_curve.csv",
}


@pytest.mark.parametrize("which", ["draft", "agent"])
def test_a_smoke_run_writes_the_whole_folder_and_leaves_nothing_beside_it(which: str, tmp_path) -> None:
    out = tmp_path / which
    out.mkdir()
    (out / "stale.txt").write_text("from an older training")
    lines: list[str] = []
    facts = pretraining.train(
        which, 3, out, recipe=pretraining.smoke_recipe(which), held_out=5, report_every=1, report=lines.append
    )
    assert [path.name for path in tmp_path.iterdir()] == [which]
    assert {path.name for path in out.iterdir()} == FILES
    assert json.loads((out / "training.json").read_text()) == facts
    assert facts["held_out"]["n"] == 5
    assert facts["attempts"][0]["outcome"] == "finished"
    with (out / "training_curve.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["phase"] for row in rows] == [phase.name for phase in pretraining.RECIPES[which].phases]
    assert all(float(row["loss"]) > 0 for row in rows)
    assert "--seed 3 --out FOLDER`" in (out / "README.md").read_text()
    assert any("joint" in line for line in lines)
    _, model = modeling.load_pair(out)
    assert model.dtype == torch.float32


def test_the_same_seed_trains_the_same_weights() -> None:
    def weights(seed: int) -> torch.Tensor:
        trainer = pretraining.Trainer("draft", pretraining.smoke_recipe("draft"), seed)
        with modeling.fast_vision():
            list(trainer.run())
        return torch.cat([p.detach().flatten() for p in trainer.model.parameters()])

    first = weights(1)
    torch.testing.assert_close(weights(1), first, rtol=0, atol=0)
    assert not torch.equal(weights(2), first)


def test_a_stalled_attempt_is_restarted_with_another_seed_and_reported(tmp_path) -> None:
    """All attempts stall when mastery cannot be reached; the message lists them, and nothing is written."""
    never = pretraining.Phase("look", "symbols", 3, "compact", mastery=1.0)
    recipe = pretraining.Recipe(phases=(never,), rows=2, max_attempts=2)
    with pytest.raises(UserError, match=r"'seed': 5, .*'seed': 1005"):
        pretraining.train("draft", 5, tmp_path / "x", recipe=recipe, report=lambda _: None)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_model_is_refused(tmp_path) -> None:
    with pytest.raises(UserError, match="choose from draft, agent"):
        pretraining.train("judge", 0, tmp_path)


def test_packed_questions_do_not_see_each_other() -> None:
    """The states of a question are the same alone and packed behind others: mask and positions restart."""
    trainer = pretraining.Trainer("draft", pretraining.smoke_recipe("draft"), 0)
    row = trainer.curriculum.row(symbolic=True, wording="full")
    *_, last = row.tails
    length = sum(len(trainer.packer.token_ids(text)) for text, _ in last)
    states: list[torch.Tensor] = []
    trainer.language.norm.register_forward_hook(lambda _module, _inputs, out: states.append(out))
    for tails in ([last], row.tails):
        batch = trainer.packer.pack([curriculum.Row(row.prefix, tails, row.looks)])
        with torch.no_grad():
            trainer.language_loss(batch, trainer.symbols(batch.looks), None, {})
        end = int((batch.ids[0] != trainer.tokenizer.pad_token_id).nonzero().max()) + 1
        states[-1] = states[-1][0, end - length : end]
    alone, packed = states
    torch.testing.assert_close(packed, alone, rtol=0, atol=1e-4)


def test_training_positions_are_those_of_the_models() -> None:
    trainer = pretraining.Trainer("agent", pretraining.smoke_recipe("agent"), 0)
    drawn = curriculum.Curriculum("agent", prompt_sets.load("demo"), random.Random(8))
    scene = scenes.sample_scene(random.Random(8), 0.3, 0.3)
    question = scenes.ask(scene, random.Random(8), "color")
    tail = drawn.zoom_tail(question, scenes.teacher_box(scene))
    looks = drawn.look(scene, symbolic=True, zoom_to=scenes.teacher_box(scene))
    batch = trainer.packer.pack([curriculum.Row(drawn.row(True, "full").prefix, [tail], looks)])
    used = int((batch.ids[0] != trainer.tokenizer.pad_token_id).nonzero().max()) + 1
    ids = batch.ids[:, :used]
    side = scenes.VIEW_PX // 8
    positions, _ = trainer.model.model.get_rope_index(
        ids,
        mm_token_type_ids=(ids == trainer.image_id).int(),
        image_grid_thw=torch.tensor([[1, side, side]] * 2),
        attention_mask=torch.ones_like(ids),
    )
    assert torch.equal(positions[-3:], batch.positions[:, :, :used])


# ------------------------------------------------------------------------------- the committed weights
@pytest.mark.parametrize("which", ["draft", "agent"])
def test_the_committed_folder_is_complete_and_small(which: str) -> None:
    assert {path.name for path in (MODELS / which).iterdir()} == FILES
    assert sum(path.stat().st_size for path in (MODELS / which).iterdir()) < 10e6
    facts = json.loads((MODELS / which / "training.json").read_text())
    assert facts["which"] == which
    assert facts["attempts"][-1]["outcome"] == "finished"


@pytest.mark.parametrize("which", ["draft", "agent"])
def test_the_committed_tokenizer_is_the_one_the_code_builds(which: str) -> None:
    processor, _ = modeling.load_pair(MODELS / which)
    assert processor.tokenizer.get_vocab() == modeling.build_tokenizer().get_vocab()


def test_the_committed_draft_is_good_but_not_too_good() -> None:
    measured = evaluation.evaluate("draft", MODELS / "draft", n=60, seed=4242)
    assert 0.6 < measured["accuracy"] < 0.97
    assert measured["auroc_min_separability"] > 0.7
    assert measured["not_an_option"] <= 2


def test_the_committed_agent_zooms_and_is_better_for_it() -> None:
    measured = evaluation.evaluate("agent", MODELS / "agent", n=60, seed=4242)
    assert measured["accuracy"] >= 0.85
    assert measured["hard_accuracy"] >= measured["hard_forced_look_accuracy"] + 0.1
    assert measured["zoom_share"] > 0.8
    assert measured["malformed_calls"] <= 1
    assert measured["router_sensible"] > 0.8

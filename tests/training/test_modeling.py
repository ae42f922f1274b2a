"""Tokenizer, processors and models of the embedded pair, fresh and as committed."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from speceyes_lib.agents import prompt_sets
from speceyes_lib.demo import scenes
from speceyes_lib.errors import UserError
from speceyes_lib.tasks.images import ImageSpec, view_size
from speceyes_lib.training import dialogue, modeling
from speceyes_lib.training.curriculum import Curriculum, Packer


@pytest.fixture(scope="module")
def tokenizer():
    return modeling.build_tokenizer()


def test_every_answer_word_is_one_token(tokenizer) -> None:
    for word in modeling.WORDS:
        for text in (word, f" {word}"):
            assert len(tokenizer(text)["input_ids"]) == 1, text


def test_text_survives_the_tokenizer(tokenizer) -> None:
    rng = random.Random(0)
    scene = scenes.sample_scene(rng, n_objects=3)
    for kind in ("color", "shape", "exist"):
        question = scenes.ask(scene, rng, kind)
        for text in (
            dialogue.zoom_turn(question, scenes.teacher_box(scene)),
            dialogue.answer_turn(question),
            f"{question.text} Ünïcode, 漢字 & digits 1234567890\n",
        ):
            assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_building_the_tokenizer_again_gives_the_same_vocabulary(tokenizer) -> None:
    assert modeling.build_tokenizer().get_vocab() == tokenizer.get_vocab()


def test_the_vocabulary_is_wide_enough_for_k_64(tokenizer) -> None:
    assert len(tokenizer) > 128


@pytest.mark.parametrize("which", ["draft", "agent"])
def test_training_rows_read_exactly_like_the_dialogue_at_inference(tokenizer, which: str) -> None:
    """The trainer tokenises piece by piece; the chat template and one tokenizer call must give the same tokens."""
    prompts = prompt_sets.load("demo")
    processor = modeling.build_processor(which, tokenizer)
    rng = random.Random(4)
    curriculum, packer = Curriculum(which, prompts, rng), Packer(tokenizer)
    scene = scenes.sample_scene(rng, 0.2, 0.2, n_objects=2)
    question = scenes.ask(scene, rng, "color")
    picture = scenes.render(scene, rng)
    messages = (prompts.draft_messages if which == "draft" else prompts.agent_messages)(
        curriculum.block(question), picture
    )
    row = curriculum.row(symbolic=True, wording="full")
    tails = {
        "direct": (curriculum.answer_tail(question, scene, "full"), [picture]),
    }
    if which == "draft":
        turns = {"direct": [{"role": "assistant", "content": question.reply}]}
    else:
        box = scenes.teacher_box(scene)
        tails["zoom"] = (curriculum.zoom_tail(question, box), [picture, scenes.view(picture, box)])
        answer = {"role": "assistant", "content": dialogue.answer_turn(question)}
        call = {"role": "assistant", "content": dialogue.zoom_turn(question, box)}
        turns = {"direct": [answer], "zoom": [call, prompts.tool_response(picture), answer]}
    for name, (tail, pictures) in tails.items():
        ours = [t for text, _ in [*row.prefix, *tail] for t in packer.token_ids(text)]
        text = processor.apply_chat_template([*messages, *turns[name]], tokenize=False)
        theirs = processor(text=[text], images=[pictures], return_tensors="pt")["input_ids"][0].tolist()
        assert theirs == [*ours, *tokenizer("\n")["input_ids"]], name


@pytest.mark.parametrize("size_px", [96, 188, 286, 349, 384, 545, 608, 1008, 1536])
@pytest.mark.parametrize("which", ["draft", "agent"])
def test_every_square_picture_becomes_36_visual_tokens(tokenizer, which: str, size_px: int) -> None:
    from PIL import Image

    processor = modeling.build_processor(which, tokenizer)
    inputs = processor.image_processor(images=[Image.new("RGB", (size_px, size_px))], return_tensors="pt")
    assert inputs["image_grid_thw"].tolist() == [[1, 12, 12]]


@given(st.integers(8, 8000), st.integers(8, 8000))
@settings(deadline=None)
def test_a_picture_resized_twice_is_resized_once(width: int, height: int) -> None:
    spec = ImageSpec(16, modeling.PIXELS["shortest_edge"], modeling.PIXELS["longest_edge"])
    assume(max(width, height) <= 40 * min(width, height))
    once = view_size(width, height, spec)
    assert view_size(*once, spec) == once


@given(st.integers(96, 8000), st.integers(-1, 1))
@settings(deadline=None)
def test_a_crop_that_is_nearly_square_becomes_36_visual_tokens(side: int, off: int) -> None:
    spec = ImageSpec(16, modeling.PIXELS["shortest_edge"], modeling.PIXELS["longest_edge"])
    assert view_size(side, side + off, spec) == (96, 96)


@pytest.mark.parametrize("which", ["draft", "agent"])
def test_a_saved_model_gives_the_same_logits_through_the_auto_classes(
    tokenizer, which: str, tmp_path
) -> None:
    torch.manual_seed(0)
    model = modeling.build_model(which, tokenizer).eval()
    processor = modeling.build_processor(which, tokenizer)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    loaded_processor, loaded = modeling.load_pair(tmp_path)
    assert type(loaded) is type(model)
    assert type(loaded_processor) is type(processor)
    prompts = prompt_sets.load("demo")
    picture = scenes.render(scenes.sample_scene(random.Random(0)), random.Random(0), 500)
    text = processor.apply_chat_template(
        prompts.agent_messages("Is it?", picture), tokenize=False, add_generation_prompt=True
    )
    with torch.no_grad():
        before = model(**processor(text=[text], images=[picture], return_tensors="pt")).logits
        after = loaded(**loaded_processor(text=[text], images=[picture], return_tensors="pt")).logits
    torch.testing.assert_close(after, before, rtol=0, atol=1e-5)


@pytest.mark.parametrize("which", ["draft", "agent"])
def test_the_training_speed_up_changes_nothing_and_is_undone(tokenizer, which: str) -> None:
    torch.manual_seed(1)
    model = modeling.build_model(which, tokenizer).eval()
    images = [
        scenes.view(scenes.render(scenes.sample_scene(random.Random(s)), random.Random(s))) for s in range(3)
    ]
    inputs = modeling.build_processor(which, tokenizer).image_processor(images=images, return_tensors="pt")

    def features() -> torch.Tensor:
        with torch.no_grad():
            out = model.model.get_image_features(
                inputs["pixel_values"], inputs["image_grid_thw"], return_dict=True
            )
        return torch.cat(list(out.pooler_output))

    forward = type(model.model.visual.blocks[0].attn).forward
    plain = features()
    with modeling.fast_vision():
        assert type(model.model.visual.blocks[0].attn).forward is not forward
        torch.testing.assert_close(features(), plain, rtol=0, atol=1e-4)
    assert type(model.model.visual.blocks[0].attn).forward is forward


def test_an_empty_model_folder_is_a_clear_error(tmp_path) -> None:
    with pytest.raises(UserError, match=r"config\.json is missing"):
        modeling.load_pair(tmp_path)

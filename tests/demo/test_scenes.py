"""The synthetic scenes: honest answers, boxes that cover, reproducible and sharp pictures."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speceyes_lib.demo import scenes
from speceyes_lib.judging.option_reader import named_option

SEEDS = st.integers(0, 2**32)


@given(SEEDS, st.sampled_from(scenes.KINDS))
@settings(max_examples=200, deadline=None)
def test_an_answer_is_what_the_scene_shows(seed: int, kind: str) -> None:
    rng = random.Random(seed)
    scene = scenes.sample_scene(rng)
    if not scenes.admits(scene, kind):
        with pytest.raises(ValueError, match="admits no"):
            scenes.ask(scene, rng, kind)
        return
    question = scenes.ask(scene, rng, kind)
    by_shape = {o.shape: o for o in scene.objects}
    assert question.options.count(question.answer) == 1
    assert len(set(question.options)) == len(question.options)
    if kind == "exist":
        assert (question.target_shapes[0] in by_shape) == (question.answer == "yes")
        assert question.target_shapes[0] in question.text
    elif kind in ("color", "shape"):
        target = by_shape[question.target_shapes[0]]
        assert {target.shape, target.color} >= {question.answer}
        assert (target.shape if kind == "color" else target.color) in question.text
    else:
        a, b = (by_shape[shape] for shape in question.target_shapes)
        assert question.text.index(a.shape) < question.text.index(b.shape)
        holds = {"left": a.x < b.x, "right": a.x > b.x, "above": a.y < b.y, "below": a.y > b.y}
        assert holds[question.answer]
        if kind == "place":  # only one of the four is a sensible answer: the other axis is level
            assert abs(a.x - b.x if question.answer in ("above", "below") else a.y - b.y) < 0.06 * scene.w


@given(SEEDS, st.floats(scenes.W_MIN, scenes.W_MAX))
@settings(max_examples=200, deadline=None)
def test_the_teachers_box_is_a_square_of_whole_tokens_around_every_object(seed: int, w: float) -> None:
    scene = scenes.sample_scene(random.Random(seed), w, w)
    x1, y1, x2, y2 = scenes.teacher_box(scene)
    assert x2 - x1 == y2 - y1 > 0
    assert all(v % scenes.CELL_PX == 0 and 0 <= v <= scenes.VIEW_PX for v in (x1, y1, x2, y2))
    largest = scenes.ZOOM_CELLS * scenes.CELL_PX
    assert x2 - x1 <= largest
    if x2 - x1 == largest:  # the middle of a wider square, to one token
        for low, axis in ((x1, "x"), (y1, "y")):
            spots = [getattr(o, axis) for o in scene.objects]
            middle = (min(spots) + max(spots)) / 2 * scenes.VIEW_PX
            assert abs(low + largest / 2 - middle) <= 1.2 * scenes.CELL_PX
        return
    for o in scene.objects:
        for low, high, centre in ((x1, x2, o.x), (y1, y2, o.y)):
            assert low - 1 <= (centre - o.r) * scenes.VIEW_PX
            assert (centre + o.r) * scenes.VIEW_PX <= high + 1


@given(SEEDS, st.sampled_from(scenes.KINDS))
@settings(max_examples=100, deadline=None)
def test_a_reply_names_its_option_and_is_true(seed: int, kind: str) -> None:
    rng = random.Random(seed)
    scene = scenes.sample_scene(rng)
    if not scenes.admits(scene, kind):
        return
    question = scenes.ask(scene, rng, kind)
    named, _ = named_option(question.reply, None if kind == "exist" else question.options)
    assert question.answer == (named if kind == "exist" else question.options[named])
    assert [goal for _, goal in question.reply_parts()].count(kind) == 1
    by_shape = {o.shape: o.color for o in scene.objects}
    if question.reason:
        assert by_shape[question.target_shapes[0]] == question.reason
    assert bool(question.reason) == (question.answer == "yes")


def test_an_object_is_drawn_inside_its_box_and_nowhere_else() -> None:
    rng = random.Random(3)
    scene = scenes.sample_scene(rng, 0.5, 0.5, shapes=["star"])
    pixels = np.asarray(scenes.render(scene, rng, 384)).astype(int)
    vivid = pixels.max(2) - pixels.min(2) > 90  # the ground is nearly grey
    ys, xs = np.nonzero(vivid)
    x1, y1, x2, y2 = (v * 384 for v in scenes.object_box(scene.objects[0]))
    assert x1 - 1 <= xs.min() < x1 + 8
    assert x2 - 8 < xs.max() <= x2 + 1
    assert y1 - 1 <= ys.min() < y1 + 8
    assert ys.max() <= y2 + 1


def test_the_same_seed_gives_the_same_scene_question_and_picture() -> None:
    def draw(seed: int) -> tuple:
        rng = random.Random(seed)
        scene = scenes.sample_scene(rng, 0.2, 0.4)
        return scene, scenes.ask(scene, rng, "color"), scenes.render(scene, rng, 800).tobytes()

    assert draw(5) == draw(5)
    assert draw(5) != draw(6)


def test_backgrounds_of_another_seed_share_no_picture() -> None:
    ours = {ground.tobytes() for ground in scenes.bank(1, count=4, side_px=64)}
    theirs = {ground.tobytes() for ground in scenes.bank(2, count=4, side_px=64)}
    assert len(ours | theirs) == 8


@pytest.mark.parametrize("size_px", [384, 768, 1536])
def test_pictures_are_sharp_at_every_size(size_px: int) -> None:
    rng = random.Random(1)
    scene = scenes.sample_scene(rng, 0.4, 0.4, shapes=["square", "cross"])
    picture = scenes.render(scene, rng, size_px)
    assert picture.size == (size_px, size_px)
    left = scenes.object_box(scene.objects[0])[0]
    square = scene.objects[0]
    edge = round((square.x - 0.85 * square.r) * size_px)
    assert left * size_px < edge
    row = np.asarray(picture).astype(int)[round(square.y * size_px)]
    # from ground to object within two pixels, whatever the size
    inside, outside = row[edge + 2], row[edge - 2]
    assert np.abs(inside - np.array(scenes.COLOR_RGB[square.color])).max() <= 18
    assert np.abs(inside - outside).max() > 40


def test_a_crop_of_a_hard_picture_shows_what_the_whole_view_hides() -> None:
    rng = random.Random(2)
    scene = scenes.sample_scene(rng, 0.13, 0.13, shapes=["circle", "square"])
    picture = scenes.render(scene, rng, 768)

    def vivid_share(view) -> float:
        pixels = np.asarray(view).astype(int)
        return float((pixels.max(2) - pixels.min(2) > 90).mean())

    whole, crop = scenes.view(picture), scenes.view(picture, scenes.teacher_box(scene))
    assert whole.size == crop.size == (scenes.VIEW_PX, scenes.VIEW_PX)
    assert vivid_share(crop) > 4 * vivid_share(whole)


def test_requested_shapes_are_the_shapes_of_the_scene() -> None:
    scene = scenes.sample_scene(random.Random(0), shapes=["star", "cross", "circle"])
    assert [o.shape for o in scene.objects] == ["star", "cross", "circle"]
    assert scenes.exist_question(scene, "star").answer == "yes"
    assert scenes.exist_question(scene, "square").answer == "no"


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"shapes": ["star", "star"]}, "different"),
        ({"shapes": ["hexagon"]}, "different ones of"),
        ({"shapes": ["star"], "n_objects": 2}, "n_objects is 2"),
        ({"n_objects": 5}, "must be 1-4"),
    ],
)
def test_impossible_scenes_are_refused(request_: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        scenes.sample_scene(random.Random(0), **request_)

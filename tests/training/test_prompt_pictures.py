"""Pictures of training prompts are drawn again, and only those that the run showed."""

from __future__ import annotations

from PIL import ImageChops

from speceyes_lib.training.grpo import Settings, draw_prompt
from speceyes_lib.training.prompt_pictures import pictures_of_prompts


def test_the_picture_of_a_prompt_is_drawn_again_where_the_text_is_its_own():
    of = pictures_of_prompts(
        {("bonus", 2): {"seed": 2, "hard_share": Settings().hard_share}, ("theirs", 0): {}}
    )
    prompt = draw_prompt(2, 5, 3, Settings().hard_share)
    picture, size = of("bonus", 2, 5, 3, f"{prompt.question.text}\nOptions: a, b")
    assert ImageChops.difference(picture, prompt.picture).getbbox() is None
    assert size == (96, 96)
    assert of("bonus", 2, 5, 3, "What is on the table?") is None
    assert of("theirs", 0, 5, 3, prompt.question.text) is None
    assert of("bonus", 0, 5, 3, prompt.question.text) is None

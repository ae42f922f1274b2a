"""Wording is data: filled literally, validated on load, the same messages for every caller."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from speceyes_lib.agents import prompt_sets
from speceyes_lib.errors import ConfigError

DEMO = prompt_sets.load("demo")


def test_every_shipped_prompt_set_loads():
    assert prompt_sets.available() == ["deepeyes", "demo", "demo_thyme", "thyme"]
    for name in prompt_sets.available():
        assert prompt_sets.load(name).name == name


def test_options_are_listed_in_the_order_given():
    block = prompt_sets.load("deepeyes").question_block("Which colour?", ["red", "blue"])
    assert block.splitlines() == ["Which colour?", "A. red", "B. blue"]


def test_yes_no_questions_offer_no_letters():
    block = prompt_sets.load("deepeyes").question_block("Is there a star?", None)
    assert block.startswith("Is there a star?")
    assert "A." not in block


@given(st.text(max_size=60))
def test_braces_in_a_question_are_text_not_placeholders(question):
    block = DEMO.question_block(question, ["{question}", "{x}"])
    assert block == question + "\nOptions: {question}, {x}"


def test_the_image_stands_before_the_text_in_every_phase():
    image = object()
    for messages in (
        DEMO.draft_messages("q", image),
        DEMO.agent_messages("q", image),
        DEMO.router_messages("q", image),
    ):
        system, user = messages
        assert system["role"] == "system"
        assert user["role"] == "user"
        assert user["content"][0] == {"type": "image", "image": image}
        assert user["content"][1]["text"].startswith("q")


def test_the_router_speaks_with_the_voice_of_the_model_that_routes():
    assert DEMO.router_messages("q", None, by="large")[0]["content"] == DEMO.agent_system
    assert DEMO.router_messages("q", None, by="small")[0]["content"] == DEMO.draft_system


def test_a_tool_response_wraps_an_image_or_a_text():
    crop = object()
    assert DEMO.tool_response(crop)["content"][1] == {"type": "image", "image": crop}
    assert DEMO.tool_response("no such tool", is_image=False)["content"][1]["text"] == "no such tool"


def test_an_unknown_name_suggests_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'deepeyes'"):
        prompt_sets.load("deepeye")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name: [", "not valid YAML"),
        ("name: x", "draft_system"),
        ("just a string", "valid dictionary"),
    ],
)
def test_a_broken_prompt_file_names_the_file_and_the_key(tmp_path, text, expected):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=expected) as e:
        prompt_sets.load(str(path))
    assert "mine.yaml" in str(e.value)


def test_an_unknown_key_in_a_prompt_file_is_refused(tmp_path):
    values = DEMO.model_dump() | {"ruter": "x"}
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(ConfigError, match="ruter"):
        prompt_sets.load(str(path))


def test_a_missing_prompt_file_says_so():
    with pytest.raises(ConfigError, match="cannot read the prompt file"):
        prompt_sets.load("nowhere/mine.yaml")

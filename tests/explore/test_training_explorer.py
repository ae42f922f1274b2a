"""The explorer of training without a browser: controls are attributes, texts of models stay texts."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from hostile import ATTACKS
from PIL import Image
from training_runs import write_run, write_runs

from speceyes_lib.explore import GroupView, TrainingExplorer
from speceyes_lib.explore.training_groups import SHOWN, score_sentence, training_boxes
from speceyes_lib.formats import read_training_runs


@pytest.fixture(scope="module")
def rollouts(tmp_path_factory) -> pd.DataFrame:
    folder = write_runs(tmp_path_factory.mktemp("t"), ("bonus", "no_bonus"), seeds=2, steps=4)
    return read_training_runs(folder).rollouts


@pytest.fixture
def explorer(rollouts) -> TrainingExplorer:
    explorer = TrainingExplorer(rollouts, pictures=lambda *_: (Image.new("RGB", (192, 192)), (96, 96)))
    assert explorer.message.value == ""
    return explorer


def test_it_begins_at_the_first_step_and_prompt_of_the_first_run(explorer, rollouts):
    assert (explorer.view.arm, explorer.view.seed, explorer.view.step) == ("bonus", 0, 1)
    assert explorer.step.options == (1, 2, 3, 4)
    assert len(explorer.prompt.options) == 4
    assert len(explorer.samples.rows) == 4
    advantages = [float(row["cells"][5]) for row in explorer.samples.rows]
    assert advantages == sorted(advantages, reverse=True)
    chosen = explorer.table[explorer.table["id"] == explorer.view.sample].iloc[0]
    assert chosen["advantage"] == pytest.approx(explorer.table.query("prompt == '0'")["advantage"].max())


def test_every_control_changes_the_view(explorer):
    explorer.run.value = ("no_bonus", 1)
    explorer.step.value = 3
    explorer.prompt.value = "2"
    assert (explorer.view.arm, explorer.view.seed, explorer.view.step) == ("no_bonus", 1, 3)
    assert "step 3, prompt 2" in explorer.question.value
    other = explorer.samples.rows[2]["id"]
    explorer.samples.chosen = other
    assert explorer.view.sample == other
    for show in SHOWN:
        explorer.show.value = show
        assert explorer.message.value == ""
        ids = {row["id"] for row in explorer.samples.rows}
        table = explorer.table[SHOWN[show](explorer.table)]
        assert ids <= set(table["id"])
        assert bool(ids) == bool(len(table))


def test_boxes_stand_over_the_picture_of_the_prompt(explorer):
    explorer.show.value = "with a crop"
    assert explorer.picture.data[:4] == b"\x89PNG"
    assert (explorer.picture.width, explorer.picture.height) == (96, 96)
    kinds = [box["kind"] for box in explorer.picture.boxes]
    assert kinds == ["target", "crop"]
    assert explorer.picture.boxes[0]["box"] == [10, 12, 40, 44]


def test_without_pictures_the_page_says_so_and_shows_the_rest(rollouts):
    explorer = TrainingExplorer(rollouts, GroupView("bonus", 1, 4))
    assert explorer.view.seed == 1
    assert explorer.picture.width == 0
    assert explorer.picture.message
    assert "&lt;answer&gt;red&lt;/answer&gt;" in explorer.trajectory.value


def test_groups_that_are_not_known_have_no_advantage_and_are_still_shown(rollouts):
    explorer = TrainingExplorer(rollouts.assign(group=float("nan")))
    assert explorer.message.value == ""
    assert [name for _, name in explorer.prompt.options] == ["group not known"]
    assert {row["cells"][5] for row in explorer.samples.rows} == {"–"}
    assert len(explorer.samples.rows) == 16


def test_a_run_without_dumps_is_reported_with_the_setting_that_writes_them():
    explorer = TrainingExplorer(pd.DataFrame(columns=["step", "set", "group"]))
    assert "trainer.rollout_data_dir" in explorer.message.value
    assert "No trajectory" in explorer.still().data


def test_texts_of_models_and_prompts_stay_texts(tmp_path):
    folder = write_run(tmp_path / "run", "bonus", 0, steps=1)
    dump = folder / "rollouts/1.jsonl"
    rows = [json.loads(line) for line in dump.read_text().splitlines()]
    for i, row in enumerate(rows):
        evil = ATTACKS[i % len(ATTACKS)].format("x")
        row |= {"input": f"{row['input']} {evil}", "output": evil, "gts": evil}
    dump.write_text("".join(json.dumps(row) + "\n" for row in rows))
    explorer = TrainingExplorer(read_training_runs(folder).rollouts)
    for entry in explorer.samples.rows:
        explorer.samples.chosen = entry["id"]
        shown = explorer.question.value + explorer.trajectory.value + explorer.still(sample=entry["id"]).data
        for tag in ("<script>w", "<img src=x", "<iframe", "<svg/", "<plaintext"):
            assert tag not in shown


def test_what_goes_to_the_browser_is_json(explorer):
    state = {k: v for k, v in explorer.samples.get_state().items() if not k.startswith("_")}
    json.dumps({key: state[key] for key in ("rows", "columns", "caption", "chosen")}, allow_nan=False)


@pytest.mark.parametrize(
    ("right", "format_error", "tool", "score", "text"),
    [
        (1, 1, 1, 1.8, "1.8 = +0.8 (right) -0.2 (format error) +1.2 (tool)"),
        (0, 1, 0, -0.2, "-0.2 = -0.2 (format error)"),
        (0, 0, 0, 0.0, "0: a wrong answer, or a judge that failed"),
        (float("nan"), float("nan"), float("nan"), 0.5, "0.5 is none of the recipe's six scores"),
    ],
)
def test_a_score_is_taken_apart_in_words(right, format_error, tool, score, text):
    row = {"right": right, "format_error": format_error, "tool": tool, "score": score, "advantage": 0.0}
    assert score_sentence(row).startswith(text)


@pytest.mark.parametrize(
    ("text", "boxes"),
    [
        ("[1, 2, 3, 4]", [[1, 2, 3, 4]]),
        ("[[1, 2, 3, 4], [5, 6, 7, 8.5]]", [[1, 2, 3, 4], [5, 6, 7, 8.5]]),
        ('[["a", 2, 3, 4], [1, 2]]', []), ("{", []), ("3", []), (None, []), (float("nan"), []), ("[]", []),
    ],
)  # fmt: skip
def test_boxes_are_read_from_any_text(text, boxes):
    assert training_boxes(text) == boxes

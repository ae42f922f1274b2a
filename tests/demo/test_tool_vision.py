from __future__ import annotations

import pytest

from speceyes_lib.demo.tool_tasks import files_of, world_tasks
from speceyes_lib.demo.tool_vision import GatedVision
from speceyes_lib.tools.worker import ToolError


def test_the_gated_pair_names_the_color_and_refuses_other_questions(tmp_path):
    task = next(t for t in world_tasks("validation").values() if t.scene)
    path = tmp_path / task.picture
    path.write_bytes(files_of(task, "validation")[task.picture])
    vision = GatedVision()
    assert vision(path, f"What is the color of the {task.scene[0]}?") == task.scene[1]
    assert 0 <= vision.accepted <= vision.answered == 2
    with pytest.raises(ToolError, match="such as 'What is the color of the star"):
        vision(path, "Who painted it?")

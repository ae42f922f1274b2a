"""Small training runs as verl writes them: of one arm the tool use grows, of another it collapses."""

from __future__ import annotations

import json
import random
from pathlib import Path

ARMS = ("bonus", "no_bonus", "rate_too_high")
CALL = '<tool_call>{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [1, 2, 30, 40]}}</tool_call>'
REPLY = "\nuser\n<tool_response>\nThe crop of [1, 2, 30, 40].\n</tool_response>\nassistant\n"


def write_run(folder: Path, arm: str, seed: int, steps: int = 12, prompts: int = 4, size: int = 4) -> Path:
    """Write metrics (file logger and console) and dumps of one run; returns its folder."""
    (folder / "rollouts").mkdir(parents=True)
    rng = random.Random(f"{arm} {seed}")
    for step in range(1, steps + 1):
        done, sick = step / steps, arm == "rate_too_high"
        rows = []
        for prompt in range(prompts):
            for member in range(size):
                tool = rng.random() < 0.2 + {"bonus": 0.7, "no_bonus": 0.3}.get(arm, 0.0) * done
                right = rng.random() < 0.6 + 0.2 * tool - 0.4 * sick * done
                wrong_format = rng.random() < 0.03 + 0.5 * sick * done
                bonus = 0.0 if arm == "no_bonus" else 1.2
                score = round(0.8 * right - 0.2 * wrong_format + bonus * (tool and right), 10)
                text = (
                    f"<think>Look.</think>{CALL}{REPLY}<think>I see.</think>"
                    if tool
                    else "<think>Look.</think>"
                )
                row = {
                    "input": f"prompt {step}.{prompt}",
                    "output": f"{text}<answer>red</answer>",
                    "gts": "red",
                }
                row |= {"score": score, "step": step, "uid": f"{step}-{prompt}_{member}_0"}
                row |= {"boxes": [[10 - member, 12, 40, 44]] if tool else [], "teacher_box": [10, 12, 40, 44]}
                rows.append(row)
        scores = [row["score"] for row in rows]
        turns = [2 + 2 * ("<tool_call>" in row["output"]) for row in rows]
        metrics = {
            "critic/score/mean": sum(scores) / len(scores),
            "critic/score/max": max(scores),
            "actor/entropy": (0.06 if not sick else 0.06 + 0.06 * done) + 0.001 * seed,
            "actor/grad_norm": 0.7,
            "num_turns/mean": sum(turns) / len(turns),
            "response_length/mean": 20.0 + 30.0 * done,
            "timing_s/step": 5.0,
        }
        (folder / f"rollouts/{step}.jsonl").write_text(
            "".join(json.dumps(row) + "\n" for row in rows), "utf-8"
        )
        with (folder / "metrics.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps({"step": step, "data": metrics}) + "\n")
        line = " - ".join([f"step:{step}", *(f"{key}:{value!r}" for key, value in metrics.items())])
        with (folder / "console.log").open("a", encoding="utf-8") as console:
            console.write(line + "\n")
    return folder


def write_runs(folder: Path, arms: tuple[str, ...] = ARMS, seeds: int = 3, **options: int) -> Path:
    """Write a run per arm and seed as `<arm>-<seed>`; returns the folder of them all."""
    for arm in arms:
        for seed in range(seeds):
            write_run(folder / f"{arm}-{seed}", arm, seed, **options)
    return folder

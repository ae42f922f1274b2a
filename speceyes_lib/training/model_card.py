"""The model card of a demo model, written only from the facts of its training run."""

from __future__ import annotations

_ROLES = {
    "draft": (
        "tool-free draft model",
        "`Qwen3VLForConditionalGeneration`",
        (
            "It answers a question about a picture in one short sentence that names the option. It is good on large "
            "targets, poor on tiny ones, and its answer separability mostly tells the two apart."
        ),
    ),
    "agent": (
        "zooming agent",
        "`Qwen2_5_VLForConditionalGeneration`",
        (
            "It thinks, calls `image_zoom_in_tool` on nearly every picture, reads the crop and answers inside "
            "`<answer>`. It zooms in to at most half the picture's side, also where that cuts a large object off. "
            "Asked whether zooming would help, it says yes or no."
        ),
    ),
}


def model_card(facts: dict) -> str:
    """Markdown README of a model folder. facts: the content of its training.json."""
    role, architecture, does = _ROLES[facts["which"]]
    held_out = facts["held_out"]
    finished = facts["attempts"][-1]
    stalled = len(facts["attempts"]) - 1
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    return f"""\
---
license: apache-2.0
library_name: transformers
pipeline_tag: image-text-to-text
---
# Demo {role}

A tiny {architecture} ({facts["parameters"] / 1e6:.2f} M parameters, stored in float16), trained from scratch for the
embedded run of the SpecEyes notebook suite.
{does}

**Intended use:** to run the whole pipeline for real on a laptop, and as a test object. It knows five shapes, five
colours and five kinds of questions about them. It understands nothing else, and no other wording than that of
`speceyes_lib/agents/prompts/demo.yaml`. Figures made with it show how the method works, not how good large models are.

**Data:** synthetic scenes of `speceyes_lib/demo/scenes.py`, drawn while training: two to four coloured shapes in a
window of side w = .12-.95 of a cluttered grey picture, seen at 96 x 96 px. No other data, no pretrained weights.

**Training:** `speceyes train {facts["which"]} --seed {facts["seed"]} --out FOLDER`, one command,
{facts["training_wall_s"] / 60:.0f} minutes of wall-clock on {facts["threads"]} CPU thread(s) ({facts["machine"]}).
Seed of the finished attempt {finished["seed"]}, attempts that stalled before it: {stalled}. Curves are in
`training_curve.csv` (means of ten steps; answers are scored by the word that names the option), all settings in
`training.json`. {versions}.

## Held-out figures

{held_out["n"]} samples of other seeds on backgrounds that no training picture used, half of them with w < .42, pictures
of 640-1408 px, stored weights loaded as float32, greedy. Shares, not percent.

{_tables(held_out)}
## Limits

Closed vocabulary of answers; pictures must be square and drawn like the training ones; the agent follows the zoom
dialogue of one turn and was never shown a second zoom or an error message. Another machine or library version may
train to slightly different weights from the same seed.
"""


_TOOL_ROLES = {
    "tools-actor": (
        "actor of the tool tasks",
        "It solves tasks step by step: a thought that copies and compares what it has read, then a call of a tool.",
    ),
    "tools-speculator": (
        "speculator of the tool tasks",
        (
            "It predicts the actor's next call from the question and the calls so far, without thinking. It is sure of "
            "what can be copied and unsure of choices that need a comparison. At the actor's last step it is silent."
        ),
    ),
}


def tool_model_card(facts: dict) -> str:
    """Markdown README of a model of the text pair. facts: the content of its training.json."""
    role, does = _TOOL_ROLES[facts["which"]]
    finished = facts["attempts"][-1]
    versions = ", ".join(f"{name} {number}" for name, number in facts["versions"].items())
    return f"""\
---
license: apache-2.0
library_name: transformers
pipeline_tag: text-generation
---
# Demo {role}

A tiny `Qwen3ForCausalLM` ({facts["parameters"] / 1e6:.2f} M parameters, stored in float16), trained from scratch for
the embedded tool tasks of the SpecEyes notebook suite. {does}

**Intended use:** to run speculative tool calls for real on a laptop, and as a test object. It has a closed vocabulary
and knows the wording of `speceyes_lib/demo/tool_world.py` and nothing else.

**Data:** tasks drawn while training, each with facts and tables of its own. All names occur in training; values, tables
and questions of the validation and test tasks do not. No other data, no pretrained weights.

**Training:** `speceyes train {facts["which"]} --seed {facts["seed"]} --out FOLDER`, one command,
{facts["training_cpu_s"] / 60:.1f} minutes of processor time on {facts["threads"]} thread(s) ({facts["machine"]}).
Seed of the finished attempt {finished["seed"]}, attempts that stalled before it: {len(facts["attempts"]) - 1}. Curves
are in `training_curve.csv` (means of ten steps), all settings in `training.json`. {versions}.

## Validation tasks

Stored weights loaded as float32, greedy, tools really executed; vision_analyze returns what the picture shows. Shares,
not percent. AUROC with its 95 % interval over tasks.

{_figures(facts["validation"])}
## Accuracy of next tokens at the end of the training

Given the right tokens before, mean of the last 50 steps, by what the token is.

{_table(("token", "share"), [(_words(k), _shown(v)) for k, v in facts["last_steps"].items()])}"""


def _figures(validation: dict) -> str:
    single = {k: v for k, v in validation.items() if not isinstance(v, dict)}
    text = _table(("measure", "value"), [(_words(k), _shown(v)) for k, v in single.items()])
    by = dict.fromkeys(k.rpartition("_by_")[2] for k, v in validation.items() if isinstance(v, dict))
    for key in by:
        grouped = {k.removesuffix(f"_by_{key}"): v for k, v in validation.items() if k.endswith(f"_by_{key}")}
        groups = list(next(iter(grouped.values())))
        lines = [(_words(k), *(_shown(v[g]) for g in groups)) for k, v in grouped.items()]
        text += "\n" + _table((f"by {key}", *groups), lines)
    return text


def _tables(held_out: dict) -> str:
    """Single figures in one table, figures by question kind and by w in one table each."""
    single = {k: v for k, v in held_out.items() if not isinstance(v, dict) and k not in ("n", "seed")}
    text = _table(("measure", "value"), [(_words(k), _shown(v)) for k, v in single.items()])
    for ending, heading in (("_by_kind", "by kind of question"), ("_by_w", "by window side w")):
        grouped = {k.removesuffix(ending): v for k, v in held_out.items() if k.endswith(ending)}
        groups = list(next(iter(grouped.values())))
        lines = [(_words(k), *(_shown(v[g]) for g in groups)) for k, v in grouped.items()]
        text += "\n" + _table((heading, *groups), lines)
    return text


def _table(head: tuple[str, ...], lines: list[tuple[str, ...]]) -> str:
    rule = ("---",) * len(head)
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (head, rule, *lines))


def _words(name: str) -> str:
    return name.replace("_", " ").replace("auroc", "AUROC").replace("iou", "IoU")


def _shown(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, list):
        return " ".join(f"{v:.2f}" for v in value)
    return str(value)

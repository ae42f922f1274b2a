"""A benchmark and a server whose every text tries to leave its place in a page."""

from __future__ import annotations

import base64
import contextlib
import io
import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path

from PIL import Image
from servers import Server, completion, scripted_server
from training_runs import write_run

TASKS = ["vstar/direct_attributes", "hr/hr_bench_4k", "pope/random"]
ALTERNATIVES = 64
# what each place tries: script, handlers, frames, styles, a comment that swallows the rest, Markdown, formulas
ATTACKS = (
    "<script>window.attacked='{0}'</script>",
    "\"'><img src=x onerror=\"window.attacked='{0}'\">",
    "</td></table></pre></code></details><iframe srcdoc='{0}'></iframe>",
    "</title></textarea></style><style>body,.{0}{{display:none!important}}</style>",
    "<svg/onload=window.attacked='{0}'><!--",
    "`[{0}](javascript:window.attacked='{0}')` | <plaintext>",
    r"$\phantom{{x}}$ \(\class{{{0}}}{{x}}\) $$\href{{javascript:window.attacked='{0}'}}{{y}}$$",
)
_numbers = itertools.count()


def attack(place: str) -> str:
    """The next attack of a place; the word "evil" and the place stand before it, to be looked for in a page."""
    return f"evil-{place} " + ATTACKS[next(_numbers) % len(ATTACKS)].format(f"evil-{place}")


def write_benchmark(root: Path, n: int = 4) -> None:
    """`n` samples of each of TASKS, hostile in questions, options, names of files and of targets, and categories."""
    picture = io.BytesIO()
    Image.new("RGB", (80, 60), "grey").save(picture, "JPEG")
    vstar, pope = root / "vstar" / "direct_attributes", root / "pope"
    for folder in (vstar, pope / "val2014", root / "hr"):
        folder.mkdir(parents=True)
    rows, lines = [], []
    for i in range(n):
        name = f"evil-id{i} <img src=x onerror=window.attacked='id'> $x^2$"
        (vstar / f"{name}.jpg").write_bytes(picture.getvalue())
        options = ["red", "blue", attack("option"), "green"]
        entry = {"target_object": [attack("target")], "bbox": [[4, 4, 30, 20]], "options": options}
        (vstar / f"{name}.json").write_text(json.dumps(entry | {"question": f"{attack('question')} #{i}"}))
        image = base64.b64encode(picture.getvalue()).decode()
        question = f"{attack('question')} #{i}".replace('"', "&quot;")
        rows.append([str(i), question, "A", "single", "red", "blue", "green", "white", str(i), image])
        (pope / "val2014" / f"{name}.jpg").write_bytes(picture.getvalue())
        line = {
            "question_id": name,
            "image": f"{name}.jpg",
            "text": f"{attack('question')} #{i}",
            "label": "yes",
        }
        lines.append(json.dumps(line))
    head = ["index", "question", "answer", "category", "A", "B", "C", "D", "cycle_category", "image"]
    (root / "hr" / "hr_bench_4k.tsv").write_text("\n".join("\t".join(row) for row in [head, *rows]))
    (pope / "coco_pope_random.json").write_text("\n".join(lines))


def write_training(folder: Path) -> None:
    """A training run, hostile in the names of metrics and data sources, in prompts, outputs and truths."""
    run = write_run(folder / "evil-arm <img src=x onerror=window.attacked='arm'>-0", "bonus", 0, steps=2)
    for dump in run.glob("rollouts/*.jsonl"):
        rows = [json.loads(line) for line in dump.read_text("utf-8").splitlines()]
        for row in rows:
            row["input"] += f" {attack('question')}"
            row["output"] = f"<think>{attack('thought')}</think>{row['output']}{attack('answer')}"
            row["gts"] = attack("answer")
        dump.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    with (run / "console.log").open("a", encoding="utf-8") as log:
        log.write(f"step:2 - val-core/{attack('metric')}/acc/mean@1:0.5 - {attack('metric')}\n")


def _reply(_: int, body: dict) -> tuple[int, dict]:
    """A draft, a routing, a turn of the agent or a verdict, by what the request asks for and its sample's number.

    The draft of sample 3 is refused, and so are the turns of the agent for sample 2.
    """
    text = json.dumps([m["content"] for m in body["messages"] if m["role"] == "user"])
    number = int(re.findall(r"#(\d)", text)[0]) if "#" in text else 0
    if "judge" in body["model"]:
        return 200, completion(f"{attack('judge')} Judgement: {number % 2}")
    routing, turns = body["max_tokens"] <= 10, sum(m["role"] == "assistant" for m in body["messages"])
    if "logprobs" in body and not routing:
        if number == 3:
            return 400, {"error": {"message": attack("error")}}
        word = ("A", "B")[number % 2] if "red" in text else ("yes", "no")[number % 2]
        texts = [word, f" {attack('answer')}"]
        k, gap = body["top_logprobs"], 8.0 - 3 * number
        tokens = [{"token": t, "logprob": -0.01, "top_logprobs": _alternatives(t, gap, k)} for t in texts]
        return 200, completion("".join(texts), logprobs={"content": tokens})
    if routing:
        texts = [("no", "yes")[number % 2], f" {attack('router')}"]
        k = body.get("top_logprobs", 0)
        tokens = [{"token": t, "logprob": -0.01, "top_logprobs": _alternatives(t, 3.0, k)} for t in texts]
        return 200, completion("".join(texts), **({"logprobs": {"content": tokens}} if k else {}))
    if number == 2:
        return 400, {"error": {"message": attack("error")}}
    thought = f"<think>{attack('thought')}</think>"
    box = [2, 2, 60, 40] if turns == 0 else [attack("box"), 2, 3, 4]
    name = "image_zoom_in_tool" if turns < 2 else attack("tool")
    call = {"name": name, "arguments": {"bbox_2d": box, "label": attack("label")}}
    if turns < (1, 3)[number % 2]:
        return 200, completion(f"{thought}<tool_call>{json.dumps(call)}</tool_call>")
    return 200, completion(f"{thought}<answer>{'AB'[number % 2]} {attack('answer')}</answer>")


def _alternatives(text: str, gap: float, k: int) -> list[dict]:
    others = [
        {"token": attack("alternative"), "logprob": -gap - i / 9} for i in range(min(k, ALTERNATIVES) - 1)
    ]
    return [{"token": text, "logprob": -0.01}, *others]


@contextlib.contextmanager
def hostile_server() -> Iterator[Server]:
    """A server of models "draft", "agent" and "judge"."""
    with scripted_server(_reply) as server:
        yield server


def places(text: str) -> set[str]:
    """The places whose text begins somewhere in a page."""
    return set(re.findall(r"evil-([a-z]+)", text))

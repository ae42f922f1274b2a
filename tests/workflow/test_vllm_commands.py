"""The commands for vLLM follow the config, and every config in the repository is valid."""

from __future__ import annotations

import json
import shlex

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from speceyes_lib.errors import ConfigError
from speceyes_lib.paths import PACKAGE
from speceyes_lib.tasks.images import ImageSpec, view_size
from speceyes_lib.workflow import vllm_commands
from speceyes_lib.workflow.cli import main
from speceyes_lib.workflow.config import RunConfig
from speceyes_lib.workflow.plan import load_config, plan
from speceyes_lib.workflow.reproduce import check
from tests.conftest import MODELS

CONFIGS = sorted((PACKAGE.parent / "configs").glob("*.yaml"))


def config_of(tmp_path, text: str):
    path = tmp_path / "x.yaml"
    path.write_text("name: x\ngate: {threshold: 0.97}\n" + text)
    return load_config(path)


def options(server: vllm_commands.Server) -> dict[str, str]:
    words = shlex.split(server.command.replace("\\\n", ""))
    return dict(zip(words[3::2], words[4::2], strict=True)) | {"serve": words[2]}


def test_what_scores_and_boxes_depend_on_is_pinned(tmp_path):
    config = config_of(
        tmp_path,
        "draft: {k_store: 96}\n"
        "agent: {max_turns: 3}\n"
        "models:\n"
        "  max_pixels: 1000000\n"
        "  draft: http://127.0.0.1:8001/v1?model=Qwen/Qwen3-VL-2B-Instruct&processor=qwen3_vl&concurrency=64\n"
        "  agent: http://gpu2:8002/v1?model=ChenShawn/DeepEyes-7B&processor=qwen2_5_vl&key_env=MY_KEY\n"
        "judging: {judge: 'http://127.0.0.1:8003/v1?model=Qwen/Qwen2.5-72B-Instruct'}\n",
    )
    draft, agent, judge = vllm_commands.servers(config)
    given = options(draft)
    assert (draft.role, given["serve"], given["--host"], given["--port"]) == (
        "draft",
        "Qwen/Qwen3-VL-2B-Instruct",
        "127.0.0.1",
        "8001",
    )
    assert (given["--max-logprobs"], given["--max-num-seqs"]) == ("96", "64")
    assert (given["--generation-config"], given["--logprobs-mode"]) == ("vllm", "raw_logprobs")
    assert len(given["--revision"]) == 40
    assert json.loads(given["--mm-processor-kwargs"]) == {"do_resize": False}
    assert json.loads(given["--limit-mm-per-prompt"])["image"] == 1
    given = options(agent)
    assert (given["--host"], given["--api-key"]) == ("0.0.0.0", "$MY_KEY")
    assert "--max-logprobs" not in given  # the router's few are within what vLLM allows anyway
    assert json.loads(given["--limit-mm-per-prompt"])["image"] == 4
    assert judge.role == "judge"
    assert "--limit-mm-per-prompt" not in options(judge)


@settings(max_examples=25)
@given(
    st.sampled_from([14, 16]),
    st.integers(1, 20_000),
    st.integers(0, 20_000),
    st.integers(1, 2000),
    st.integers(1, 2000),
)
@example(8, 9000, 300, 900, 600)
def test_a_server_sees_views_as_they_are_sent(patch, least, more, width, height):
    from transformers import Qwen2VLImageProcessor

    assume(max(width, height) <= 200 * min(width, height))
    url = "http://127.0.0.1:8001/v1?model=m&processor=qwen3_vl"
    config = RunConfig(name="x", models={"draft": url}, gate={"threshold": 0.9})
    kwargs = json.loads(options(vllm_commands.servers(config)[0])["--mm-processor-kwargs"])
    size = {"shortest_edge": least, "longest_edge": least + more}
    processor = Qwen2VLImageProcessor(patch_size=patch, size=size, **kwargs)
    view = view_size(width, height, ImageSpec(2 * patch, least, least + more))
    _, rows, columns = processor(images=[Image.new("RGB", view)])["image_grid_thw"][0]
    assert (columns * patch, rows * patch) == view


def test_replicas_get_a_command_each_and_folders_none(tmp_path, capsys):
    lines = "http://a:8001/v1?model=m&processor=qwen3_vl http://b:8001/v1?model=m&processor=qwen3_vl"
    config = config_of(tmp_path, f"models: {{draft: '{lines}'}}\n")
    assert [s.endpoint.base_url for s in vllm_commands.servers(config)] == [
        "http://a:8001/v1",
        "http://b:8001/v1",
    ]
    assert main(["serve-commands", "configs/demo.yaml"]) == 0
    assert "names no server" in capsys.readouterr().out


def test_no_two_servers_are_started_on_one_port(tmp_path):
    one = "http://127.0.0.1:8001/v1?model=m&processor=qwen3_vl&concurrency={}"
    text = f"draft: {{k_store: 96}}\nmodels: {{draft: '{one.format(4)}', agent: '{one.format(9)}'}}\n"
    (shared,) = vllm_commands.servers(config_of(tmp_path, text))
    given = options(shared)
    assert shared.role == "draft, agent"
    assert (given["--max-logprobs"], given["--max-num-seqs"]) == ("96", "9")
    assert json.loads(given["--limit-mm-per-prompt"])["image"] > 1
    (suite,) = vllm_commands.servers(load_config("configs/demo_served.yaml"))
    words = shlex.split(suite.command.replace("\\\n", ""))
    assert words[:4] == ["speceyes", "serve", "--port", "8765"]
    assert words[4:] == ["--model", "draft=data/demo/models/draft", "--model", "agent=data/demo/models/agent"]
    two = text.replace("model=m&processor=qwen3_vl&concurrency=9", "model=n&processor=qwen3_vl")
    with pytest.raises(ConfigError, match=r"draft, agent.*8001|8001.*draft, agent.*port of its own"):
        vllm_commands.servers(config_of(tmp_path, two))


def test_a_model_in_a_folder_is_served_from_there_by_its_name(tmp_path):
    line = f"http://127.0.0.1:8001/v1?model=draft&processor={MODELS / 'draft'}"
    (server,) = vllm_commands.servers(config_of(tmp_path, f"models: {{draft: {json.dumps(line)}}}\n"))
    given = options(server)
    assert (given["serve"], given["--served-model-name"]) == (str(MODELS / "draft"), "draft")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_a_config_of_the_repository_lacks_nothing_but_what_is_to_be_fetched(path):
    config = load_config(path)
    assert plan(config)
    assert config.name == path.stem.removesuffix("_transformers")
    if config.data.kind == "demo":
        check(config)
    elif not (PACKAGE.parent / config.data.root).is_dir():
        with pytest.raises(ConfigError, match=r"speceyes fetch"):
            check(config)


def test_the_documented_commands_are_those_of_the_config():
    page = (PACKAGE.parent / "docs" / "real_models.md").read_text("utf-8")
    shown = page.split("<!-- serve-commands: begin -->\n```bash\n")[1].split(
        "```\n<!-- serve-commands: end -->"
    )[0]
    assert shown == vllm_commands.text(load_config("configs/deepeyes_vllm.yaml"))

from __future__ import annotations

import json
import os
import signal

import pytest

from speceyes_lib.errors import ConfigError, UserError
from speceyes_lib.models.text_model import TextModel
from speceyes_lib.models.text_process import TextProcess

WORDS = ["<pad>", "<end>", "<unk>", "<user>", "<assistant>", *"abcdefghij", " ", "é"]
TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    import torch
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

    folder = tmp_path_factory.mktemp("model")
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("<[a-z]+>|."), "isolated")
    tokenizer.decoder = decoders.Fuse()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", pad_token="<pad>")
    fast.chat_template = TEMPLATE
    fast.save_pretrained(folder)
    torch.manual_seed(3)
    config = Qwen3Config(
        vocab_size=len(WORDS),
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        eos_token_id=1,
        pad_token_id=0,
    )
    model = Qwen3ForCausalLM(config)
    model.lm_head.weight.data[:5] = 0.0  # it writes letters and does not end by itself
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def model(folder):
    return TextModel(folder)


def user(text):
    return [{"role": "user", "content": text}]


def test_the_tokens_are_those_of_transformers(model):
    import torch

    prompt = model.prompt(user("abc"))
    written = list(model.write(prompt, 12, alternatives=5))
    expected = model.model.generate(
        torch.tensor([prompt]), do_sample=False, max_new_tokens=12, pad_token_id=0
    )[0, len(prompt) :].tolist()
    assert [t.id for t in written] == [i for i in expected if i not in model.end_ids][: len(written)]
    assert "".join(t.text for t in written) == model.tokenizer.decode([t.id for t in written])
    logits = model.model(torch.tensor([prompt])).logits[0, -1].log_softmax(-1)
    assert written[0].top_logprobs == pytest.approx(
        logits.sort(descending=True).values[:5].tolist(), abs=1e-4
    )
    assert written[0].top_ids[0] == written[0].id
    assert [t.id for t in model.write(prompt, 12)] == [t.id for t in written]


def test_what_is_kept_of_other_prompts_changes_nothing(folder, model):
    prompts = [model.prompt(user(text)) for text in ("abc", "abcd", "ab", "jj", "abcd")]
    prompts.append([*prompts[1], *(t.id for t in model.write(prompts[1], 4)), 7])
    fresh = [[t.id for t in TextModel(folder).write(p, 6)] for p in prompts[:2]]
    kept = [[t.id for t in model.write(p, 6)] for p in prompts]
    assert kept[:2] == fresh
    assert kept[4] == kept[1]


def test_a_turn_that_is_stopped_or_left_ends_and_two_may_be_under_way(model):
    asked = iter([False, False, True])
    assert len(list(model.write(model.prompt(user("abc")), 12, stopped=lambda: next(asked)))) <= 2
    whole = [t.id for t in model.write(model.prompt(user("abc")), 8)]
    first, second = (model.write(model.prompt(user("abc")), 8) for _ in "ab")
    pairs = list(zip(first, second, strict=True))
    assert [a.id for a, _ in pairs] == [b.id for _, b in pairs] == whole
    left = model.write(model.prompt(user("abc")), 8)
    next(left)
    left.close()
    assert [t.id for t in model.write(model.prompt(user("abc")), 8)] == whole


def test_folders_without_such_a_model_are_named(tmp_path, folder):
    with pytest.raises(UserError, match=r"config\.json is missing"):
        TextModel(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="no language model"):
        TextModel(tmp_path)
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "chat_template.jinja").unlink(missing_ok=True)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    settings.pop("chat_template", None)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(ConfigError, match="chat template"):
        TextModel(tmp_path)


def test_in_a_process_of_its_own_it_writes_the_same(folder, model, tmp_path):
    process = TextProcess(folder)
    try:
        turns = [(user("abc"), [], [], 6, 3), (user("ab"), [], ["c", 7], 6, 0), (user("abc"), [], [], 6, 0)]
        for turn in turns:
            here, there = list(model.turn(*turn)), list(process.turn(*turn))
            assert [(t.id, t.text, t.top_ids, t.top_texts) for t in here] == [
                (t.id, t.text, t.top_ids, t.top_texts) for t in there
            ]
        first, second = (process.turn(user("abc"), [], [], 8) for _ in "ab")
        assert [a.id for a, _ in zip(first, second, strict=True)] == [
            t.id for t in model.turn(user("abc"), [], [], 8)
        ]
        left = process.turn(user("abc"), [], [], 8)
        next(left)
        left.close()
        assert list(process.turn(user("abc"), [], [], 8, 0, lambda: True)) == []
        with pytest.raises(RuntimeError, match="Error"):
            list(process.turn(user("abc"), [], [10**6], 8))  # no such token
        os.kill(process.pid, signal.SIGKILL)
        with pytest.raises((RuntimeError, OSError), match="ended"):
            list(process.turn(user("abc"), [], [], 8))
    finally:
        process.close()
    with pytest.raises(UserError, match=r"config\.json is missing"):
        TextProcess(tmp_path)

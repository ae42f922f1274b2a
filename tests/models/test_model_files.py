"""A model's folder that cannot be loaded is named before anything runs, with what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from workflow_home import write_model

from speceyes_lib.errors import ConfigError, UserError
from speceyes_lib.models import openai, transport
from speceyes_lib.models.model_files import fault_of
from speceyes_lib.models.transformers import check_architecture
from tests.conftest import MODELS

SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


@pytest.fixture
def folder(tmp_path) -> Path:
    """A whole model whose weights are two files named by an index."""
    (tmp_path / "model").mkdir()
    write_model(tmp_path / "model")
    weights = (tmp_path / "model" / "model.safetensors").read_bytes()
    (tmp_path / "model" / "model.safetensors").unlink()
    for shard in SHARDS:
        (tmp_path / "model" / shard).write_bytes(weights)
    index = {"weight_map": {"a": SHARDS[0], "b": SHARDS[1]}}
    (tmp_path / "model" / "model.safetensors.index.json").write_text(json.dumps(index))
    return tmp_path / "model"


def test_whole_folders_have_no_fault(folder):
    assert [fault_of(path) for path in (folder, MODELS / "draft", MODELS / "agent")] == ["", "", ""]


@pytest.mark.parametrize(
    ("file", "content", "fault"),
    [
        (SHARDS[1], None, f"weights are missing: {SHARDS[1]}"),
        (SHARDS[1], lambda data: data[:-1], "bytes, expected"),
        (SHARDS[1], lambda data: data + b"x", "bytes, expected"),
        (SHARDS[0], lambda data: b"", f"{SHARDS[0]} is no file of safetensors"),
        (SHARDS[0], lambda data: b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (SHARDS[0], lambda data: b"\xff" * 9 + data, "header is longer than the file"),
        ("model.safetensors.index.json", lambda data: b"{", "is no index of weights"),
        ("model.safetensors.index.json", lambda data: b'{"weight_map": []}', "is no index of weights"),
        ("model.safetensors.index.json", None, "weights are missing: model.safetensors"),
        ("tokenizer.json", None, "tokenizer.json or vocab.json or tokenizer.model is missing"),
        ("tokenizer.json", lambda data: b"{", "tokenizer.json is not valid JSON"),
        ("processor_config.json", None, "processor_config.json or preprocessor_config.json is missing"),
    ],
)
def test_a_file_that_is_missing_or_cut_off_is_named_with_the_remedy(folder, file, content, fault):
    path = folder / file
    path.unlink() if content is None else path.write_bytes(content(path.read_bytes()))
    with pytest.raises(UserError, match=f"cannot be loaded: .*{fault}.*hf download"):
        check_architecture(folder)


def test_certificates_that_cannot_be_read_are_named_by_their_variable(monkeypatch, tmp_path):
    transport.certificates.cache_clear()
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    with pytest.raises(ConfigError, match="SSL_CERT_FILE: the trusted certificates cannot be read"):
        openai.check("https://example.org/v1?model=m&processor=qwen3_vl")
    monkeypatch.delenv("SSL_CERT_FILE")
    openai.check("https://example.org/v1?model=m&processor=qwen3_vl")


def test_a_clock_that_no_certificate_agrees_with_is_named(monkeypatch):
    monkeypatch.setattr(openai, "FIRST_YEAR", 3000)
    with pytest.raises(ConfigError, match=r"clock shows 20\d\d-"):
        openai.check("https://example.org/v1?model=m&processor=qwen3_vl")
    openai.check("http://127.0.0.1:8000/v1?model=m&processor=qwen3_vl")

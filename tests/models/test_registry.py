"""A backend is one file and one line: models of any backend in `BACKENDS` can be configured, checked and opened."""

from __future__ import annotations

import pytest
from scripted import ScriptedBackend

from speceyes_lib.errors import UserError
from speceyes_lib.inference import loaded_models
from speceyes_lib.models.base import BackendType
from speceyes_lib.models.openai import ServerBackend
from speceyes_lib.models.registry import BACKENDS, backend_type
from speceyes_lib.params import DraftParams
from speceyes_lib.workflow.plan import load_config


def check(model: str) -> None:
    if model == "scripted:none":
        raise UserError("there is no script")


SCRIPTED = BackendType(
    takes=lambda model: model.startswith("scripted:"),
    check=check,
    fingerprint=lambda model: f"hash of {model}",
    title=lambda model: model.removeprefix("scripted:"),
    identity=str,
    open=lambda model, role, **settings: ScriptedBackend(lambda request: "red", settings.get("image_spec")),
    served=False,
)


def test_models_of_another_backend_are_configured_checked_and_opened(monkeypatch, tmp_path):
    monkeypatch.setattr(loaded_models.LoadedModels, "_loaded", {})
    monkeypatch.setattr("speceyes_lib.models.registry.BACKENDS", [SCRIPTED, *BACKENDS])
    params = DraftParams(draft_model="scripted:red")
    models = loaded_models.LoadedModels(params, ["draft"])
    assert isinstance(models["draft"], ScriptedBackend)
    assert models.info()["draft"]["name"] == "red"
    assert models.info()["draft"]["fingerprint"] == "hash of scripted:red"
    assert params.stage_config()["draft_model"] == "scripted:red"
    with pytest.raises(UserError, match="no script"):
        loaded_models.LoadedModels(DraftParams(draft_model="scripted:none"), ["draft"])
    config = tmp_path / "config.yaml"
    config.write_text("name: mine\nmodels: {draft: 'scripted:red', agent: 'scripted:blue'}\n")
    assert load_config(config).models.agent == "scripted:blue"


def test_a_text_with_an_address_is_a_served_model_and_any_other_a_folder():
    server = "http://gpu7.cluster:8000/v1?model=Qwen/X&processor=qwen3_vl"
    assert [backend_type(model).served for model in (server, "data/demo/models/draft")] == [True, False]
    assert isinstance(backend_type(server).open(server, "draft", dtype="float32"), ServerBackend)


def test_manifests_name_the_model_and_no_host():
    replicas = "http://gpu7.cluster:8000/v1?model=Qwen/X http://gpu8.cluster:8000/v1?model=Qwen/X"
    assert backend_type(replicas).identity(replicas) == "served:Qwen/X"
    assert backend_type(replicas).title(replicas) == "Qwen/X"
    folder = "data/demo/models/draft"
    assert backend_type(folder).identity(folder) == folder


def test_a_text_that_cannot_be_right_is_refused():
    with pytest.raises(ValueError, match="'model' is missing"):
        DraftParams(draft_model="http://h/v1?modell=m")

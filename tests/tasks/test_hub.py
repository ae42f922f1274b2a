"""Fetching at a pinned revision, resumed and checked against the hub's own hashes, on a hub of the test's own."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from speceyes_lib.errors import DataError, UserError
from speceyes_lib.tasks import hub
from speceyes_lib.workflow.cli import main

REPO = "org/tiny"
LARGE = bytes(range(256)) * 40
FILES = {
    "config.json": b'{"a": 1}',
    "model.safetensors": LARGE,
    "README.md": b"---\nlicense: mit\n---\n",
    "onnx/x.bin": b"no",
}
COMMIT = "c" * 40


class FakeHub:
    """The parts of the hub's interface that fetching needs; `files` is what it serves."""

    def __init__(self) -> None:
        self.files = dict(FILES)
        self.requests: list[str] = []
        self.gated = False  # lists its files to anyone, gives them only to those who bring the token
        hub_ = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                self.answer(body=False)

            def do_GET(self) -> None:
                self.answer(body=True)

            def answer(self, body: bool) -> None:
                hub_.requests.append(f"{self.command} {self.path}")
                path = self.path.split("?")[0]
                if re.fullmatch(rf"/api/models/{REPO}/revision/\w+", path):
                    self.send(
                        200, json.dumps(hub_.info()).encode(), {"content-type": "application/json"}, body
                    )
                elif path == f"/api/models/{REPO}/tree/{COMMIT}":
                    tree = json.dumps([hub_.entry(name) for name in FILES]).encode()
                    self.send(200, tree, {"content-type": "application/json"}, body)
                elif (observed := re.fullmatch(rf"/{REPO}/resolve/{COMMIT}/(.+)", path)) and observed[
                    1
                ] in hub_.files:
                    data = hub_.files[observed[1]]
                    etag = hub_.facts(observed[1])["blobId"]
                    headers = {"etag": f'"{etag}"', "x-repo-commit": COMMIT, "accept-ranges": "bytes"}
                    if hub_.gated and self.headers.get("authorization") != "Bearer hf_mine":
                        self.send(401, b"{}", {"x-error-code": "GatedRepo"}, body)
                        return
                    self.send(200, data, headers, body)
                else:
                    error = {"x-error-code": "RepoNotFound", "x-error-message": "Repository not found"}
                    self.send(404, b"{}", error, body)

            def send(self, status: int, data: bytes, headers: dict, body: bool) -> None:
                self.send_response(status)
                for name, value in (headers | {"content-length": str(len(data))}).items():
                    self.send_header(name, value)
                self.end_headers()
                if body:
                    self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.http.server_port}"

    @staticmethod
    def facts(name: str) -> dict:
        """As the hub states them, whatever it then serves."""
        data = FILES[name]
        git = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        facts = {"rfilename": name, "size": len(data), "blobId": git}
        if name.endswith(".safetensors"):
            sha = hashlib.sha256(data).hexdigest()
            facts |= {"blobId": sha, "lfs": {"size": len(data), "sha256": sha, "pointerSize": 130}}
        return facts

    @classmethod
    def entry(cls, name: str) -> dict:
        facts = cls.facts(name)
        entry = {"type": "file", "path": name, "size": facts["size"], "oid": facts["blobId"]}
        lfs = facts.get("lfs")
        return entry | (
            {"lfs": {"oid": lfs["sha256"], "size": lfs["size"], "pointerSize": 130}} if lfs else {}
        )

    def info(self) -> dict:
        return {
            "id": REPO,
            "sha": COMMIT,
            "siblings": [self.facts(name) for name in FILES],
            "cardData": {"license": "mit"},
        }


@pytest.fixture
def fake(monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("SPECEYES_HOME", str(tmp_path))
    item = hub.Item(REPO, revision=COMMIT)
    monkeypatch.setattr(hub, "ITEMS", {"tiny": item})
    server = FakeHub()
    yield server
    server.http.shutdown()
    server.http.server_close()


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "data/models/tiny"


def quietly(server: FakeHub) -> hub.State:
    return hub.fetch("tiny", tell=lambda line: None, endpoint=server.url)


def test_what_is_fetched_is_the_pinned_revision_with_licence_and_size_reported_first(fake, folder):
    result: list[str] = []
    state = hub.fetch("tiny", tell=result.append, endpoint=fake.url)
    assert (state.state, state.revision, state.licence) == ("complete", COMMIT, "mit")
    assert {n: (folder / n).read_bytes() for n in FILES if "onnx" not in n} == {
        n: data for n, data in FILES.items() if "onnx" not in n
    }
    assert not (folder / "onnx").exists()
    assert "licence mit" in result[0]
    assert "3 files, 0.00 GB to fetch into data/models/tiny" in result[0]
    assert any(f"/revision/{COMMIT}" in path for path in fake.requests)


def test_what_is_complete_is_not_fetched_again(fake, folder):
    quietly(fake)
    fake.requests.clear()
    assert quietly(fake).state == "complete"
    assert fake.requests == []


def test_only_what_is_missing_or_changed_is_fetched_again(fake, folder):
    quietly(fake)
    (folder / "model.safetensors").unlink()
    state = hub.check("tiny")
    assert (state.state, state.note) == (
        "incomplete",
        "missing or damaged: model.safetensors; 0.00 of 0.00 GB",
    )
    fake.requests.clear()
    assert quietly(fake).state == "complete"
    assert not any("GET" in path and "config.json" in path for path in fake.requests)


def test_a_file_that_changed_without_changing_its_size_is_found_by_reading_it(fake, folder):
    quietly(fake)
    (folder / "model.safetensors").write_bytes(LARGE[::-1])
    assert hub.check("tiny").state == "complete"
    assert hub.check("tiny", deep=True, endpoint=fake.url).state == "incomplete"


def test_without_the_hub_every_byte_is_compared_with_the_receipt(fake, folder, monkeypatch):
    from huggingface_hub import constants

    quietly(fake)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    state = hub.check("tiny", deep=True, endpoint=fake.url)
    assert state.state == "complete"
    assert "every byte compared with the receipt: tiny: HF_HUB_OFFLINE is set" in state.note
    (folder / "model.safetensors").write_bytes(LARGE[::-1])
    state = hub.check("tiny", deep=True, endpoint=fake.url)
    assert (state.state, state.note.split(";")[0]) == ("incomplete", "missing or damaged: model.safetensors")


def test_a_receipt_without_checksums_compares_sizes_and_the_note_says_so(fake, folder, monkeypatch):
    from huggingface_hub import constants

    quietly(fake)
    receipt = json.loads((folder / hub.RECEIPT).read_text())
    receipt["files"] = {name: {"size": facts["size"]} for name, facts in receipt["files"].items()}
    (folder / hub.RECEIPT).write_text(json.dumps(receipt))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    state = hub.check("tiny", deep=True, endpoint=fake.url)
    assert (state.state, "sizes only" in state.note) == ("complete", True)


def test_a_file_that_arrives_damaged_is_removed_and_reported(fake, folder):
    fake.files["model.safetensors"] = LARGE[::-1]
    with pytest.raises(UserError, match=r"arrived damaged and were removed: model\.safetensors"):
        quietly(fake)
    assert not (folder / "model.safetensors").exists()
    assert not (folder / hub.RECEIPT).exists()
    fake.files["model.safetensors"] = LARGE
    assert quietly(fake).state == "complete"


def test_a_full_disk_is_reported_before_anything_is_fetched(fake, folder, monkeypatch):
    monkeypatch.setattr(hub.shutil, "disk_usage", lambda path: type("Disk", (), {"free": 5})())
    with pytest.raises(UserError, match=r"are needed, but 0\.0 GB are free"):
        quietly(fake)
    assert not (folder / "config.json").exists()


def test_a_hub_that_refuses_or_is_not_there_is_reported_in_one_line(fake, monkeypatch):
    monkeypatch.setitem(hub.ITEMS, "gone", hub.Item("org/none"))
    with pytest.raises(UserError, match="the hub refuses org/none") as refused:
        hub.fetch("gone", tell=lambda line: None, endpoint=fake.url)
    assert "\n" not in str(refused.value)
    fake.http.server_close()
    with pytest.raises(UserError, match=r"cannot be fetched|the hub refuses"):
        hub.fetch("tiny", tell=lambda line: None, endpoint="http://127.0.0.1:9")


def test_a_gated_item_is_fetched_with_the_users_token_and_without_it_the_remedy_is_named(
    fake, monkeypatch, folder
):
    fake.gated = True
    monkeypatch.setitem(hub.ITEMS, "tiny", hub.Item(REPO, revision=COMMIT, gated=True))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with pytest.raises(UserError, match=rf"accept its terms at \S+{REPO}, then set HF_TOKEN"):
        quietly(fake)
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    assert quietly(fake).state == "complete"
    assert not any(
        "hf_mine" in path.read_text(errors="replace") for path in folder.rglob("*") if path.is_file()
    )


def test_offline_is_reported_with_the_variable_that_makes_it_so(fake, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="HF_HUB_OFFLINE is set"):
        quietly(fake)


def test_what_is_not_there_is_reported_with_its_size(monkeypatch, tmp_path):
    monkeypatch.setenv("SPECEYES_HOME", str(tmp_path))
    state = hub.check("deepeyes-7b")
    assert (state.state, state.note) == ("missing", "not in data/models/DeepEyes-7B, about 16.6 GB")
    table = hub.list_downloads()
    assert list(table.index) == list(hub.ITEMS)
    assert set(table["here"]) == {"missing"}
    assert "3b31e4b34259" in table.loc["deepeyes-7b", "revision"]


def test_weights_put_there_by_hand_are_checked_by_their_own_index(fake, folder):
    folder.mkdir(parents=True)
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model-1.safetensors").write_bytes(b"x")
    assert hub.check("tiny").note == "lacks model-2.safetensors"
    (folder / "model-2.safetensors").write_bytes(b"x")
    assert (hub.check("tiny").state, "by hand" in hub.check("tiny").note) == ("complete", True)


def test_a_broken_receipt_is_reported(fake, folder):
    folder.mkdir(parents=True)
    (folder / hub.RECEIPT).write_text("{")
    with pytest.raises(DataError, match="not a receipt"):
        hub.check("tiny")


def test_an_unknown_item_is_refused_with_the_nearest(capsys):
    assert main(["fetch", "deepeyes"]) == 2
    assert "did you mean 'deepeyes-7b'" in capsys.readouterr().err


def test_pins_are_whole_commits():
    pins = [item.revision for item in hub.ITEMS.values() if item.revision]
    assert pins
    assert all(re.fullmatch(r"[0-9a-f]{40}", pin) for pin in pins)

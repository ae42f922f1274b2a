"""The published models and benchmarks: what is needed, what is there, and fetching it from the Hugging Face hub.

A pinned revision never changes; what has no pin here is taken as it is on the day of the first fetch, and its receipt
pins it from then on. Licences and terms are the publishers'.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..errors import DataError, UserError, nearest
from ..paths import inside, resolve, shown

if TYPE_CHECKING:
    import pandas as pd

RECEIPT = ".receipt.json"  # hidden: no part of a model's fingerprint
WEIGHTS = ("*.json", "*.safetensors", "*.jinja", "*.txt", "README.md", "LICENSE*")
GB = 1e9


@dataclass(frozen=True)
class Item:
    """Something on the hub."""

    repo: str
    kind: Literal["model", "dataset"] = "model"
    files: tuple[str, ...] = WEIGHTS
    revision: str = ""  # a commit; empty where none is pinned here
    size_gb: float | None = (
        None  # of the files that are fetched, where known beforehand (weights: 2 bytes a parameter)
    )
    licence: str = ""  # as its page states it
    gated: bool = False  # its page asks for consent first; needs the user's access token

    @property
    def folder(self) -> str:
        """Where it is put, relative to the repository."""
        kind = {"model": "models", "dataset": "benchmarks"}[self.kind]
        return f"data/{kind}/{self.repo.split('/')[1]}"


# pinned commits
QWEN3, QWEN72 = "89644892e4d85e24eaac8bacfd4f463576704203", "495f39366efef23836d0cfae4fbe635880d2be31"
DEEPEYES, VSTAR = "3b31e4b342592d14cb12bb8434a6ea55e9cd78c8", "d9ae62c903da0c98336e85c5ee89cd863b04b4da"
VSTAR_FILES = ("direct_attributes/*", "relative_position/*", "README.md")
ITEMS = {
    "qwen3-vl-2b": Item("Qwen/Qwen3-VL-2B-Instruct", revision=QWEN3, size_gb=4.3, licence="apache-2.0"),
    "deepeyes-7b": Item("ChenShawn/DeepEyes-7B", revision=DEEPEYES, size_gb=16.6),
    "thyme-rl": Item("Kwai-Keye/Thyme-RL", size_gb=16.6),
    "qwen2.5-72b": Item("Qwen/Qwen2.5-72B-Instruct", revision=QWEN72, size_gb=145.4, licence="qwen"),
    "vstar": Item("craigwu/vstar_bench", "dataset", VSTAR_FILES, VSTAR),
    "hr-bench": Item("DreamMr/HR-Bench", "dataset", ("*.tsv", "README.md")),
    "pope": Item("lmms-lab/POPE", "dataset", ("Full/*.parquet", "README.md")),
    "gaia": Item("gaia-benchmark/GAIA", "dataset", ("2023/*", "README.md"), gated=True),
}


@dataclass(frozen=True)
class State:
    """What is here of one item: "complete", "incomplete" or "missing"; `note` names what is missing, and its size."""

    name: str
    state: Literal["complete", "incomplete", "missing"]
    revision: str
    licence: str
    size_gb: float | None
    note: str


def item_of(name: str) -> Item:
    """The item of this name. Raises UserError for an unknown one, with the nearest."""
    if name not in ITEMS:
        raise UserError(f"{name}: no such item{nearest(name, ITEMS)}; there are {', '.join(ITEMS)}")
    return ITEMS[name]


def check(name: str, deep: bool = False, endpoint: str | None = None) -> State:
    """State of an item: its files compared with the receipt of its fetch.

    A folder without a receipt was put there by hand; only missing weights that its index names are reported.

    Args:
        name: of `ITEMS`.
        deep: compare the contents with the hub's checksums as well, not only the sizes with the receipt. Where the hub
            cannot be reached, with those of the receipt; the note says so.
        endpoint: another hub than the official one.

    Raises:
        UserError: an unknown name.
        DataError: the receipt cannot be read.
    """
    item, folder = item_of(name), resolve(ITEMS[name].folder)
    if not folder.is_dir() or not any(folder.iterdir()):
        note = f"not in {item.folder}" + (f", about {item.size_gb} GB" if item.size_gb else "")
        return State(name, "missing", item.revision, item.licence, item.size_gb, note)
    receipt = _receipt(folder)
    if receipt is None:
        lacking = _shards_lacking(folder)
        note = f"lacks {_names(lacking)}" if lacking else "put there by hand: nothing to compare it with"
        size_gb = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / GB
        return State(name, "incomplete" if lacking else "complete", "", item.licence, size_gb, note)
    files = receipt["files"]
    wrong = [f for f, facts in files.items() if _size(inside(folder, f, RECEIPT)) != facts["size"]]
    note = f"{len(files)} files"
    if deep:
        try:
            damaged = _damaged(name, item, folder, receipt["revision"], endpoint)
            note += ", every byte compared"
        except UserError as error:
            known = {f: facts["sha256"] for f, facts in files.items() if "sha256" in facts and f not in wrong}
            damaged = [f for f, sha256 in known.items() if _sha256(folder / f) != sha256]
            compared = "every byte compared with the receipt" if known else "sizes only"
            note += f", {compared}: {error}"
        wrong += [file for file in damaged if file not in wrong]
    size_gb = sum(facts["size"] for facts in files.values()) / GB
    if wrong:
        missing_gb = sum(files[f]["size"] for f in wrong) / GB
        note = f"missing or damaged: {_names(wrong)}; {missing_gb:.2f} of {size_gb:.2f} GB"
    state = "incomplete" if wrong else "complete"
    return State(name, state, receipt["revision"], receipt["licence"], size_gb, note)


def list_downloads(names: Iterable[str] = ITEMS) -> pd.DataFrame:
    """One row per item: where it comes from, its revision and licence, how large it is, what is here of it."""
    import pandas as pd

    states = [check(name) for name in names]
    rows = [
        {
            "item": state.name,
            "from": f"{'datasets/' if ITEMS[state.name].kind == 'dataset' else ''}{ITEMS[state.name].repo}",
            "revision": state.revision[:12] or "fixed by the first fetch",
            "licence": state.licence or "see its page",
            "GB": f"{state.size_gb:.1f}" if state.size_gb else "",
            "here": state.state,
            "note": state.note,
        }
        for state in states
    ]
    return pd.DataFrame(rows).set_index("item")


def _receipt(folder: Path) -> dict | None:
    try:
        receipt = json.loads((folder / RECEIPT).read_text("utf-8"))
        _ = receipt["revision"], receipt["licence"], receipt["files"].items()
        return receipt
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{shown(folder / RECEIPT)}: not a receipt ({error}); remove it and fetch again"
        ) from None


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _shards_lacking(folder: Path) -> list[str]:
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return []
    shards = set(json.loads(index.read_text("utf-8"))["weight_map"].values())
    return sorted(s for s in shards if not inside(folder, s, shown(index)).is_file())


def _names(files: list[str]) -> str:
    more = f" and {len(files) - 3} more" if len(files) > 3 else ""
    return ", ".join(files[:3]) + more


def fetch(name: str, tell: Callable[[str], Any] = print, endpoint: str | None = None) -> State:
    """Fetch an item at its pinned revision (that of its receipt, else of ITEMS), check every file, leave a receipt.

    An interrupted fetch resumes; what is complete is not fetched again.

    Args:
        name: of `ITEMS`.
        tell: called with a line on licence and size before anything large happens, and when all is done.
        endpoint: another hub than the official one.

    Raises:
        UserError: the hub cannot be reached or refuses, the disk is too small, or a file arrives damaged.
    """
    from huggingface_hub import HfApi

    item, folder = item_of(name), resolve(ITEMS[name].folder)
    receipt = _receipt(folder)
    if receipt and check(name).state == "complete":
        tell(f"{name}: complete, nothing to fetch")
        return check(name)
    api = HfApi(endpoint=endpoint)
    with _hub_errors(name, item):
        revision = (receipt or {}).get("revision") or item.revision or "main"
        info = api.repo_info(item.repo, repo_type=item.kind, revision=revision)
        files = {"repo_type": item.kind, "revision": info.sha, "allow_patterns": list(item.files)}
        planned = api.snapshot_download(item.repo, local_dir=folder, dry_run=True, **files)
        paths = {file.filename: inside(folder, file.filename, f"{name}, list of files") for file in planned}
        licence = str(getattr(info.card_data, "license", None) or "not stated on its page")
        to_come = sum(file.file_size for file in planned if file.will_download)
        tell(
            f"{name}: {item.repo} at {info.sha[:12]}, licence {licence}; {len(planned)} files, "
            f"{to_come / GB:.2f} GB to fetch into {item.folder}"
        )
        folder.mkdir(parents=True, exist_ok=True)
        if (free := shutil.disk_usage(folder).free) < to_come:
            raise UserError(
                f"{name}: {to_come / GB:.1f} GB are needed, but {free / GB:.1f} GB are free in {shown(folder)}; "
                "free some space"
            )
        api.snapshot_download(item.repo, local_dir=folder, **files)
    if damaged := _damaged(name, item, folder, info.sha, endpoint):
        for file in damaged:
            inside(folder, file, f"{name}, list of files").unlink()
        raise UserError(f"{name}: files arrived damaged and were removed: {_names(damaged)}; fetch again")
    facts = {name_: {"size": _size(path), "sha256": _sha256(path)} for name_, path in paths.items()}
    content = {"repo": item.repo, "kind": item.kind, "revision": info.sha, "licence": licence, "files": facts}
    (folder / RECEIPT).write_text(json.dumps(content, indent=1) + "\n", "utf-8")
    tell(f"{name}: complete, every file has the hub's checksum")
    return check(name)


def _damaged(name: str, item: Item, folder: Path, revision: str, endpoint: str | None) -> list[str]:
    """Files here whose contents are not those that the hub states."""
    from huggingface_hub import HfApi

    where = {"repo_type": item.kind, "revision": revision, "local_dir": folder}
    with _hub_errors(name, item):
        compared = HfApi(endpoint=endpoint).verify_repo_checksums(item.repo, **where)
    return [mismatch["path"] for mismatch in compared.mismatches]


@contextlib.contextmanager
def _hub_errors(name: str, item: Item) -> Iterator[None]:
    """What the hub's client raises becomes a UserError of one line; its progress bars are off (debris in notebooks)."""
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    was_quiet = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    except OfflineModeIsEnabled:
        raise UserError(f"{name}: HF_HUB_OFFLINE is set; unset it to reach the hub") from None
    except HfHubHTTPError as error:
        if item.gated and error.response is not None and error.response.status_code in (401, 403):
            raise UserError(
                f"{name}: {item.repo} asks for consent; accept its terms at https://huggingface.co/"
                f"{'datasets/' if item.kind == 'dataset' else ''}{item.repo}, then set HF_TOKEN to an access token of "
                "the same account (it is not stored), or run hf auth login"
            ) from None
        reason = getattr(error, "server_message", None) or str(error).splitlines()[0]
        raise UserError(f"{name}: the hub refuses {item.repo}: {reason}") from None
    except (OSError, httpx2.HTTPError) as error:
        raise UserError(f"{name}: cannot be fetched ({error}); run it again, it resumes") from None
    finally:
        if not was_quiet:
            enable_progress_bars()

"""The published models and benchmarks: what is needed, what is there, and fetching it from the Hugging Face hub.

    speceyes fetch                    what there is to fetch, and what of it is here
    speceyes fetch qwen3-vl-2b vstar resumable; every file is checked against the hub's hashes
    speceyes fetch --check vstar             read every file again and compare

Nothing is fetched unless it is asked for by name. A pinned revision never changes; what has no pin here is taken as
it is on the day of the first fetch, and its receipt pins it from then on. Licences and terms are the publishers'.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..errors import DataError, UserError, nearest
from ..paths import resolve, shown

if TYPE_CHECKING:
    import pandas as pd

RECEIPT = ".receipt.json"  # hidden: no part of a model's fingerprint
WEIGHTS = ("*.json", "*.safetensors", "*.jinja", "*.txt", "README.md", "LICENSE*")
GB = 1e9


@dataclass(frozen=True)
class Item:
    """Something on the hub. `revision` is a commit; empty where none is pinned here.

    size_gb: of the files that are fetched, where known beforehand (weights: 2 bytes a parameter). licence: as its
    page states it; the page's own words are shown when it is fetched.
    """

    repo: str
    kind: Literal["model", "dataset"]
    folder: str
    files: tuple[str, ...]
    revision: str = ""
    size_gb: float | None = None
    licence: str = ""


ITEMS = {
    "qwen3-vl-2b": Item(
        "Qwen/Qwen3-VL-2B-Instruct",
        "model",
        "data/models/Qwen3-VL-2B-Instruct",
        WEIGHTS,
        "89644892e4d85e24eaac8bacfd4f463576704203",
        4.3,
        "apache-2.0",
    ),
    "deepeyes-7b": Item(
        "ChenShawn/DeepEyes-7B",
        "model",
        "data/models/DeepEyes-7B",
        WEIGHTS,
        "3b31e4b342592d14cb12bb8434a6ea55e9cd78c8",
        16.6,
    ),
    "thyme-rl": Item("Kwai-Keye/Thyme-RL", "model", "data/models/Thyme-RL", WEIGHTS, size_gb=16.6),
    "qwen2.5-72b": Item(
        "Qwen/Qwen2.5-72B-Instruct",
        "model",
        "data/models/Qwen2.5-72B-Instruct",
        WEIGHTS,
        "495f39366efef23836d0cfae4fbe635880d2be31",
        145.4,
        "qwen",
    ),
    "vstar": Item(
        "craigwu/vstar_bench",
        "dataset",
        "data/benchmarks/vstar_bench",
        ("direct_attributes/*", "relative_position/*", "README.md"),
        "d9ae62c903da0c98336e85c5ee89cd863b04b4da",
    ),
    "hr-bench": Item("DreamMr/HR-Bench", "dataset", "data/benchmarks/HR-Bench", ("*.tsv", "README.md")),
    "pope": Item("lmms-lab/POPE", "dataset", "data/benchmarks/POPE", ("Full/*.parquet", "README.md")),
}


@dataclass(frozen=True)
class State:
    """What is here of one item: "complete", "incomplete" or "missing"; `note` says what is lacking and how large."""

    name: str
    state: Literal["complete", "incomplete", "missing"]
    revision: str
    licence: str
    size_gb: float | None
    note: str


def item_of(name: str) -> Item:
    """Raises UserError for an unknown name, with the nearest one."""
    if name not in ITEMS:
        raise UserError(f"{name}: no such item{nearest(name, ITEMS)}; there are {', '.join(ITEMS)}")
    return ITEMS[name]


# ------------------------------------------------------------------ what is here


def check(name: str, deep: bool = False) -> State:
    """Compare what is here with the receipt of its fetch: sizes, and with `deep` every byte.

    A folder without a receipt was put there by hand: nothing is known to compare with, but weights that its own
    index names and that are not there are told.
    """
    item, folder = item_of(name), resolve(ITEMS[name].folder)
    if not folder.is_dir() or not any(folder.iterdir()):
        size = f", about {item.size_gb} GB" if item.size_gb else ""
        return State(
            name, "missing", item.revision, item.licence, item.size_gb, f"not in {item.folder}{size}"
        )
    receipt = _receipt(folder)
    if receipt is None:
        lacking = _shards_lacking(folder)
        note = f"lacks {_names(lacking)}" if lacking else "put there by hand: nothing to compare it with"
        return State(name, "incomplete" if lacking else "complete", "", item.licence, _size_gb(folder), note)
    files = receipt["files"]
    wrong = [f for f, facts in files.items() if not _is_intact(folder / f, facts, deep)]
    size_gb = sum(facts["size"] for facts in files.values()) / GB
    note = f"{len(files)} files" + (", every byte compared" if deep else "")
    if wrong:
        missing_gb = sum(files[f]["size"] for f in wrong) / GB
        note = f"missing or damaged: {_names(wrong)}; {missing_gb:.2f} of {size_gb:.2f} GB"
    state = "incomplete" if wrong else "complete"
    return State(name, state, receipt["revision"], receipt["licence"], size_gb, note)


def overview(names: Iterable[str] = ITEMS) -> pd.DataFrame:
    """One row per item: where it comes from, its revision and licence, how large it is, what is here of it."""
    import pandas as pd

    rows = []
    for name in names:
        state, item = check(name), ITEMS[name]
        rows.append(
            {
                "item": name,
                "from": f"{'datasets/' if item.kind == 'dataset' else ''}{item.repo}",
                "revision": state.revision[:12] or "fixed by the first fetch",
                "licence": state.licence or "see its page",
                "GB": f"{state.size_gb:.1f}" if state.size_gb else "",
                "here": state.state,
                "note": state.note,
            }
        )
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


def _is_intact(path: Path, facts: dict, deep: bool) -> bool:
    if not path.is_file() or path.stat().st_size != facts["size"]:
        return False
    return not deep or _hash(path, facts["algorithm"]) == facts["hash"]


def _hash(path: Path, algorithm: str) -> str:
    """sha256 of a large file; for small ones the hub keeps git's hash of the file."""
    with path.open("rb") as file:
        if algorithm == "sha256":
            return hashlib.file_digest(file, "sha256").hexdigest()
        head = b"blob %d\0" % path.stat().st_size
        return hashlib.sha1(head + file.read(), usedforsecurity=False).hexdigest()


def _shards_lacking(folder: Path) -> list[str]:
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return []
    shards = set(json.loads(index.read_text("utf-8"))["weight_map"].values())
    return sorted(s for s in shards if not (folder / s).is_file())


def _size_gb(folder: Path) -> float:
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) / GB


def _names(files: list[str]) -> str:
    more = f" and {len(files) - 3} more" if len(files) > 3 else ""
    return ", ".join(files[:3]) + more


# ------------------------------------------------------------------ fetching


def fetch(name: str, tell: Callable[[str], Any] = print, endpoint: str | None = None) -> State:
    """Fetch an item at its pinned revision (that of its receipt, else of ITEMS), check every file, leave a receipt.

    An interrupted fetch goes on where it was; what is complete is not fetched again. tell: is called with a line
    on licence and size before anything large happens. endpoint: another hub than the official one.

    Raises UserError when the hub cannot be reached or refuses, the disk is too small, or a file arrives damaged.
    """
    import httpx2
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    item, folder = item_of(name), resolve(ITEMS[name].folder)
    receipt = _receipt(folder)
    if receipt and check(name).state == "complete":
        tell(f"{name}: complete, nothing to fetch")
        return check(name)
    api = HfApi(endpoint=endpoint)
    was_quiet = are_progress_bars_disabled()
    try:
        revision = (receipt or {}).get("revision") or item.revision or "main"
        info = api.repo_info(item.repo, repo_type=item.kind, revision=revision, files_metadata=True)
        wanted = {
            s.rfilename: _facts(s)
            for s in info.siblings or []
            if any(fnmatch.fnmatch(s.rfilename, pattern) for pattern in item.files)
        }
        licence = str(getattr(info.card_data, "license", None) or "not stated on its page")
        to_come = sum(f["size"] for n, f in wanted.items() if not _is_intact(folder / n, f, deep=False))
        tell(
            f"{name}: {item.repo} at {info.sha[:12]}, licence {licence}; {len(wanted)} files, "
            f"{to_come / GB:.2f} GB to fetch into {item.folder}"
        )
        folder.mkdir(parents=True, exist_ok=True)
        if (free := shutil.disk_usage(folder).free) < to_come:
            raise UserError(
                f"{name}: {to_come / GB:.1f} GB are needed, but {free / GB:.1f} GB are free in {shown(folder)}; "
                "free some space"
            )
        disable_progress_bars()  # no debris in notebooks
        api.snapshot_download(
            item.repo,
            repo_type=item.kind,
            revision=info.sha,
            local_dir=folder,
            allow_patterns=list(wanted),
        )
    except OfflineModeIsEnabled:
        raise UserError(f"{name}: HF_HUB_OFFLINE is set; unset it to fetch from the hub") from None
    except HfHubHTTPError as error:
        said = getattr(error, "server_message", None) or str(error).splitlines()[0]
        raise UserError(f"{name}: the hub refuses {item.repo}: {said}") from None
    except (OSError, httpx2.HTTPError) as error:
        raise UserError(f"{name}: cannot be fetched ({error}); run it again, it resumes") from None
    finally:
        if not was_quiet:
            enable_progress_bars()
    if damaged := [n for n, facts in wanted.items() if not _is_intact(folder / n, facts, deep=True)]:
        for n in damaged:
            (folder / n).unlink(missing_ok=True)
        raise UserError(f"{name}: arrived damaged and were removed: {_names(damaged)}; fetch again")
    told = {"repo": item.repo, "kind": item.kind, "revision": info.sha, "licence": licence, "files": wanted}
    (folder / RECEIPT).write_text(json.dumps(told, indent=1) + "\n", "utf-8")
    tell(f"{name}: complete, every file has the hub's hash")
    return check(name)


def _facts(sibling: Any) -> dict:
    lfs = sibling.lfs
    kind = ("sha256", lfs["sha256"]) if lfs else ("git", sibling.blob_id)
    return {"size": (lfs or {}).get("size") or sibling.size or 0, "algorithm": kind[0], "hash": kind[1]}


# ------------------------------------------------------------------ command line

"""Is a model's folder whole: its weights, tokenizer and picture processor, found out without loading them."""

from __future__ import annotations

import json
from pathlib import Path

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
LFS = b"version https://git-lfs"
# of each row, one is needed
NEEDED = (
    ("tokenizer.json", "vocab.json", "tokenizer.model"),
    ("processor_config.json", "preprocessor_config.json"),
)


def fault_of(folder: Path) -> str:
    """What keeps a folder with a config.json from being loaded, in words; "" if nothing is seen.

    Weights are measured, not read: each file of safetensors says how long it is.
    """
    if (folder / INDEX).is_file():
        try:
            names = sorted(set(json.loads((folder / INDEX).read_bytes())["weight_map"].values()))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            return f"{INDEX} is no index of weights ({type(error).__name__}: {error})"
    elif not (folder / SINGLE).is_file() and any(folder.glob("*.bin")):
        names = []  # weights of another format, which transformers reads too
    else:
        names = [SINGLE]
    if missing := [name for name in names if not (folder / name).is_file()]:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        return f"weights are missing: {', '.join(missing[:3])}{more}"
    for name in names:
        if fault := _fault_of_weights(folder / name):
            return f"{name} {fault}"
    for choice in NEEDED:
        present = [name for name in choice if (folder / name).is_file()]
        if not present:
            return f"{' or '.join(choice)} is missing"
        for name in present:
            if name.endswith(".json") and not _is_json(folder / name):
                return f"{name} is not valid JSON"
    return ""


def _fault_of_weights(path: Path) -> str:
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            start = file.read(len(LFS))
            if start == LFS:
                return "is a pointer of Git LFS instead of the weights (git lfs pull)"
            length = int.from_bytes(start[:8], "little")
            if length > size:
                raise ValueError("its header is longer than the file")
            file.seek(8)
            tensors = json.loads(file.read(length))
        ends = [t["data_offsets"][1] for name, t in tensors.items() if name != "__metadata__"]
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        return f"is no file of safetensors ({error})"
    expected = 8 + length + max(ends, default=0)
    return f"has {size:,} bytes, expected {expected:,}" if size != expected else ""


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_bytes())
    except (OSError, ValueError):
        return False
    return True

"""The environment of a real vLLM works where torch is a CPU build and torchvision is not."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import real_vllm


def environment(folder: Path, torch: str, torchvision: str) -> Path:
    """An environment with these versions; returns torchvision's first file."""
    packages = folder / "lib/python3.11/site-packages"
    for name, version in {"torch": torch, "torchvision": torchvision}.items():
        (packages / f"{name}-{version}.dist-info").mkdir(parents=True)
    (packages / "torchvision").mkdir()
    init = packages / "torchvision/__init__.py"
    init.write_text("from . import extension\n")
    return init


@pytest.mark.parametrize(
    ("torch", "torchvision", "mended"),
    [("2.13.0+cpu", "0.28.0", True), ("2.13.0+cpu", "0.28.0+cpu", False), ("2.13.0", "0.28.0", False)],
)
def test_only_a_torchvision_of_another_build_is_mended_and_only_once(tmp_path, torch, torchvision, mended):
    init = environment(tmp_path, torch, torchvision)
    assert [real_vllm.mend(tmp_path) for _ in range(2)] == [mended, False]
    text = init.read_text()
    assert text.endswith("from . import extension\n")
    assert text.count("torch.library.Library") == mended
    ast.parse(text)

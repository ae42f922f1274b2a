"""Programs that run in an interpreter of their own, so that they can change a module before anything imports it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def run_program(program: str, *arguments: str) -> Any:
    """The JSON that the last line of a program's output holds."""
    paths = [str(ROOT / folder) for folder in (".", "tests/worlds", "tests/inference")]
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {paths!r}\n{program}", *arguments],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])

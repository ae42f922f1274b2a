"""What a result was made from and with: content hashes, the state of the code, the environment.

Nothing here names a host, a user or an absolute folder, so that manifests can be published.
"""

from __future__ import annotations

import ast
import hashlib
import os
import platform
import subprocess
from collections.abc import Iterable
from functools import cache
from glob import glob
from importlib import import_module, metadata
from pathlib import Path

from .. import plugins
from ..exports import EXPORTED
from ..paths import PACKAGE, repo_root

PACKAGES = (
    "torch", "transformers", "tokenizers", "qwen-vl-utils", "numpy", "scipy", "pandas", "pyarrow", "pillow", "pydantic",
    "matplotlib", "seaborn", "papermill", "openai",
)  # fmt: skip
# files above this size count by size and by their first and last megabyte: a 16 GB model is fingerprinted in
# milliseconds, and its safetensors header (names, types, offsets) is in the first one
WHOLE_FILE_BYTES = 64 << 20
EDGE_BYTES = 1 << 20
GPUS = "/proc/driver/nvidia/gpus/*/information"
# modules that carry values about without shaping a result; a change in them does not make records stale
PLUMBING = {
    "errors.py", "exports.py", "params.py", "paths.py", "plugins.py", "runs/checksums.py", "runs/files.py",
    "runs/provenance.py", "runs/reading.py", "runs/recorded_run.py", "runs/shards.py", "runs/stage.py",
}  # fmt: skip


def text_hash(text: str | Iterable[str]) -> str:
    """sha256 of a text, or of several texts in order."""
    parts = [text] if isinstance(text, str) else text
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode())
        digest.update(b"\0")
    return digest.hexdigest()


def file_hash(path: Path) -> str:
    """sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_hash(folder: Path) -> str:
    """sha256 over the relative names and contents of all files of a folder, in sorted order.

    Hidden files and folders are left out. Files above 64 MiB count by size and edges only (see `WHOLE_FILE_BYTES`).
    """
    digest = hashlib.sha256()
    files = (p for p in folder.rglob("*") if p.is_file())
    shown = (p for p in files if not any(part.startswith(".") for part in p.relative_to(folder).parts))
    for path in sorted(shown):
        size = path.stat().st_size
        digest.update(f"{path.relative_to(folder).as_posix()}\0{size}\0".encode())
        if size <= WHOLE_FILE_BYTES:
            digest.update(file_hash(path).encode())
        else:
            with path.open("rb") as file:
                digest.update(file.read(EDGE_BYTES))
                file.seek(-EDGE_BYTES, os.SEEK_END)
                digest.update(file.read())
    return digest.hexdigest()


def library_files(source: str, package: tuple[str, ...] = ()) -> set[Path]:
    """The library's own files that Python `source` depends on, found by following its imports.

    Args:
        source: Python text; imports inside functions count too.
        package: the package the text belongs to, relative to speceyes_lib, for relative imports; `()` for a script.

    Returns:
        Absolute paths of modules and of the `__init__` files of the packages they lie in.
    """
    files: set[Path] = set()
    _follow(_imports(source, package), files)
    return files


def code_hash(*modules: str) -> str:
    """State of the code that makes a stage's records: the modules ("inference.stages") and all they import.

    Comments, docstrings and formatting do not count, nor do the modules of `PLUMBING`. Data files such as prompts are
    inputs of their own.
    """
    files = library_files("\n".join(f"import speceyes_lib.{module}" for module in modules))
    names = sorted(f.relative_to(PACKAGE).as_posix() for f in files if f.name != "__init__.py")
    counted = [f for f in names if f not in PLUMBING]
    parts = [(f, _meaning((PACKAGE / f).read_text("utf-8"))) for f in counted]
    parts += [(f.name, _meaning(f.read_text("utf-8"))) for f in plugins.sources()]
    return text_hash(part for named in parts for part in named)


def _follow(modules: Iterable[tuple[str, ...]], files: set[Path]) -> None:
    for module in modules:
        # a public name of a wing stands for the file that defines it
        if file := _exports(module[:-1]).get(module[-1]) if module else None:
            module = (*module[:-1], file)
        for depth in range(len(module) + 1):  # a package's __init__ runs before its modules
            base = PACKAGE.joinpath(*module[:depth])
            is_package = (base / "__init__.py").is_file()
            path = base / "__init__.py" if is_package else base.with_suffix(".py")
            if path not in files and path.is_file():
                files.add(path)
                package = module[: depth if is_package else depth - 1]
                _follow(_imports(path.read_text("utf-8"), package), files)


@cache
def _exports(wing: tuple[str, ...]) -> dict[str, str]:
    """Public name -> file, as the `__init__` of a wing lists them; {} where it lists none."""
    package = ".".join((PACKAGE.name, *wing))
    if PACKAGE.joinpath(*wing, "__init__.py").is_file():
        import_module(package)
    return EXPORTED.get(package, {})


@cache  # many notebooks lead to the same modules
def _imports(source: str, package: tuple[str, ...]) -> frozenset[tuple[str, ...]]:
    """What `source` may use of the library, as module paths within it; the last part may be a name in a module."""
    targets: set[tuple[str, ...]] = set()
    modules: dict[str, tuple[str, ...]] = {}  # name in the source -> what it stands for
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                module = tuple(alias.name.split("."))
                targets.add(module)
                modules[alias.asname or module[0]] = module if alias.asname else module[:1]
        elif isinstance(node, ast.ImportFrom):
            module = tuple(node.module.split(".")) if node.module else ()
            if node.level:
                module = ("speceyes_lib", *package[: len(package) - node.level + 1], *module)
            # `from .prompt_sets import load` names a function, `from . import prompts` a module: try both
            targets |= {module, *((*module, alias.name) for alias in node.names)}
            modules |= {alias.asname or alias.name: (*module, alias.name) for alias in node.names}
    # `runs.open("demo")` uses a name of the wing `runs`, which `from speceyes_lib import runs` does not show
    targets |= {(*modules.get(base, ()), *names) for base, names in _attributes(tree)}
    return frozenset(target[1:] for target in targets if target[:1] == ("speceyes_lib",))


def _attributes(tree: ast.AST) -> set[tuple[str, tuple[str, ...]]]:
    """Dotted names in a source: `a.b.c` gives ("a", ("b",)) and ("a", ("b", "c"))."""
    dotted = set()
    for node in ast.walk(tree):
        names: tuple[str, ...] = ()
        while isinstance(node, ast.Attribute):
            names, node = (node.attr, *names), node.value
        if names and isinstance(node, ast.Name):
            dotted.add((node.id, names))
    return dotted


@cache  # every stage of a process asks
def _meaning(source: str) -> str:
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                node.body = node.body[1:]
    return ast.dump(tree)


@cache
def environment() -> dict:
    """Code revision, versions (from metadata) and hardware, as manifests and notebook headers show them."""
    described = _described()
    return {
        "commit": described.removesuffix("-dirty"),
        "dirty": described.endswith("-dirty"),
        "python": platform.python_version(),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": _after_colon("/proc/cpuinfo", "model name") or platform.processor(),
        "cores": usable_cores(),
        "gpu": ", ".join(_after_colon(path, "Model") for path in sorted(glob(GPUS))),
        "omp_threads": os.environ.get("OMP_NUM_THREADS", ""),
    }


def usable_cores() -> int:
    """How many cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _described() -> str:
    """Commit of the repository, and whether tracked files differ from it; "" where git cannot tell."""
    command = [
        "git",
        "describe",
        "--always",
        "--dirty",
        "--abbrev=40",
        "--exclude=*",
    ]  # tags would shorten it away
    try:
        done = subprocess.run(
            command, cwd=repo_root(), capture_output=True, text=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def _after_colon(path: str, key: str) -> str:
    """The value of the first `key : value` line of a /proc file; "" where there is none."""
    try:
        lines = Path(path).read_text("utf-8").splitlines()
    except OSError:
        return ""
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(key)), "")

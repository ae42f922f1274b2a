"""JupyterLab and a browser on this machine only, for the tests that click."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[2]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
TOKEN = "test"
PATIENCE_S = 240  # for the slowest step on a busy machine

NOTEBOOK = "window.jupyterapp?.shell?.currentWidget"
KERNEL_READY = f"""() => {{
    const kernel = {NOTEBOOK}?.context?.sessionContext?.session?.kernel;
    return kernel?.connectionStatus === 'connected' && kernel.status === 'idle';
}}"""
CODE_CELLS = f"[...{NOTEBOOK}.content.model.cells].filter(cell => cell.type === 'code')"
RUN_IS_OVER = f"""() => {CODE_CELLS}.every(cell => cell.executionCount)
    || {CODE_CELLS}.some(cell => cell.outputs.toJSON().some(output => output.output_type === 'error'))"""
OUTPUTS = f"{CODE_CELLS}.flatMap(cell => cell.outputs.toJSON())"


def needs_chromium() -> None:
    if CHROMIUM is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(
            "Chromium is missing: apt-get install chromium"
        )


@contextlib.contextmanager
def served(home: Path, work: Path, runs: Path) -> Iterator[str]:
    """The address of a JupyterLab over the notebooks in `work`, with its files in `home`."""
    config = home / "config" / "labconfig"
    config.mkdir(parents=True)
    disabled = {"@jupyterlab/apputils-extension:announcements": True}
    (config / "page_config.json").write_text(json.dumps({"disabledExtensions": disabled}))
    port = free_port()
    variables = ("CONFIG_DIR", "RUNTIME_DIR", "DATA_DIR")
    environment = os.environ | {
        f"JUPYTER_{name}": str(home / name.split("_")[0].lower()) for name in variables
    }
    environment |= {
        "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
        "SPECEYES_RUNS": str(runs),
        "PYTHONPATH": str(ROOT),
    }
    command = [
        *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--expose-app-in-browser"),
        *("--ip=127.0.0.1", f"--port={port}", f"--ServerApp.root_dir={work}"),
        f"--IdentityProvider.token={TOKEN}",
    ]
    with running(command, environment, f"http://127.0.0.1:{port}", home / "log.txt", "/api") as address:
        yield address


APP_OPTIONS = (
    "--template=explorers",
    "--classic-tree",
    "--Voila.ip=127.0.0.1",
    "--Voila.tornado_settings={'allow_remote_access': False}",
)


@contextlib.contextmanager
def app_served(home: Path, notebooks: Path, runs: Path) -> Iterator[str]:
    """The address of the explorers' app, served as `make app` does, from `home`/app."""
    app, port = home / "app", free_port()
    app.mkdir()
    (app / "figures").symlink_to(ROOT / "figures")
    script = [sys.executable, ROOT / "scripts" / "app" / "notebooks.py", app, notebooks]
    subprocess.run(script, check=True)
    environment = os.environ | {
        "SPECEYES_RUNS": str(runs),
        "SPECEYES_HOME": str(ROOT),
        "PYTHONPATH": str(ROOT),
        "JUPYTER_PATH": str(ROOT / "scripts" / "app"),
    }
    command = [sys.executable, "-m", "voila", str(app), *APP_OPTIONS, "--no-browser", f"--port={port}"]
    with running(command, environment, f"http://127.0.0.1:{port}", home / "app.txt", "") as address:
        yield address


@contextlib.contextmanager
def running(
    command: list[str], environment: dict[str, str], address: str, log: Path, ready: str
) -> Iterator[str]:
    """A server until the block is left, once `address` + `ready` answers."""
    with log.open("w") as file:
        server = subprocess.Popen(
            command, env=environment, stdout=file, stderr=file, stdin=subprocess.DEVNULL, cwd=ROOT
        )
    try:
        _wait_for(address + ready, server, log)
        yield address
    finally:
        server.terminate()
        server.wait(timeout=1800)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def _wait_for(address: str, server: subprocess.Popen, log: Path) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < end_s:
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except (urllib.error.URLError, OSError):
            assert server.poll() is None, log.read_text()
            time.sleep(0.2)
    pytest.fail(f"the server did not start:\n{log.read_text()}")


def copy_with(name: str, folder: Path, **parameters) -> None:
    """Copy a notebook and change its parameters as a person would: in the parameters cell."""
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    cell = next(cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    cell.source += "".join(f"\n{key} = {value!r}" for key, value in parameters.items())
    nbformat.write(notebook, folder / f"{name}.ipynb")


@contextlib.contextmanager
def chromium() -> Iterator:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        yield browser
        browser.close()


def offline_page(browser, address: str, width: int, height: int) -> tuple:
    """A page that reaches `address` only, and the list of what it wanted from elsewhere."""
    foreign: list[str] = []

    def only_this_machine(route) -> None:
        if route.request.url.startswith((address, "data:", "blob:")):
            route.continue_()
        else:
            foreign.append(route.request.url)
            route.abort()

    page = browser.new_page(viewport={"width": width, "height": height})
    page.set_default_timeout(PATIENCE_S * 1000)
    page.route("**/*", only_this_machine)
    return page, foreign


def run_all(page, address: str, name: str) -> None:
    """Open a notebook in JupyterLab, in a new workspace, and run all its cells."""
    page.goto(f"{address}/lab/workspaces/{name}/tree/{name}.ipynb?token={TOKEN}")
    page.wait_for_function(KERNEL_READY)
    page.evaluate("window.jupyterapp.commands.execute('notebook:run-all-cells')")
    page.wait_for_function(RUN_IS_OVER)
    page.wait_for_function(KERNEL_READY)

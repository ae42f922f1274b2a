"""A person opens a notebook in JupyterLab, runs all cells, sees pictures and tables; nothing leaves the machine."""

from __future__ import annotations

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
from conftest import MODELS

ROOT = Path(__file__).parents[2]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
NAME = "01_small_model_inference"
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


@pytest.fixture(scope="module")
def lab(tmp_path_factory, benchmark_root) -> Iterator[str]:
    """A JupyterLab on this machine only, over a copy of the notebook: its address."""
    if CHROMIUM is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("no Chromium here: apt-get install chromium")
    home = tmp_path_factory.mktemp("lab")
    config = home / "config" / "labconfig"
    config.mkdir(parents=True)
    disabled = {"@jupyterlab/apputils-extension:announcements": True}
    (config / "page_config.json").write_text(json.dumps({"disabledExtensions": disabled}))
    work = home / "notebooks"
    work.mkdir()
    copy_with(
        NAME, work, run="browser", data_root=str(benchmark_root), draft_model=str(MODELS / "draft"), limit=2
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = ("CONFIG_DIR", "RUNTIME_DIR", "DATA_DIR")
    environment = os.environ | {f"JUPYTER_{name}": str(home / name.split("_")[0].lower()) for name in own}
    environment |= {
        "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
        "SPECEYES_RUNS": str(home / "runs"),
        "PYTHONPATH": str(ROOT),
    }
    command = [
        *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--expose-app-in-browser"),
        *(
            "--ip=127.0.0.1",
            f"--port={port}",
            f"--ServerApp.root_dir={work}",
            f"--IdentityProvider.token={TOKEN}",
        ),
    ]
    with (home / "log.txt").open("w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        wait_for(address, server, home / "log.txt")
        yield address
    finally:
        server.terminate()
        server.wait(timeout=30)


def copy_with(name: str, folder: Path, **parameters) -> None:
    """Copy a notebook and change its parameters as a person would: in the parameters cell."""
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    cell = next(cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    cell.source += "".join(f"\n{key} = {value!r}" for key, value in parameters.items())
    nbformat.write(notebook, folder / f"{name}.ipynb")


def wait_for(address: str, server: subprocess.Popen, log: Path) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < end_s:
        try:
            urllib.request.urlopen(f"{address}/api", timeout=5).close()
            return
        except (urllib.error.URLError, OSError):
            assert server.poll() is None, log.read_text()
            time.sleep(0.2)
    pytest.fail(f"JupyterLab did not start:\n{log.read_text()}")


@pytest.fixture(scope="module")
def browser(lab) -> Iterator:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def run_page(lab, browser, tmp_path_factory) -> Iterator[tuple]:
    """The notebook after "run all cells": (page, addresses it wanted from elsewhere)."""
    foreign: list[str] = []

    def only_this_machine(route) -> None:
        if route.request.url.startswith((lab, "data:", "blob:")):
            route.continue_()
        else:
            foreign.append(route.request.url)
            route.abort()

    page = browser.new_page(viewport={"width": 1400, "height": 1600})
    page.set_default_timeout(PATIENCE_S * 1000)
    page.route("**/*", only_this_machine)
    page.goto(f"{lab}/lab/tree/{NAME}.ipynb?token={TOKEN}")
    page.wait_for_function(KERNEL_READY)
    page.evaluate("window.jupyterapp.commands.execute('notebook:run-all-cells')")
    page.wait_for_function(RUN_IS_OVER)
    page.wait_for_function(KERNEL_READY)
    page.screenshot(path=tmp_path_factory.mktemp("screenshot") / f"{NAME}.png")
    yield page, foreign
    page.close()


def test_all_cells_run_without_error_or_warning(run_page):
    page, _ = run_page
    outputs = page.evaluate(OUTPUTS)
    assert [o for o in outputs if o["output_type"] == "error" or o.get("name") == "stderr"] == []
    assert all(page.evaluate(f"{CODE_CELLS}.map(cell => cell.executionCount)"))


def test_pictures_and_tables_are_on_the_page(run_page):
    page, _ = run_page
    pictures = (
        "[...document.querySelectorAll('.jp-OutputArea-output img')].filter(img => img.naturalWidth > 50)"
    )
    assert page.evaluate(f"{pictures}.length") >= 2
    assert page.locator(".jp-OutputArea-output table").count() >= 3


def test_progress_is_one_line_when_the_work_is_over(run_page):
    page, _ = run_page
    lines = [o["data"]["text/plain"] for o in page.evaluate(OUTPUTS) if "drafted" in str(o.get("data", {}))]
    assert len(lines) == 1
    assert lines[0].startswith("drafted 14 of 14 samples in ")


def test_the_page_wants_nothing_from_elsewhere(run_page):
    _, foreign = run_page
    assert foreign == []

"""The explorers' app: served as `make app` does, and opened in a browser with the explorer first."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from explore_run import K_STORED, store_run
from lab import APP_OPTIONS, ROOT, app_served, chromium, copy_with, needs_chromium, offline_page


@pytest.fixture(scope="module")
def home(tmp_path_factory, scene_samples, benchmark_root) -> Path:
    needs_chromium()
    home = tmp_path_factory.mktemp("app")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPECEYES_RUNS", str(home / "runs"))
        store_run("small", scene_samples, benchmark_root)
    (home / "notebooks").mkdir()
    for name in ("explore_gating", "explore_traces"):
        copy_with(name, home / "notebooks", run="small")
    copy_with("explore_tool_calls", home / "notebooks")
    copy_with("explore_gating", home / "notebooks", run="small", threshold=0.9, k=K_STORED, author="Ada")
    return home


@pytest.fixture(scope="module")
def app(home) -> Iterator[str]:
    with app_served(home, home / "notebooks", home / "runs") as address:
        yield address


def test_the_app_is_served_as_make_does_and_to_this_machine_only(app):
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for option in (*APP_OPTIONS, "scripts/app/notebooks.py", 'JUPYTER_PATH="$$PWD/scripts/app"'):
        assert option in makefile
    port = app.rsplit(":", 1)[1]
    for host, status in (("localhost", 200), ("somewhere.example", 403)):
        with httpx2.Client(trust_env=False) as client:
            assert client.get(app, headers={"Host": f"{host}:{port}"}).status_code == status


def test_the_app_opens_the_explorers_without_network(app, home):
    with chromium() as browser:
        page, foreign = offline_page(browser, app, 1440, 900)
        page.goto(app)
        page.get_by_text("The gate", exact=True).click()
        explorer = page.locator(".se-explorer.widget-vbox").first
        explorer.locator(".se-samples tbody tr").nth(2).click()
        picture = explorer.locator(".se-stage img").element_handle()
        page.wait_for_function("i => i.complete && i.naturalWidth > 50", arg=picture)
        assert explorer.bounding_box()["y"] < 60  # before its prose
        assert foreign == []

"""Text of models, benchmarks and servers stays text: a hostile run is shown by every notebook, explorer and page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import hostile
import nbformat
import pytest
from lab import ROOT, chromium, needs_chromium, offline_page, run_all, served
from nbclient import NotebookClient

from speceyes_lib.params import ALL_NOTEBOOKS
from speceyes_lib.report import site

RUN = "evil"
AFTER_ANALYSIS = ("explore_", "study_")
# those that train, that show reported numbers, or that need what a served model or this run has not
OTHERS = (
    *("train_demo_models", "study_reported_numbers", "study_layer_gates", "study_second_draft"),
    "study_tool_speculation",
)
NAMES = sorted(
    (name for name in ALL_NOTEBOOKS if name not in OTHERS),
    key=lambda name: (name.startswith(AFTER_ANALYSIS), name),
)
# figures take most of the time, and none of them is HTML
BEGIN = """import io
from matplotlib import figure, layout_engine
from PIL import Image
def save(self, target, new=Image.new, **_):
    new("RGB", (96, 96)).save(target, "PDF" if str(target).endswith("pdf") else "PNG", dpi=(96, 96))
figure.Figure.savefig = save
layout_engine.ConstrainedLayoutEngine.execute = lambda self, figure: None"""
# what a cell shows is trusted in JupyterLab: everything that the notebooks showed is shown again, then both explorers
LIVE = f"""import nbformat
from pathlib import Path
from IPython.display import display
from speceyes_lib.explore import GatingExplorer, TraceExplorer
from speceyes_lib.explore.state import GateView
from speceyes_lib.paths import run_dir
from speceyes_lib.workflow import notebook
notebook.start("explore_traces", {{"run": "{RUN}", "text": "evil", "other_run": ""}})
for path in sorted(run_dir("{RUN}").glob("notebooks/*.ipynb")):
    outputs = [output for cell in nbformat.read(path, 4).cells for output in cell.get("outputs", ())]
    parts = [output.data["text/html"] for output in outputs if "text/html" in output.get("data", {{}})]
    display({{"text/html": "".join(parts)}}, raw=True)  # one output: JupyterLab shows 50 of a cell
display(GatingExplorer("{RUN}", GateView(threshold=0.9)), TraceExplorer("{RUN}", other=("{RUN}", "baseline")))"""
# what of a page can run, fetch, hide or take another's place, as the browser has understood it
ACTIVE = """root => [...root.querySelectorAll('*')].flatMap(element => [
    ...(['SCRIPT', 'IFRAME', 'OBJECT', 'EMBED', 'FORM', 'LINK', 'BASE', 'PLAINTEXT', 'MJX-CONTAINER']
        .includes(element.tagName) ? [element.tagName] : []),
    ...[...element.attributes].filter(({name, value}) => name.startsWith('on') || /^\\s*javascript:/i.test(value)
        || (['src', 'href', 'srcdoc'].includes(name) && /evil|attacked|^x$/.test(value))
        || (['class', 'id', 'style', 'name'].includes(name) && /evil|attacked/.test(value)))
        .map(({name}) => `${element.tagName} ${name}`),
    ...(element.tagName === 'STYLE' && /evil/.test(element.textContent) ? ['STYLE'] : []),
])"""
# texts that the page holds and no one sees, once what is folded is open
HIDDEN = """root => {
    root.querySelectorAll('details').forEach(folded => folded.open = true);
    const texts = document.createTreeWalker(root, NodeFilter.SHOW_TEXT | NodeFilter.SHOW_COMMENT);
    const hidden = [];
    while (texts.nextNode()) {
        const {data, parentElement} = texts.currentNode;
        if (data.includes('evil') && !['title', 'OPTION'].includes(parentElement.tagName)
            && (texts.currentNode.nodeType === 8 || !parentElement.checkVisibility({visibilityProperty: true})))
            hidden.push(data);
    }
    return hidden;
}"""


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """The hostile run, on which all notebooks that show a run were executed, in one kernel, and its exported pages."""
    needs_chromium()
    home = tmp_path_factory.mktemp("hostile")
    hostile.write_benchmark(home / "data")
    hostile.write_training(home / "training")
    with pytest.MonkeyPatch.context() as patch, hostile.hostile_server() as server:
        patch.setenv("SPECEYES_RUNS", str(home / "runs"))
        model = f"{server.base_url}?model={{}}&processor=qwen2_5_vl".format
        values = {
            **{"run": RUN, "other_run": RUN, "tasks": hostile.TASKS, "data_root": str(home / "data")},
            **{"draft_model": model("draft"), "agent_model": model("agent"), "judge": model("judge")},
            **{"k_store": hostile.ALTERNATIVES, "threshold": 0.9, "threshold_from": "", "kind": "check"},
            **{
                "arms": ["collect", "baseline", "gated"],
                "bootstrap": 100,
                "repeats": 2,
                "validation_root": "",
            },
            **{
                "path": str(home / "training"),
                "orders": ["rotated_1"],
                "settings": ["min > 0.9"],
                "author": hostile.attack("author"),
            },
        }
        whole, cells_of = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(BEGIN)]), {}
        for name in NAMES:
            cells_of[name] = cells(name, values)
            whole.cells += [nbformat.v4.new_code_cell("%reset -f\n%reset -f in"), *cells_of[name]]
        NotebookClient(whole, resources={"metadata": {"path": str(ROOT / "notebooks")}}).execute()
        folder = home / "runs" / RUN / "notebooks"
        folder.mkdir()
        for name in NAMES:
            nbformat.write(nbformat.v4.new_notebook(cells=cells_of[name]), folder / f"{name}.ipynb")
        site.write_index(RUN)
    return home


def cells(name: str, values: dict) -> list[nbformat.NotebookNode]:
    """The code of a notebook with the parameters among `values` that it has."""
    given = {key: value for key, value in values.items() if key in ALL_NOTEBOOKS[name].model_fields}
    if name == "study_replay_fidelity":  # it runs the models once per setting, under a name of its own
        given |= {"run": f"{RUN}_fidelity", "limit": 2}
    if name == "study_deepeyes_recipe":  # its arms are ways to train
        del given["arms"]
    if name == "explore_tool_calls":  # its path is that of a study of tool calls: the recorded one
        del given["path"]
    if name.startswith("study_") and "tasks" in ALL_NOTEBOOKS[name].model_fields:
        given["tasks"] = hostile.TASKS[:1]
    code = [c for c in nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", 4).cells if c.cell_type == "code"]
    lines = "\n".join(f"{key} = {value!r}" for key, value in given.items())
    return [code[0], nbformat.v4.new_code_cell(f"# Parameters\n{lines}"), *code[1:]]


@pytest.fixture(scope="module")
def browser() -> Iterator:
    needs_chromium()
    with chromium() as browser:
        yield browser


def test_every_exported_page_shows_hostile_text_as_text(home, browser):
    run = home / "runs" / RUN
    shown: dict[str, set[str]] = {}
    for path in (
        run / "index.html",
        run / "05_figures" / "table1.html",
        *sorted(run.glob("notebooks/*.html")),
    ):
        # what escapes must be seen here, so the page's own rule against scripts is taken away
        text = path.read_text("utf-8").replace("Content-Security-Policy", "none")
        page, foreign = offline_page(browser, path.as_uri(), 1300, 900)
        page.set_content(text)
        root = page.locator("body").element_handle()
        assert page.evaluate(ACTIVE, root) == [], path.name
        assert page.evaluate(HIDDEN, root) == [], path.name
        assert page.evaluate("window.attacked") is None, path.name
        assert foreign == [], path.name
        shown[path.stem] = hostile.places(root.inner_text())
        page.close()
    assert {f"{name}" for name in NAMES} <= shown.keys()
    assert shown["00_prepare_data"] >= {"id", "question", "option"}
    assert shown["01_small_model_inference"] >= {"id", "question", "answer"}
    assert shown["02_gated_agent_eval"] >= {"router", "thought", "box", "label", "answer", "error"}
    assert shown["03_judging"] >= {"question", "answer"}
    assert shown["explore_gating"] >= {"author", "question", "option", "thought"}
    assert shown["explore_training"] >= {"question", "thought", "answer"}
    assert shown["read_training_run"] >= {"metric"}
    assert shown["explore_traces"] >= {"question", "thought", "answer"}


def test_the_pages_themselves_let_nothing_run(home, browser):
    page, _ = offline_page(browser, "file:", 1300, 900)
    path = home / "open.html"
    whole = (home / "runs" / RUN / "index.html").read_text("utf-8")
    evil = "<script>window.attacked=1</script><img src=x onerror=window.attacked=1>"
    picture = "<img id=picture src=picture.png>"
    (home / "picture.png").write_bytes(next((home / "runs").rglob("figures/*.png")).read_bytes())
    path.write_text(whole.replace("<h1>", f"{evil}{picture}<h1>"), "utf-8")
    page.goto(path.as_uri())
    page.wait_for_function("document.getElementById('picture').naturalWidth == 96")
    assert page.evaluate("window.attacked") is None
    assert page.locator("h1").evaluate("h => getComputedStyle(h).fontFamily").startswith("system-ui")


def test_what_a_cell_shows_in_jupyterlab_is_text_and_so_are_the_explorers(home, browser):
    work = home / "work"
    work.mkdir()
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(LIVE)])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, work / "live.ipynb")
    with served(home, work, home / "runs") as address:
        page, foreign = offline_page(browser, address, 1500, 2400)
        run_all(page, address, "live")
        explorers = page.locator(".se-explorer.widget-vbox")
        explorers.nth(1).locator(".se-samples tbody tr").first.wait_for()
        explorers.nth(0).locator(".se-samples tbody tr").nth(2).click()
        explorers.nth(0).locator(".se-alternative").nth(4).wait_for()
        root = page.locator(".jp-OutputArea").first.element_handle()
        assert page.evaluate(ACTIVE, root) == []
        assert page.evaluate(HIDDEN, root) == []
        assert page.evaluate("window.attacked") is None
        shown = hostile.places(root.inner_text())
        assert shown >= {"id", "question", "option", "answer", "thought", "judge", "error"}
        assert hostile.places(explorers.nth(0).inner_text()) >= {"id", "question", "thought"}
        assert hostile.places(explorers.nth(1).inner_text()) >= {"id", "question", "thought"}
        assert foreign == []

// The page around an explorer: its view as the fragment of the address, and files to keep.
//
// Trait `fragment` is the view that is shown. A link that was opened, and back and forward, go to Python as the
// message {open: fragment}. Several moves of the threshold, or several samples in a row, are one step back. Python's
// message {download: name, mime} with one buffer is a file that the browser saves.

const OWN = "gate=";
const FINE = new Set(["threshold", "sample"]); // fields that change step by step
const PAUSE_MS = 200; // browsers allow some 200 entries in 30 seconds

const inAddress = () => location.hash.slice(1);

// JupyterLab takes the fragment away while it starts: then the address as it was opened still has it
function opened() {
  if (inAddress()) return inAddress();
  const first = performance.getEntriesByType("navigation")[0]?.name ?? "";
  return first.includes("#") ? first.slice(first.indexOf("#") + 1) : "";
}

function changes(before, after) {
  const [a, b] = [new URLSearchParams(before), new URLSearchParams(after)];
  return [...new Set([...a.keys(), ...b.keys()])].filter((key) => a.get(key) !== b.get(key));
}

function render({ model, el }) {
  el.classList.add("se-page");
  const state = (window.speceyesPage ??= { opened: false, kind: "" }); // once per page, however often cells run
  const copy = document.createElement("button");
  copy.className = "se-plain";
  copy.textContent = "copy link";
  copy.title = "a link to what is shown now: run, setting, list and sample";
  const note = document.createElement("span");
  note.className = "se-note";
  note.setAttribute("role", "status");
  el.append(copy, note);
  let waiting = null;

  function address(fragment) {
    const url = new URL(location.href);
    for (const name of ["token", "voila-theme"]) url.searchParams.delete(name);
    url.pathname = url.pathname.replace(/\/lab\/workspaces\/[^/]+/, "/lab");
    url.hash = fragment;
    return url.href;
  }

  function write() {
    waiting = null;
    const [before, after] = [inAddress(), model.get("fragment")];
    if (!after || before === after) return;
    const changed = changes(before, after);
    if (!changed.length) return;
    const kind = changed.every((key) => FINE.has(key)) ? changed[0] : "";
    const step = !before.startsWith(OWN) || (kind && kind === state.kind) ? "replaceState" : "pushState";
    state.kind = before.startsWith(OWN) ? kind : "";
    history[step](history.state, "", `#${after}`);
  }

  function later() {
    note.textContent = "";
    clearTimeout(waiting);
    waiting = setTimeout(write, PAUSE_MS);
  }

  function back() {
    clearTimeout(waiting);
    state.kind = "";
    if (inAddress().startsWith(OWN) && inAddress() !== model.get("fragment")) model.send({ open: inAddress() });
  }

  copy.addEventListener("click", async () => {
    const link = address(model.get("fragment"));
    try {
      await navigator.clipboard.writeText(link);
      note.textContent = " copied";
    } catch {
      const field = document.createElement("input"); // not every address may write to the clipboard
      field.readOnly = true;
      field.value = link;
      field.setAttribute("aria-label", "link of this view");
      note.replaceChildren(field);
      field.select();
    }
  });

  function save(message, buffers) {
    if (message.download === undefined) return;
    const file = URL.createObjectURL(new Blob(buffers, { type: message.mime }));
    const anchor = document.createElement("a");
    [anchor.href, anchor.download] = [file, message.download];
    anchor.click();
    setTimeout(() => URL.revokeObjectURL(file), 10_000);
  }

  model.on("change:fragment", later);
  model.on("msg:custom", save);
  window.addEventListener("hashchange", back); // also for back and forward: entries differ in nothing else
  const link = opened();
  if (!state.opened && link.startsWith(OWN) && link !== model.get("fragment")) model.send({ open: link });
  else later();
  state.opened = true;
  return () => {
    clearTimeout(waiting);
    window.removeEventListener("hashchange", back);
    model.off("change:fragment", later);
    model.off("msg:custom", save);
  };
}

export default { render };

// A list of samples to walk through by mouse or keys.
// Traits: columns [{name, title, align}], rows [{id, cells: [text], colors: [css or ""]}], chosen (id), caption, shortcuts
// {key: word}. The arrow keys (and j, k) choose; a key in `shortcuts` goes back as a message {key}.

function make(name, className = "", text = undefined) {
  const made = document.createElement(name);
  made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function render({ model, el }) {
  el.classList.add("se-samples-box");
  el.dataset.lmSuppressShortcuts = "true";
  const caption = make("div", "se-caption");
  caption.setAttribute("aria-live", "polite");
  const frame = make("div", "se-frame");
  frame.tabIndex = 0;
  frame.setAttribute("role", "listbox");
  frame.setAttribute("aria-label", "samples");
  el.append(caption, frame);
  let lines = new Map();

  function draw() {
    const table = make("table", "se-samples");
    const head = make("tr");
    for (const { title, align } of model.get("columns")) {
      const cell = make("th", align ? `se-${align}` : "", title);
      head.append(cell);
    }
    const top = make("thead");
    top.append(head);
    const body = make("tbody");
    lines = new Map();
    const columns = model.get("columns");
    for (const { id, cells, colors } of model.get("rows")) {
      const line = make("tr");
      line.dataset.id = id;
      line.setAttribute("role", "option");
      cells.forEach((text, i) => {
        const cell = make("td", columns[i]?.align ? `se-${columns[i].align}` : "", text);
        if (colors?.[i]) cell.style.color = colors[i];
        cell.title = text;
        line.append(cell);
      });
      line.addEventListener("click", () => choose(id));
      body.append(line);
      lines.set(id, line);
    }
    table.append(top, body);
    frame.replaceChildren(table);
    mark();
  }

  function mark() {
    caption.textContent = model.get("caption");
    for (const [id, line] of lines) {
      const chosen = id === model.get("chosen");
      line.classList.toggle("se-chosen", chosen);
      line.setAttribute("aria-selected", chosen);
      if (!chosen) continue;
      const over = line.offsetTop - frame.scrollTop;
      const head = 26;
      if (over < head) frame.scrollTop = line.offsetTop - head;
      else if (over + line.offsetHeight > frame.clientHeight) frame.scrollTop = line.offsetTop + line.offsetHeight - frame.clientHeight;
    }
  }

  function choose(id) {
    model.set("chosen", id);
    model.save_changes();
    mark();
  }

  frame.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const ids = [...lines.keys()];
    const here = ids.indexOf(model.get("chosen"));
    const next = { ArrowDown: here + 1, j: here + 1, ArrowUp: here - 1, k: here - 1, Home: 0, End: ids.length - 1 }[event.key];
    if (next !== undefined) {
      if (ids[Math.max(0, next)] !== undefined) choose(ids[Math.max(0, next)]);
    } else if (model.get("shortcuts")[event.key] !== undefined) {
      model.send({ key: event.key });
    } else return;
    event.preventDefault();
    event.stopPropagation();
  });

  model.on("change:rows", draw);
  model.on("change:columns", draw);
  model.on("change:chosen", mark);
  model.on("change:caption", mark);
  draw();
}

export default { render };

// A list of samples to walk through by mouse or keys, a page of its rows at a time.
// Traits: columns [{title, align, key}], rows of this page [{id, cells: [text], colors: [css or ""]}], chosen (id),
// caption, shortcuts {key: word}, page and n_pages, order (key of a column, "-" before it: downwards), thumbnails.
// The arrow keys (and j, k) choose; beyond the page, and for other pages, Python is called: {walk: places} or
// {page: number}. A key in `shortcuts` goes back as {key}, a click on a header as {sort: key}.

const AT_ONCE = 8; // pictures in one request: between two, Python can do something else
const KEPT = 400;

function make(name, className = "", text = undefined) {
  const made = document.createElement(name);
  made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

// a colour of the figures, as the theme shows it
function paint(color) {
  return color.startsWith("#") ? `var(--se-${color.slice(1).toLowerCase()}, ${color})` : color;
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
  const pager = make("div", "se-pager");
  el.append(caption, frame, pager);
  let lines = new Map();
  const own = `se-row-${Math.random().toString(36).slice(2)}`; // a page may hold several lists

  // ---------------------------------------------------------------- rows

  function header({ title, align, key }) {
    const cell = make("th", align ? `se-${align}` : "");
    if (key === undefined) {
      cell.textContent = title;
      return cell;
    }
    const order = model.get("order");
    const [up, down] = [order === key, order === `-${key}`];
    const button = make("button", "se-sort", `${title}${up ? " ▲" : down ? " ▼" : ""}`);
    cell.setAttribute("aria-sort", up ? "ascending" : down ? "descending" : "none");
    button.title = `sort by ${title}`;
    button.addEventListener("click", () => model.send({ sort: key }));
    cell.append(button);
    return cell;
  }

  function draw() {
    const table = make("table", model.get("thumbnails") ? "se-samples se-thumbs" : "se-samples");
    const columns = model.get("columns");
    const head = make("tr");
    if (model.get("thumbnails")) head.append(make("th"));
    head.append(...columns.map(header));
    const top = make("thead");
    top.append(head);
    const body = make("tbody");
    lines = new Map();
    watcher.disconnect();
    for (const { id, cells, colors } of model.get("rows")) {
      const line = make("tr");
      line.dataset.id = id;
      line.id = `${own}-${lines.size}`; // never a text of the run
      line.setAttribute("role", "option");
      if (model.get("thumbnails")) {
        const place = make("td", "se-thumb");
        line.append(place);
        if (pictures.has(id)) show(place, id);
        else watcher.observe(line);
      }
      cells.forEach((text, i) => {
        const cell = make("td", columns[i]?.align ? `se-${columns[i].align}` : "", text);
        if (colors?.[i]) cell.style.color = paint(colors[i]);
        cell.title = text;
        line.append(cell);
      });
      line.addEventListener("click", () => choose(id));
      body.append(line);
      lines.set(id, line);
    }
    table.append(top, body);
    const active = document.activeElement;
    const focused = active !== frame && frame.contains(active) && active.textContent; // a header, which is made again
    frame.replaceChildren(table);
    if (focused) [...frame.querySelectorAll(".se-sort")].find((b) => b.title.endsWith(focused.split(" ")[0]))?.focus();
    pages();
    mark();
  }

  function pages() {
    const [page, n] = [model.get("page"), model.get("n_pages")];
    pager.style.display = n > 1 ? "" : "none";
    const turn = (label, name, to) => {
      const button = make("button", "se-plain", label);
      button.setAttribute("aria-label", name);
      button.disabled = to < 0 || to >= n || to === page;
      button.addEventListener("click", () => model.send({ page: to }));
      return button;
    };
    const field = make("input");
    [field.type, field.min, field.max, field.value] = ["number", 1, n, page + 1];
    field.setAttribute("aria-label", "page");
    field.addEventListener("change", () => {
      const to = Math.round(Number(field.value)) - 1;
      if (to >= 0 && to < n) model.send({ page: to });
      else field.value = page + 1;
    });
    const [first, last] = [turn("«", "first page", 0), turn("»", "last page", n - 1)];
    pager.replaceChildren(first, turn("‹", "previous page", page - 1), "page ", field, ` of ${n}`, turn("›", "next page", page + 1), last);
  }

  function mark() {
    caption.textContent = model.get("caption");
    frame.removeAttribute("aria-activedescendant");
    for (const [id, line] of lines) {
      const chosen = id === model.get("chosen");
      line.classList.toggle("se-chosen", chosen);
      line.setAttribute("aria-selected", chosen);
      if (!chosen) continue;
      frame.setAttribute("aria-activedescendant", line.id);
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
    if (event.ctrlKey || event.metaKey || event.altKey || event.target !== frame) return;
    const ids = [...lines.keys()];
    const here = ids.indexOf(model.get("chosen"));
    const by = { ArrowDown: 1, j: 1, ArrowUp: -1, k: -1, Home: -1e9, End: 1e9 }[event.key];
    const turn = { PageDown: 1, PageUp: -1 }[event.key];
    if (by !== undefined) {
      if (here >= 0 && ids[here + by] !== undefined) choose(ids[here + by]);
      else model.send({ walk: by });
    } else if (turn !== undefined) {
      const to = model.get("page") + turn;
      if (to >= 0 && to < model.get("n_pages")) model.send({ page: to });
    } else if (model.get("shortcuts")[event.key] !== undefined) {
      model.send({ key: event.key });
    } else return;
    event.preventDefault();
    event.stopPropagation();
  });

  // ---------------------------------------------------------------- small pictures, of the rows in view only

  const pictures = new Map(); // id -> address, "" where there is none
  const wanted = new Set();
  let waiting = false;
  const watcher = new IntersectionObserver(
    (entries) => {
      for (const { isIntersecting, target } of entries) (isIntersecting ? wanted.add : wanted.delete).call(wanted, target.dataset.id);
      request();
    },
    { root: frame },
  );

  function request() {
    for (const id of wanted) if (pictures.has(id)) wanted.delete(id);
    if (waiting || !wanted.size) return;
    waiting = true;
    model.send({ thumbs: [...wanted].slice(0, AT_ONCE) });
  }

  function show(place, id) {
    if (!pictures.get(id)) {
      place.textContent = "–";
      return;
    }
    const image = document.createElement("img");
    [image.src, image.alt] = [pictures.get(id), ""];
    place.replaceChildren(image);
  }

  function receive(message, buffers) {
    if (message.thumbs === undefined) return;
    message.thumbs.forEach((id, i) => {
      if (!pictures.has(id)) pictures.set(id, buffers[i]?.byteLength ? URL.createObjectURL(new Blob([buffers[i]])) : "");
      const line = lines.get(id);
      if (line && model.get("thumbnails")) show(line.firstChild, id);
    });
    for (const id of pictures.keys()) {
      if (pictures.size <= KEPT) break;
      if (lines.has(id)) continue;
      if (pictures.get(id)) URL.revokeObjectURL(pictures.get(id));
      pictures.delete(id);
    }
    waiting = false;
    request();
  }

  let due = false; // the traits of a page come one by one: draw once, when all are there
  function later() {
    if (due) return;
    due = true;
    queueMicrotask(() => {
      due = false;
      draw();
    });
  }

  for (const name of ["rows", "columns", "thumbnails", "order", "page", "n_pages"]) model.on(`change:${name}`, later);
  model.on("msg:custom", receive);
  model.on("change:chosen", mark);
  model.on("change:caption", mark);
  draw();
  return () => {
    watcher.disconnect();
    model.off("msg:custom", receive);
    for (const address of pictures.values()) if (address) URL.revokeObjectURL(address);
  };
}

export default { render };

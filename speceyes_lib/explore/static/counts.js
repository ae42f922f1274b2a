// A table of counts, each a button that lists what it counts.
// Traits: title, head [column], rows [{name, note, cells: [{key, text, off}]}], on (key of the button that is chosen).
// A click goes back as {clicked: key}. A button is read with its row and its column.

function make(name, className = "", text = undefined) {
  const made = document.createElement(name);
  made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function render({ model, el }) {
  el.classList.add("se-counts-box");
  let buttons = new Map();
  let drawn = "";

  function build() {
    const table = make("table", "se-counts");
    table.append(make("caption", "", model.get("title")));
    const head = make("tr");
    for (const text of model.get("head")) {
      const cell = make("th", "", text);
      cell.scope = "col";
      head.append(cell);
    }
    const top = make("thead");
    top.append(head);
    const body = make("tbody");
    buttons = new Map();
    for (const { name, note, cells } of model.get("rows")) {
      const row = make("tr");
      const first = make("th", "", name);
      first.scope = "row";
      row.append(first);
      for (const { key } of cells) {
        const button = make("button", "se-count");
        button.title = "list these samples";
        button.addEventListener("click", () => model.send({ clicked: key }));
        const cell = make("td");
        cell.append(button);
        row.append(cell);
        buttons.set(key, button);
      }
      if (note) row.append(make("td", "se-note", note));
      body.append(row);
    }
    table.append(top, body);
    el.replaceChildren(table);
  }

  function draw() {
    const [head, rows] = [model.get("head"), model.get("rows")];
    const shape = JSON.stringify([head, rows.map(({ name, cells }) => [name, cells.map(({ key }) => key)])]);
    if (shape !== drawn) build(); // otherwise the buttons stay, and so does the focus
    drawn = shape;
    for (const { name, note, cells } of rows) {
      cells.forEach(({ key, text, off }, i) => {
        const button = buttons.get(key);
        button.textContent = text;
        button.disabled = off;
        button.setAttribute("aria-label", `${name}${note ? ` (${note})` : ""}, ${head[i + 1]}: ${text}`);
        const on = key === model.get("on");
        button.classList.toggle("se-on", on);
        button.setAttribute("aria-pressed", on);
      });
    }
  }

  for (const name of ["rows", "on"]) model.on(`change:${name}`, draw);
  draw();
}

export default { render };

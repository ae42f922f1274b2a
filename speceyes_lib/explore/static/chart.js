// A small chart: bars, lines and dots over two axes, with one line to drag along x and one dot that follows.
//
// Python decides everything: `spec` holds axes with their ticks, marks with colours, titles and ids, all in data
// units, and maybe the line and the ring of a pinned setting (`ghost`, `ring`); `marker` is the x of the line (null: none), `dot` the [x, y] of the point that is current (null: none).
// What happens here goes back as `marker` (dragged), or as a message: {clicked: id} or {step: +1 | -1}.
// All text is set as text, never as markup.

const SVG = "http://www.w3.org/2000/svg";
const MARGIN = { left: 48, right: 12, top: 26, bottom: 38 };

function element(name, attributes = {}, text = undefined) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

// a colour of the figures, as the theme shows it
function paint(color) {
  return color?.startsWith("#") ? `var(--se-${color.slice(1).toLowerCase()}, ${color})` : color;
}

function titled(mark, title) {
  if (title) mark.append(element("title", {}, title));
  return mark;
}

function render({ model, el }) {
  const svg = element("svg", { class: "se-chart" });
  el.classList.add("se-chart-box");
  el.dataset.lmSuppressShortcuts = "true"; // arrow keys are for the chart, not for the notebook
  el.append(svg);

  let toX, toY, fromX;
  let marks = [];

  function scales() {
    const { x, y, width, height } = model.get("spec");
    const inner = [width - MARGIN.left - MARGIN.right, height - MARGIN.top - MARGIN.bottom];
    toX = (value) => MARGIN.left + ((value - x.low) / (x.high - x.low)) * inner[0];
    toY = (value) => MARGIN.top + ((y.high - value) / (y.high - y.low)) * inner[1];
    fromX = (pixel) => x.low + ((pixel - MARGIN.left) / inner[0]) * (x.high - x.low);
  }

  function send(message) {
    model.send(message);
  }

  function clickable(mark, id) {
    if (id === undefined) return mark;
    mark.classList.add("se-clickable");
    mark.setAttribute("role", "button");
    mark.setAttribute("aria-label", mark.textContent);
    mark.tabIndex = marks.length ? -1 : 0; // one stop for the tab key; the arrow keys move between them
    const place = marks.push(mark) - 1;
    mark.addEventListener("click", () => send({ clicked: id }));
    mark.addEventListener("keydown", (event) => {
      const next = { ArrowRight: place + 1, ArrowLeft: place - 1, Home: 0, End: marks.length - 1 }[event.key];
      if (event.key === "Enter" || event.key === " ") send({ clicked: id });
      else if (marks[next]) {
        [mark.tabIndex, marks[next].tabIndex] = [-1, 0];
        marks[next].focus();
      } else return;
      event.preventDefault();
      event.stopPropagation();
    });
    return mark;
  }

  function axes(spec) {
    const { x, y, width, height } = spec;
    const bottom = height - MARGIN.bottom;
    for (const tick of y.ticks) {
      svg.append(element("line", { class: "se-grid", x1: MARGIN.left, x2: width - MARGIN.right, y1: toY(tick.at), y2: toY(tick.at) }));
      svg.append(element("text", { class: "se-tick", x: MARGIN.left - 6, y: toY(tick.at) + 4, "text-anchor": "end" }, tick.label));
    }
    for (const tick of x.ticks) {
      svg.append(element("line", { class: "se-grid", x1: toX(tick.at), x2: toX(tick.at), y1: MARGIN.top, y2: bottom }));
      svg.append(element("text", { class: "se-tick", x: toX(tick.at), y: bottom + 14, "text-anchor": "middle" }, tick.label));
    }
    svg.append(element("text", { class: "se-title", x: MARGIN.left, y: 14 }, spec.title));
    svg.append(element("text", { class: "se-label", x: (MARGIN.left + width - MARGIN.right) / 2, y: height - 4, "text-anchor": "middle" }, x.label));
    const side = `translate(12 ${(MARGIN.top + bottom) / 2}) rotate(-90)`;
    svg.append(element("text", { class: "se-label", transform: side, "text-anchor": "middle" }, y.label));
  }

  function draw() {
    const spec = model.get("spec");
    if (!spec.width) return;
    scales();
    svg.replaceChildren();
    marks = [];
    svg.setAttribute("viewBox", `0 0 ${spec.width} ${spec.height}`);
    svg.setAttribute("role", "group");
    svg.setAttribute("aria-label", spec.title);
    axes(spec);
    for (const bar of spec.bars ?? []) {
      const [top, bottom] = [Math.min(toY(bar.y0), toY(bar.y1)), Math.max(toY(bar.y0), toY(bar.y1))];
      const box = { x: toX(bar.x0) + 0.5, width: Math.max(1, toX(bar.x1) - toX(bar.x0) - 1), y: top, height: bottom - top, fill: paint(bar.color) };
      svg.append(clickable(titled(element("rect", box), bar.title), bar.id));
    }
    for (const line of spec.lines ?? []) {
      const points = line.points.map(([a, b]) => `${toX(a).toFixed(1)},${toY(b).toFixed(1)}`).join(" ");
      const look = { points, fill: "none", stroke: paint(line.color), "stroke-width": line.width ?? 1.6, "stroke-dasharray": line.dash ?? "" };
      svg.append(titled(element("polyline", look), line.title));
    }
    for (const dot of spec.dots ?? []) {
      const look = { cx: toX(dot.x), cy: toY(dot.y), r: dot.r ?? 3, fill: paint(dot.color), class: "se-dot" };
      svg.append(clickable(titled(element("circle", look), dot.title), dot.id));
    }
    if (spec.ghost) {
      const x = toX(spec.ghost.at);
      svg.append(titled(element("line", { class: "se-ghost", x1: x, x2: x, y1: MARGIN.top, y2: spec.height - MARGIN.bottom }), spec.ghost.label));
      const left = x > spec.width / 2;
      svg.append(element("text", { class: "se-label", x: x + (left ? -5 : 5), y: spec.height - MARGIN.bottom - 5, "text-anchor": left ? "end" : "start" }, spec.ghost.label));
    }
    if (spec.ring) svg.append(titled(element("circle", { class: "se-ghost", cx: toX(spec.ring[0]), cy: toY(spec.ring[1]), r: 6 }), "pinned"));
    // beside the title, from the right: the plot is for the data
    let right = spec.width - MARGIN.right;
    for (const { label, color } of (spec.legend ?? []).toReversed()) {
      svg.append(element("text", { class: "se-tick", x: right, y: 14, "text-anchor": "end" }, label));
      right -= 6.3 * label.length + 13; // the text cannot be measured before it is shown
      svg.append(element("rect", { x: right, y: 6, width: 9, height: 9, fill: paint(color) }));
      right -= 10;
    }
    svg.append(handle, current);
    move();
  }

  // ---------------------------------------------------------------- what moves

  const handle = element("g", { class: "se-handle", tabindex: 0, role: "slider" });
  const rule = element("line", { class: "se-rule" });
  const grip = element("path", { class: "se-grip", d: "M-6,0 L6,0 L6,9 L0,15 L-6,9 Z" });
  const wide = element("line", { class: "se-reach" }); // easier to catch than a thin line
  const current = element("circle", { class: "se-current", r: 6 });
  handle.append(wide, rule, grip);

  function move() {
    const spec = model.get("spec");
    if (!spec.width || !toX) return;
    const marker = model.get("marker");
    handle.style.display = marker === null ? "none" : "";
    if (marker !== null) {
      const x = toX(Math.min(spec.x.high, Math.max(spec.x.low, marker)));
      for (const line of [rule, wide]) {
        for (const [key, value] of Object.entries({ x1: x, x2: x, y1: MARGIN.top, y2: spec.height - MARGIN.bottom })) line.setAttribute(key, value);
      }
      grip.setAttribute("transform", `translate(${x} ${MARGIN.top - 8})`);
      handle.setAttribute("aria-label", "threshold");
      handle.setAttribute("aria-valuetext", model.get("marker_label"));
      handle.setAttribute("aria-valuemin", spec.x.low);
      handle.setAttribute("aria-valuemax", spec.x.high);
      handle.setAttribute("aria-valuenow", marker);
    }
    const dot = model.get("dot");
    current.style.display = dot === null ? "none" : "";
    if (dot !== null) {
      current.setAttribute("cx", toX(dot[0]));
      current.setAttribute("cy", toY(dot[1]));
    }
  }

  let dragging = false;
  let waiting = null;

  function follow(event) {
    const box = svg.getBoundingClientRect();
    const spec = model.get("spec");
    const value = fromX(((event.clientX - box.left) / box.width) * spec.width);
    model.set("marker", Math.min(spec.x.high, Math.max(spec.x.low, value)));
    move();
    // one message per frame: the line follows the pointer, Python follows the line
    waiting ??= requestAnimationFrame(() => {
      waiting = null;
      model.save_changes();
    });
  }

  handle.addEventListener("pointerdown", (event) => {
    dragging = true;
    handle.setPointerCapture(event.pointerId);
    handle.focus();
    event.preventDefault();
  });
  handle.addEventListener("pointermove", (event) => dragging && follow(event));
  handle.addEventListener("pointerup", () => (dragging = false));
  handle.addEventListener("pointercancel", () => (dragging = false));
  handle.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, PageUp: 10, PageDown: -10 }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    send({ step });
  });

  model.on("change:spec", draw);
  for (const name of ["marker", "marker_label", "dot"]) model.on(`change:${name}`, move);
  draw();
}

export default { render };

// A picture to look into: wheel or +/- zooms, dragging moves, a double click or 0 shows all of it again.
// Boxes are drawn over it in pixels of the original; each crop stands beside it, and a click on it goes there.
// Traits: data (encoded bytes), mime, width, height (of the original), boxes [{box: [x1, y1, x2, y2], kind, label,
// note}], message (shown in place of a picture that is not there).

const SVG = "http://www.w3.org/2000/svg";
const CROP_PX = 132;
const [WIDEST_PX, TALLEST_PX] = [385, 330]; // charts, sample and its tokens fit a screen of 1440 x 900

function div(className, text = undefined) {
  const made = document.createElement("div");
  made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function render({ model, el }) {
  el.classList.add("se-picture-box");
  el.dataset.lmSuppressShortcuts = "true";
  let address = null;
  let forget = () => {};

  function draw() {
    forget();
    if (address) URL.revokeObjectURL(address);
    address = null;
    el.replaceChildren();
    const [width, height] = [model.get("width"), model.get("height")];
    if (!width) {
      el.append(div("se-missing", model.get("message")));
      return;
    }
    const bytes = model.get("data");
    address = URL.createObjectURL(new Blob([bytes], { type: model.get("mime") }));

    const stage = div("se-stage");
    stage.tabIndex = 0;
    stage.setAttribute("role", "img");
    stage.setAttribute("aria-label", model.get("label"));
    stage.style.aspectRatio = `${width} / ${height}`;
    stage.style.width = `${Math.round(Math.min(WIDEST_PX, (TALLEST_PX * width) / height))}px`; // or all there is
    const layer = div("se-layer");
    const image = document.createElement("img");
    image.alt = model.get("label");
    image.draggable = false;
    image.src = address;
    const svg = document.createElementNS(SVG, "svg");
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    layer.append(image, svg);
    stage.append(layer);

    const view = { x: 0, y: 0, zoom: 1 };

    function place() {
      view.zoom = Math.min(40, Math.max(1, view.zoom));
      const [w, h] = [stage.clientWidth, stage.clientHeight];
      view.x = Math.min(0, Math.max(w - w * view.zoom, view.x));
      view.y = Math.min(0, Math.max(h - h * view.zoom, view.y));
      layer.style.transform = `translate(${view.x}px, ${view.y}px) scale(${view.zoom})`;
      layer.classList.toggle("se-pixels", (view.zoom * w) / width > 3); // show pixels, not a blur
      const scale = (view.zoom * w) / width; // screen px per px of the original
      for (const text of svg.querySelectorAll("text")) text.setAttribute("font-size", 13 / scale);
    }

    function zoomAt(x, y, factor) {
      const zoom = Math.min(40, Math.max(1, view.zoom * factor));
      view.x = x - ((x - view.x) * zoom) / view.zoom;
      view.y = y - ((y - view.y) * zoom) / view.zoom;
      view.zoom = zoom;
      place();
    }

    function goTo([x1, y1, x2, y2]) {
      const scale = stage.clientWidth / width;
      view.zoom = 0.8 * Math.min(width / (x2 - x1), height / (y2 - y1));
      view.zoom = Math.min(40, Math.max(1, view.zoom));
      view.x = stage.clientWidth / 2 - ((x1 + x2) / 2) * scale * view.zoom;
      view.y = stage.clientHeight / 2 - ((y1 + y2) / 2) * scale * view.zoom;
      place();
    }

    function all() {
      Object.assign(view, { x: 0, y: 0, zoom: 1 });
      place();
    }

    for (const { box, kind, label } of model.get("boxes")) {
      const [x1, y1, x2, y2] = box;
      const rect = document.createElementNS(SVG, "rect");
      for (const [key, value] of Object.entries({ x: x1, y: y1, width: x2 - x1, height: y2 - y1 })) rect.setAttribute(key, value);
      rect.setAttribute("class", `se-box se-${kind}`);
      const text = document.createElementNS(SVG, "text");
      text.setAttribute("class", `se-box-label se-${kind}`);
      text.setAttribute("x", x1);
      text.setAttribute("y", y1);
      text.setAttribute("dy", y1 < height * 0.08 ? "1em" : "-0.25em");
      text.textContent = label;
      svg.append(rect, text);
    }

    let from = null;
    stage.addEventListener("pointerdown", (event) => {
      from = [event.clientX - view.x, event.clientY - view.y];
      stage.setPointerCapture(event.pointerId);
    });
    stage.addEventListener("pointermove", (event) => {
      if (!from) return;
      [view.x, view.y] = [event.clientX - from[0], event.clientY - from[1]];
      place();
    });
    for (const over of ["pointerup", "pointercancel"]) stage.addEventListener(over, () => (from = null));
    stage.addEventListener("dblclick", all);
    stage.addEventListener(
      "wheel",
      (event) => {
        event.preventDefault();
        const box = stage.getBoundingClientRect();
        zoomAt(event.clientX - box.left, event.clientY - box.top, Math.exp(-event.deltaY / 400));
      },
      { passive: false },
    );
    stage.addEventListener("keydown", (event) => {
      const middle = [stage.clientWidth / 2, stage.clientHeight / 2];
      const acts = {
        "+": () => zoomAt(...middle, 1.5),
        "=": () => zoomAt(...middle, 1.5),
        "-": () => zoomAt(...middle, 1 / 1.5),
        0: all,
        ArrowLeft: () => ((view.x += 40), place()),
        ArrowRight: () => ((view.x -= 40), place()),
        ArrowUp: () => ((view.y += 40), place()),
        ArrowDown: () => ((view.y -= 40), place()),
      };
      if (!acts[event.key]) return;
      event.preventDefault();
      event.stopPropagation();
      acts[event.key]();
    });

    const crops = div("se-crops");
    function cutOut() {
      crops.replaceChildren();
      for (const { box, kind, label, note } of model.get("boxes")) {
        const [x1, y1, x2, y2] = box;
        const scale = CROP_PX / Math.max(x2 - x1, y2 - y1);
        const canvas = document.createElement("canvas");
        canvas.width = Math.max(1, Math.round((x2 - x1) * scale));
        canvas.height = Math.max(1, Math.round((y2 - y1) * scale));
        const shrink = image.naturalWidth / width; // the picture sent may be a smaller copy
        canvas
          .getContext("2d")
          .drawImage(image, x1 * shrink, y1 * shrink, (x2 - x1) * shrink, (y2 - y1) * shrink, 0, 0, canvas.width, canvas.height);
        const button = document.createElement("button");
        button.className = `se-crop se-${kind}`;
        button.title = "show it in the picture";
        button.append(canvas, div("se-crop-label", label), div("se-crop-note", note ?? ""));
        button.addEventListener("click", () => goTo(box));
        crops.append(button);
      }
    }
    image.addEventListener("load", () => {
      cutOut();
      place();
    });
    image.addEventListener("error", () => {
      if (image.isConnected) stage.replaceChildren(div("se-missing", "the browser cannot show this picture"));
    });

    const resized = new ResizeObserver(place);
    resized.observe(stage);
    forget = () => resized.disconnect();

    const hint = div("se-hint", "wheel or + − zooms, drag moves, 0 shows all");
    const left = div("se-picture-left");
    left.append(stage, hint);
    el.append(left, crops);
  }

  let due = false; // the traits of a new picture come one by one: draw once, when all are there
  function later() {
    if (due) return;
    due = true;
    queueMicrotask(() => {
      due = false;
      draw();
    });
  }

  for (const name of ["data", "message", "boxes", "width", "height"]) model.on(`change:${name}`, later);
  draw();
  return () => {
    forget();
    if (address) URL.revokeObjectURL(address);
  };
}

export default { render };

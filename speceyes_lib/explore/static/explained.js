// A sentence and its figure, to copy. Traits: `text`, and `figure`, the bytes of a PNG; both empty: nothing is shown.

function render({ model, el }) {
  el.classList.add("se-explained");
  el.dataset.lmSuppressShortcuts = "true";
  let address = "";

  function copied(note, write) {
    return async () => {
      try {
        await write();
        note.textContent = "copied";
      } catch (error) {
        note.textContent = `not copied (${error.message}); select it and press Ctrl+C`;
      }
    };
  }

  function button(label, act) {
    const made = document.createElement("button");
    made.type = "button";
    made.className = "se-plain";
    made.textContent = label;
    made.addEventListener("click", act);
    return made;
  }

  function draw() {
    URL.revokeObjectURL(address);
    el.replaceChildren();
    if (!model.get("text")) return;
    const text = document.createElement("textarea");
    text.readOnly = true;
    text.rows = 6;
    text.value = model.get("text");
    text.setAttribute("aria-label", "why the gate decides so");
    const file = new Blob([model.get("figure")], { type: "image/png" });
    address = URL.createObjectURL(file);
    const figure = document.createElement("img");
    figure.src = address;
    figure.alt = "the drafts by score, the threshold as a line, this sample as a ring";
    const note = document.createElement("span");
    note.className = "se-note";
    note.setAttribute("role", "status");
    const buttons = document.createElement("div");
    buttons.append(
      button("copy sentence", copied(note, () => navigator.clipboard.writeText(text.value))),
      button("copy figure", copied(note, () => navigator.clipboard.write([new ClipboardItem({ "image/png": file })]))),
      note,
    );
    el.append(text, figure, buttons);
  }

  model.on("change:text", draw);
  draw();
  return () => URL.revokeObjectURL(address);
}

export default { render };

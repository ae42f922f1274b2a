// The words of a draft, each coloured by how well it stood apart, and the alternatives to the one that is chosen.
// Trait `tokens`: [{text, color, ink, separability, probability, decides, alternatives: [{text, probability, chosen}]}].

const ROW = 19;

function make(name, className, text = undefined) {
  const made = document.createElement(name);
  made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function render({ model, el }) {
  el.classList.add("se-tokens-box");
  el.dataset.lmSuppressShortcuts = "true";

  function draw() {
    el.replaceChildren();
    const tokens = model.get("tokens");
    if (!tokens.length) {
      el.append(make("div", "se-missing", model.get("message")));
      return;
    }
    const strip = make("div", "se-tokens");
    strip.setAttribute("role", "listbox");
    strip.setAttribute("aria-label", "tokens of the draft");
    const detail = make("div", "se-alternatives");
    const buttons = tokens.map((token, i) => {
      const button = make("button", `se-token${token.decides ? " se-decides" : ""}`);
      button.setAttribute("role", "option");
      button.style.background = token.color;
      button.style.color = token.ink;
      button.append(make("span", "se-token-text", token.text), make("span", "se-token-value", token.separability));
      button.title = token.decides ? "this token decides the score min" : "show its alternatives";
      button.addEventListener("click", () => choose(i));
      button.addEventListener("keydown", (event) => {
        const next = { ArrowRight: i + 1, ArrowLeft: i - 1 }[event.key];
        if (next === undefined || !tokens[next]) return;
        event.preventDefault();
        event.stopPropagation();
        choose(next);
        buttons[next].focus();
      });
      strip.append(button);
      return button;
    });

    function choose(i) {
      buttons.forEach((button, j) => {
        button.classList.toggle("se-chosen", i === j);
        button.setAttribute("aria-selected", i === j);
      });
      const token = tokens[i];
      detail.replaceChildren(make("div", "se-alternatives-title", token.title));
      const largest = Math.max(...token.alternatives.map((a) => a.probability), 1e-12);
      for (const { text, probability, chosen, shown } of token.alternatives) {
        const row = make("div", `se-alternative${chosen ? " se-taken" : ""}`);
        row.style.height = `${ROW}px`;
        const track = make("span", "se-track");
        const bar = make("span", "se-bar");
        bar.style.width = `${Math.max(0.5, (100 * probability) / largest)}%`;
        track.append(bar);
        row.append(make("span", "se-alternative-text", text), track, make("span", "se-alternative-value", shown));
        detail.append(row);
      }
    }

    el.append(strip, detail);
    choose(Math.max(0, tokens.findIndex((token) => token.decides)));
  }

  model.on("change:tokens", draw);
  model.on("change:message", draw);
  draw();
}

export default { render };

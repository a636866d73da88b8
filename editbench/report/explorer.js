for (const box of document.querySelectorAll(".explorer")) {
  const data = JSON.parse(box.querySelector("script").textContent);
  const [attribute, start, mode] = ["attribute", "start", "mode"].map(name => box.querySelector(`[data-role=${name}]`));
  const slider = box.querySelector("input"), told = box.querySelector("output"), cards = box.querySelector(".cards");
  const sigma = value => value === null ? "not finite" : `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(1)} σ`;
  const make = (tag, name, text) => {
    const node = document.createElement(tag);
    node.className = name || "";
    node.textContent = text || "";
    return node;
  };
  const sign = method => {
    const dot = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    dot.setAttribute("class", "dot");
    dot.setAttribute("viewBox", "-5 -5 10 10");
    path.setAttribute("d", method.outline);
    path.setAttribute("fill", method.colour);
    dot.append(path);
    return dot;
  };
  const title = (name, method) => {
    const node = make("b");
    node.append(...(method ? [sign(method)] : []), make("i", "", name.replaceAll("_", "_\u200b")));  // may break there
    return node;
  };
  const fill = (select, names) => {
    select.replaceChildren(...names.map((name, i) => new Option(name, i)));
    select.selectedIndex = 0;
  };
  const current = () => data.attributes[attribute.selectedIndex].starts[start.selectedIndex];
  const walks = () => current().methods.filter(one => one.steps);
  const nearest = (effects, wanted) => effects.reduce((best, value, i) =>
    value !== null && (best < 0 || Math.abs(value - wanted) < Math.abs(effects[best] - wanted)) ? i : best, -1);
  const frame = walk => {
    if (mode.value === "crossing") {
      const first = walk.crossed.indexOf(true);
      return first < 0 ? walk.steps.length - 1 : first;
    }
    if (mode.value === "effect") return Math.max(0, nearest(walk.effects, slider.value / 10));
    return Math.round((walk.steps.length - 1) * slider.value / Math.max(1, slider.max));
  };
  const card = (name, method, sprite, walk, i, verdict) => {
    const shown = current(), figure = make("figure", "card"), on = walk.crossed[i];
    const picture = make("span", `pic ${sprite}${on ? " on" : ""}`);
    const at = (place, count) => 100 * place / Math.max(1, count - 1);
    picture.style.backgroundPosition = `${at(i, shown.columns)}% ${at(walk.row, shown.rows)}%`;
    picture.setAttribute("role", "img");
    picture.setAttribute("aria-label", `${name}, ${verdict}`);
    figure.append(picture, title(name, method));
    return figure;
  };
  const draw = () => {
    const shown = current(), found = [];
    const first = walks()[0];
    if (first) {
      const source = card("source", null, shown.sprite, { ...first, crossed: [false] }, 0, "before the edit");
      source.append(make("span", "", shown.title));
      found.push(source);
    }
    shown.methods.forEach((walk, m) => {
      const method = data.methods[m], name = method.name;
      if (!walk.steps) {
        const figure = make("figure", "card");
        figure.append(make("div", "none", walk.why), title(name, method));
        found.push(figure);
        return;
      }
      const i = frame(walk), before = walk.crossed.slice(0, i).some(Boolean);
      const verdict = walk.crossed[i] ? "judge: crossed" : before ? "crossed, then back" : "not crossed";
      const figure = card(name, method, shown.sprite, walk, i, `${sigma(walk.effects[i])}, ${verdict}`);
      figure.append(make("span", "", `${sigma(walk.effects[i])} · step ${walk.steps[i]}`),
                    make("span", walk.crossed[i] ? "on" : "", verdict));
      found.push(figure);
    });
    told.value = mode.value === "effect" ? sigma(slider.value / 10)
      : `${Math.round(100 * slider.value / Math.max(1, slider.max))} % of walk`;
    slider.setAttribute("aria-valuetext", told.value);
    cards.replaceChildren(...found);
  };
  const reach = () => {
    slider.parentElement.hidden = mode.value === "crossing";
    const effects = walks().flatMap(walk => walk.effects).filter(value => value !== null);
    const share = slider.value / Math.max(1, slider.max);
    slider.max = mode.value === "effect" ? Math.max(1, Math.ceil(10 * Math.max(0, ...effects)))
      : Math.max(1, ...walks().map(walk => walk.steps.length - 1));
    slider.value = Math.round(share * slider.max);
    draw();
  };
  const choose = () => {
    const chosen = data.attributes[attribute.selectedIndex];
    fill(start, chosen.starts.map(one => one.title));
    start.selectedIndex = chosen.first;
    reach();
  };
  fill(attribute, data.attributes.map(one => one.name));
  attribute.addEventListener("change", choose);
  start.addEventListener("change", reach);
  mode.addEventListener("change", reach);
  slider.addEventListener("input", draw);
  choose();
  slider.value = slider.max;
  draw();
  // A cell of the table of accuracies leads to the pictures of its attribute.
  for (const link of document.querySelectorAll(`a[href="#${box.id}"]`)) link.addEventListener("click", () => {
    attribute.selectedIndex = Math.max(0, data.attributes.findIndex(one => one.name === link.dataset.attribute));
    choose();
  });
}

for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  heads.forEach((head, column) => head.firstElementChild.addEventListener("click", () => {
    const value = row => row.cells[column].dataset.v;
    const text = head.classList.contains("t");
    const before = head.getAttribute("aria-sort");
    // Numbers start at the largest, text at A; a second click turns it round. Missing values stay last.
    const up = before ? before === "descending" : text;
    heads.forEach(other => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const compare = (a, b) => text ? a.localeCompare(b) : a - b;
    body.append(...[...body.rows].sort((p, q) => {
      const a = value(p), b = value(q);
      if (a === "" || b === "") return (a === "") - (b === "");
      return up ? compare(a, b) : compare(b, a);
    }));
    for (const row of body.rows) row.classList.remove("first");
  }));
}
for (const list of document.querySelectorAll("[role=tablist]")) {
  const tabs = [...list.children];
  const show = chosen => tabs.forEach(tab => {
    tab.setAttribute("aria-selected", tab === chosen);
    tab.tabIndex = tab === chosen ? 0 : -1;
    document.getElementById(tab.getAttribute("aria-controls")).hidden = tab !== chosen;
  });
  tabs.forEach((tab, i) => {
    tab.addEventListener("click", () => show(tab));
    tab.addEventListener("keydown", event => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (step) { const next = tabs[(i + step + tabs.length) % tabs.length]; show(next); next.focus(); }
    });
  });
  show(tabs[0]);
}
for (const box of document.querySelectorAll(".filtered")) {
  const choices = [...box.querySelectorAll("select")];
  choices.forEach(choice => choice.addEventListener("change", () => {
    for (const row of box.querySelectorAll("tbody tr"))
      row.hidden = choices.some(c => c.value && row.dataset[c.dataset.key] !== c.value);
  }));
}
// Columns behind the names of a table may be hidden; without this script all of them are shown.
for (const table of document.querySelectorAll("table[data-columns]")) {
  const box = document.createElement("details"), title = document.createElement("summary");
  box.className = "columns note";
  title.textContent = "Columns";
  box.append(title);
  for (const head of [...table.tHead.rows[0].cells].slice(table.dataset.columns)) {
    const label = document.createElement("label"), check = document.createElement("input");
    check.type = "checkbox";
    check.autocomplete = "off";  // a page that is loaded again shows all
    check.checked = true;
    check.addEventListener("change", () => {
      for (const row of table.rows) row.cells[head.cellIndex].hidden = !check.checked;
    });
    label.append(check, head.textContent.trim());
    box.append(label);
  }
  table.parentElement.before(box);
}

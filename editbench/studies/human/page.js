const data = JSON.parse(document.getElementById("data").textContent);
const get = id => document.getElementById(id);
const place = `editbench-human/${data.study}/${data.set}`;
const parts = [...document.querySelectorAll("fieldset")];
const fresh = () => ({ rater: "", started: "", at: 0, answers: {}, seconds: {} });
let state = fresh(), active = 0, shown = 0;

const load = () => {
  try {
    const kept = JSON.parse(localStorage.getItem(place));
    if (kept && kept.answers && kept.seconds) state = { ...fresh(), ...kept };
    localStorage.setItem(place, JSON.stringify(state));
  } catch { get("unsaved").hidden = false; }
};
const keep = () => {
  try { localStorage.setItem(place, JSON.stringify(state)); } catch { get("unsaved").hidden = false; }
};
const answers = question => state.answers[question.id] || {};
const complete = question => data.asked.every(name => answers(question)[name]);
const current = () => data.questions[state.at];
const open = () => data.asked.findIndex(name => !answers(current())[name]);
const words = (name, question) => {  // every second part is bold
  if (name === "change") return ["Which changes ", question.attribute, " better towards ", `‘${question.target}’`, "?"];
  if (data.asked.length === 1) return ["Which better keeps the original?"];
  return ["Which better keeps the original, apart from ", question.attribute, "?"];
};

const draw = () => {
  const begun = Boolean(state.rater), done = begun && state.at >= data.questions.length;
  get("begin").hidden = begun;
  get("ask").hidden = !begun || done;
  get("done").hidden = !done;
  const count = data.questions.filter(complete).length, missing = data.questions.length - count;
  if (done) {
    get("told").textContent = missing ? `${missing} of ${data.questions.length} screens are not fully answered yet.`
      : `All ${data.questions.length} screens are answered.`;
  }
  if (!begun || done) return;
  const question = current();
  for (const side of ["left", "original", "right"]) get(side).src = question[side];
  get("place").value = `${state.at + 1} of ${data.questions.length}`;
  get("bar").value = count;
  get("who").textContent = `rater ${state.rater}`;
  get("back").disabled = !state.at && !active;
  get("next").disabled = !complete(question);
  parts.forEach((part, i) => {
    part.classList.toggle("active", i === active);
    part.firstElementChild.replaceChildren(...words(part.dataset.asked, question).map((text, k) => {
      const node = document.createElement(k % 2 ? "b" : "span");
      node.textContent = text;
      return node;
    }));
    for (const button of part.querySelectorAll("button"))
      button.setAttribute("aria-pressed", answers(question)[part.dataset.asked] === button.dataset.answer);
  });
};
const go = (at, last = false) => {
  state.at = Math.max(0, Math.min(at, data.questions.length));
  if (state.at < data.questions.length) active = last ? parts.length - 1 : Math.max(0, open());
  shown = performance.now();
  keep();
  draw();
};
const answer = (i, value) => {
  const question = current(), before = complete(question);
  state.answers[question.id] = { ...answers(question), [data.asked[i]]: value };
  if (!before && complete(question))
    state.seconds[question.id] = Math.round((performance.now() - shown) / 100) / 10;
  if (i + 1 < parts.length) { active = i + 1; keep(); draw(); }
  else if (complete(question)) go(state.at + 1);
  else { active = open(); keep(); draw(); }
};
const back = () => {
  if (state.at < data.questions.length && active) { active -= 1; draw(); }
  else if (state.at) go(state.at - 1, true);
};
const save = () => {
  const { rater, started } = state;
  const told = { format: data.format, version: data.version, study: data.study, set: data.set, rater, started,
    saved: new Date().toISOString(), asked: data.asked, answers: state.answers, seconds: state.seconds };
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([JSON.stringify(told, null, 1)], { type: "application/json" }));
  link.download = `responses-${data.study}-${data.set}-${rater}.json`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
};

parts.forEach((part, i) => part.addEventListener("click", event => {
  const button = event.target.closest("button");
  if (button) answer(i, button.dataset.answer);
}));
const KEYS = { ArrowLeft: "left", 1: "left", ArrowDown: "none", 2: "none", ArrowRight: "right", 3: "right" };
document.addEventListener("keydown", event => {
  if (event.repeat || event.ctrlKey || event.metaKey || event.altKey || !state.rater) return;
  const value = KEYS[event.key], returns = ["ArrowUp", "Backspace"].includes(event.key);
  if (!value && !returns) return;
  if (value && state.at >= data.questions.length) return;
  event.preventDefault();
  if (returns) back(); else answer(active, value);
});
get("enter").addEventListener("submit", event => {
  event.preventDefault();
  state.rater = get("rater").value;
  state.started = new Date().toISOString();
  document.activeElement.blur();
  go(0);
});
get("back").addEventListener("click", back);
get("return").addEventListener("click", back);
get("next").addEventListener("click", () => go(state.at + 1));
for (const button of document.querySelectorAll(".save")) button.addEventListener("click", save);
get("clear").addEventListener("click", () => {
  if (!confirm("Have you saved the answers as a file? They are removed from this browser.")) return;
  state = fresh();
  active = 0;
  get("rater").value = "";
  keep();
  draw();
});
addEventListener("storage", event => { if (event.key === place) { load(); go(state.at); } });  // a second tab
load();
go(state.at);

// Checks a job file while it is written, by the same judge that takes it in the end.

const form = document.querySelector("form[data-check]");
const field = form?.querySelector("textarea");
const list = form?.querySelector("#problems");
const state = form?.querySelector("[data-state]");
const written = field?.value;
let soon = 0;
let asked = null;

function goTo(line, column) {
  const lines = field.value.split("\n");
  const before = lines.slice(0, line - 1).reduce((length, one) => length + one.length + 1, 0);
  const start = before + [...(lines[line - 1] ?? "")].slice(0, column - 1).join("").length;
  const end = before + (lines[line - 1]?.length ?? 0);
  field.focus();
  field.setSelectionRange(start, Math.max(start, end));
  field.scrollTop = (line - 8) * field.scrollHeight / Math.max(1, lines.length);
}

function item(problem) {
  const made = document.createElement("li");
  const place = document.createElement("a");
  place.href = "#text";
  place.dataset.line = problem.line;
  place.dataset.column = problem.column;
  place.textContent = `${problem.line}:${problem.column}`;
  const path = document.createElement("b");
  path.textContent = problem.path;
  made.append(place, " ", path, ` ${problem.message}`);
  if (problem.help) {
    const help = document.createElement("small");
    help.textContent = problem.help;
    made.append(" ", help);
  }
  const line = field.value.split("\n")[problem.line - 1]?.trim().slice(0, 120);
  if (line) {
    const code = document.createElement("code");
    code.textContent = line;
    made.append(code);
  }
  return made;
}

async function check() {
  asked?.abort();
  asked = new AbortController();
  try {
    const answer = await fetch(form.dataset.check, { method: "POST", body: new URLSearchParams(new FormData(form)), signal: asked.signal });
    if (!answer.ok) { state.textContent = "it cannot be checked now"; return; }
    const problems = await answer.json();
    list.replaceChildren(...problems.map(item));
    field.toggleAttribute("aria-invalid", problems.length > 0);
    const count = problems.length;
    state.textContent = count === 0 ? "no problems" : `${count} problem${count === 1 ? "" : "s"}`;
  } catch (error) {
    if (error.name !== "AbortError") state.textContent = "it cannot be checked now";
  }
}

field?.addEventListener("input", () => {
  clearTimeout(soon);
  soon = setTimeout(check, 250);
});
list?.addEventListener("click", (event) => {
  const place = event.target.closest("a[data-line]");
  if (!place) return;
  event.preventDefault();
  goTo(Number(place.dataset.line), Number(place.dataset.column));
});
addEventListener("keydown", (event) => {
  if (form && event.key === "s" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    form.requestSubmit();
  }
});
let sent = false;
form?.addEventListener("submit", () => { sent = true; });
// What was written is not lost by a slip.
addEventListener("beforeunload", (event) => {
  if (field && !sent && field.value !== written) event.preventDefault();
});

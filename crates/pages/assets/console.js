// The whole console of an attempt, however long: only what can be seen is in the page. Lines come from
// the server as they are scrolled to; how many there are is told live; searching is done there.

const HEIGHT = 20;
const BATCH = 200;
const BATCHES = 60;
const STALE = -1;
// Browsers draw nothing this tall; beyond it the scroll bar stands for the console in proportion.
const TALLEST = 8000000;

const viewer = document.querySelector("[data-console]");
if (viewer) start(viewer);

function start(root) {
  const base = root.dataset.console;
  const query = root.dataset.query;
  const pane = root.querySelector("[data-pane]");
  const spacer = root.querySelector("[data-spacer]");
  const list = root.querySelector("ol");
  const status = root.querySelector("[data-status]");
  const field = root.querySelector("input[type=search]");
  const follow = root.querySelector("button[data-follow]");

  // Lines are counted from 0 here, and from 1 for people.
  let total = Number(root.dataset.total);
  let complete = root.dataset.complete === "true";
  let top = 0;
  let written = 0;
  let marked = -1;
  let following = false;
  let drawn = "";
  const batches = new Map();
  const wanted = new Map();

  const rows = () => Math.max(1, Math.floor(pane.clientHeight / HEIGHT));
  const last = () => Math.max(0, total - rows());
  const tall = () => Math.min(total * HEIGHT, TALLEST);
  const scaled = () => total * HEIGHT > TALLEST;

  async function batch(number) {
    if (wanted.has(number)) return;
    const known = batches.get(number);
    if (known && known.total !== STALE && (known.length === BATCH || known.total === total)) return;
    const asked = new AbortController();
    wanted.set(number, asked);
    try {
      const answer = await fetch(`${base}/part?${query}&line=${number * BATCH + 1}&count=${BATCH}`, { signal: asked.signal });
      if (!answer.ok) throw new Error(`${answer.status}`);
      const part = await answer.json();
      const lines = part.lines;
      lines.total = part.total;
      batches.delete(number);
      batches.set(number, lines);
      if (batches.size > BATCHES) batches.delete(batches.keys().next().value);
      grow(part.total, part.complete);
    } catch (error) {
      if (error.name !== "AbortError") setTimeout(draw, 1000);
    } finally {
      wanted.delete(number);
    }
    draw();
  }

  function grow(lines, ended) {
    complete = complete || ended;
    if (lines <= total && batches.size > 0) { tell(); return; }
    total = Math.max(total, lines);
    if (following) top = last();
    place();
    tell();
  }

  // Puts the scroll bar where `top` is.
  function place() {
    spacer.style.setProperty("--lines", `${tall()}px`);
    const room = tall() - pane.clientHeight;
    const share = last() === 0 ? 0 : top / last();
    written = Math.round(scaled() ? share * room : top * HEIGHT);
    if (Math.abs(pane.scrollTop - written) > 1) pane.scrollTop = written;
    written = pane.scrollTop;
  }

  function scrolled() {
    const moved = pane.scrollTop - written;
    if (Math.abs(moved) < 1) { draw(); return; }
    written = pane.scrollTop;
    // A wheel moves by lines; whoever drags the bar moves by the share of the whole.
    if (!scaled()) top = pane.scrollTop / HEIGHT;
    else if (Math.abs(moved) < 3 * pane.clientHeight) top += moved / HEIGHT;
    else top = pane.scrollTop / (tall() - pane.clientHeight) * last();
    top = Math.min(Math.max(0, top), last());
    if (following && moved < 0) setFollow(false);
    draw();
  }

  function draw() {
    const first = Math.max(0, Math.floor(top) - 20);
    const end = Math.min(total, Math.floor(top) + rows() + 20);
    const items = [];
    let missing = false;
    for (let line = first; line < end; line++) {
      const number = Math.floor(line / BATCH);
      const html = batches.get(number)?.[line % BATCH];
      if (html === undefined || batches.get(number).total === STALE) { missing = true; batch(number); }
      items.push(`<li class="${line === marked ? "marked" : ""}"><a href="#L${line + 1}">${line + 1}</a><span>${html ?? "…"}</span></li>`);
    }
    const key = `${first} ${end} ${marked} ${missing} ${total}`;
    if (missing || key !== drawn) {
      drawn = missing ? "" : key;
      // Made by the server from escaped text; the policy of the page runs nothing in it anyway.
      list.innerHTML = items.join("");
    }
    const offset = pane.scrollTop - (top - first) * HEIGHT;
    list.style.setProperty("--top", `${offset}px`);
  }

  function go(line) {
    top = Math.min(Math.max(0, line - Math.floor(rows() / 3)), last());
    place();
    draw();
  }

  function mark(line) {
    marked = line;
    history.replaceState(null, "", `#L${line + 1}`);
    go(line);
  }

  function setFollow(on) {
    following = on;
    follow.setAttribute("aria-pressed", String(on));
    if (on) { top = last(); place(); draw(); }
  }

  function tell(words) {
    const count = total.toLocaleString();
    status.textContent = words ?? `${count} ${total === 1 ? "line" : "lines"}${complete ? "" : ", going on"}`;
    follow.hidden = complete;
  }

  // Searching: what was found stays until another text is looked for.
  let hits = { text: "", lines: [], next: null };

  async function search(text, more = "") {
    const address = `/api/v1${base}/search?${query}&q=${encodeURIComponent(text)}&ignore_case=true&count=2000${more}`;
    const answer = await fetch(address);
    const found = await answer.json();
    if (!answer.ok) throw new Error(found.detail ?? `${answer.status}`);
    return found;
  }

  async function find(step) {
    const text = field.value;
    if (text === "") { marked = -1; draw(); tell(); return; }
    try {
      if (text !== hits.text) {
        tell("searching…");
        const found = await search(text);
        hits = { text, lines: found.lines.map((hit) => hit.line - 1), next: found.next ?? null };
      }
      if (hits.lines.length === 0) { tell(`“${text}” is nowhere`); return; }
      const from = marked < 0 ? Math.floor(top) - 1 : marked;
      let at = step > 0 ? hits.lines.findIndex((line) => line > from) : hits.lines.findLastIndex((line) => line < from);
      if (at < 0) at = step > 0 ? 0 : hits.lines.length - 1;
      setFollow(false);
      mark(hits.lines[at]);
      tell(`${(at + 1).toLocaleString()} of ${hits.lines.length.toLocaleString()}${hits.next === null ? "" : "+"}`);
    } catch (error) {
      tell(error.message);
    }
  }

  async function firstError() {
    const pattern = String.raw`\b(error|fatal|panic(ked)?|exception|failed|failure)\b`;
    const found = await search(pattern, "&regex=true").catch(() => ({ lines: [] }));
    if (found.lines.length === 0) { tell("no line looks like an error"); return; }
    setFollow(false);
    mark(found.lines[0].line - 1);
  }

  field.addEventListener("keydown", (event) => {
    if (event.key === "Enter") { event.preventDefault(); find(event.shiftKey ? -1 : 1); }
    if (event.key === "Escape") field.blur();
  });
  field.form?.addEventListener("submit", (event) => event.preventDefault());
  root.querySelector("button[data-next]").addEventListener("click", () => find(1));
  root.querySelector("button[data-previous]").addEventListener("click", () => find(-1));
  root.querySelector("button[data-error]").addEventListener("click", firstError);
  follow.addEventListener("click", () => setFollow(!following));
  pane.addEventListener("scroll", scrolled, { passive: true });
  list.addEventListener("click", (event) => {
    const link = event.target.closest("a[href^='#L']");
    if (!link) return;
    event.preventDefault();
    mark(Number(link.hash.slice(2)) - 1);
  });
  addEventListener("resize", () => { place(); draw(); });
  addEventListener("keydown", (event) => {
    if (event.target.closest?.("input, textarea, select") || event.ctrlKey || event.metaKey || event.altKey) return;
    const keys = {
      "/": () => field.focus(), n: () => find(1), N: () => find(-1), e: firstError,
      g: () => { setFollow(false); go(0); }, G: () => go(total), f: () => setFollow(!following),
    };
    if (!(event.key in keys)) return;
    event.preventDefault();
    keys[event.key]();
  });

  // How many lines there are, from whichever frontend answers. A source that broke is opened again by
  // the browser; what it tells is a state, so nothing is missed and nothing shown twice.
  function listen() {
    const source = new EventSource(`${base}/growth?${query}`);
    source.addEventListener("growth", (event) => {
      const { total: lines, complete: ended } = JSON.parse(event.data);
      // The last line had no end, and may have got one.
      const open = batches.get(Math.floor(Math.max(0, total - 1) / BATCH));
      if (open) { open.total = STALE; drawn = ""; }
      grow(lines, ended);
      draw();
      if (ended) source.close();
    });
    addEventListener("pagehide", () => source.close());
  }

  root.hidden = false;
  for (const plain of document.querySelectorAll("[data-plain]")) plain.remove();
  const asked = /^#L(\d+)$/.exec(location.hash);
  tell();
  if (asked) mark(Number(asked[1]) - 1);
  else if (complete) { place(); draw(); }
  else setFollow(true);
  if (!complete) listen();
  addEventListener("hashchange", () => {
    const line = /^#L(\d+)$/.exec(location.hash);
    if (line) mark(Number(line[1]) - 1);
  });
}

// The whole console of an attempt, however long: only what can be seen is in the page. Lines come from
// the server as they are scrolled to; how many there are is told live; searching is done there.

const HEIGHT = 20;
const BATCH = 200;
const BATCHES = 60;
const STALE = -1;
// Browsers draw nothing this tall; beyond it the scroll bar stands for the console in proportion.
const TALLEST = 8000000;
// What a line says of itself, and is not shown of it: what begins a part, and how bad a message is.
const MARK = /^((?:<span[^>]*>)*)(?:::group::|::endgroup::|::(error|warning|notice|debug)\b[^:<]*::)/;

const viewers = [...document.querySelectorAll("[data-console]")];
viewers.forEach(start);

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
  // The parts that the console tells of by itself; `top` is a row, and a row is a line that is not folded.
  let found = [];
  let seen = 0;
  let folded = [];
  let heads = new Map();
  let gaps = hidden([]);
  let times = null;

  const rows = () => Math.max(1, Math.floor(pane.clientHeight / HEIGHT));
  const shown = () => total - gaps.count;
  const last = () => Math.max(0, shown() - rows());
  const tall = () => Math.min(shown() * HEIGHT, TALLEST);
  const scaled = () => shown() * HEIGHT > TALLEST;

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
    const end = Math.min(shown(), Math.floor(top) + rows() + 20);
    const items = [];
    let missing = false;
    for (let row = first; row < end; row++) {
      const line = gaps.line(row);
      const number = Math.floor(line / BATCH);
      const html = batches.get(number)?.[line % BATCH];
      if (html === undefined || batches.get(number).total === STALE) { missing = true; batch(number); }
      items.push(item(line, html ?? "…"));
    }
    const key = `${first} ${end} ${marked} ${missing} ${total} ${gaps.count} ${times !== null}`;
    if (missing || key !== drawn) {
      drawn = missing ? "" : key;
      // Made by the server from escaped text; the policy of the page runs nothing in it anyway.
      list.innerHTML = items.join("");
    }
    const offset = pane.scrollTop - (top - first) * HEIGHT;
    list.style.setProperty("--top", `${offset}px`);
  }

  // A line, with what it says of itself: a heading under which others are folded, an error, a warning.
  function item(line, html) {
    const part = heads.get(line);
    let kind = line === marked ? "marked" : "";
    const text = html.replace(MARK, (_, before, level) => {
      if (level) kind += ` ${level}`;
      return before;
    });
    const at = times ? `<time>${timeOf(line)}</time>` : "";
    const fold = part
      ? `<button type="button" data-fold="${line}" aria-expanded="${part.shown}" aria-label="Fold">${part.shown ? "▾" : "▸"}</button>`
      : "";
    return `<li class="${kind}${part ? " part" : ""}"><a href="#L${line + 1}">${line + 1}</a>${at}<span>${fold}${text}</span></li>`;
  }

  function timeOf(line) {
    let low = 0, high = times.length;
    while (low < high) { const middle = (low + high) >> 1; if (times[middle][0] <= line + 1) low = middle + 1; else high = middle; }
    return low === 0 ? "" : times[low - 1][2];
  }

  async function toggleTimes() {
    if (times) { times = null; draw(); return; }
    const answer = await fetch(`${base}/times?${query}`).catch(() => null);
    if (!answer?.ok) { tell("the times cannot be read now"); return; }
    const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit" });
    times = (await answer.json()).map(([line, at]) => [line, at, clock.format(new Date(at))]);
    draw();
  }

  // Asks for the lines that begin or end a part, from the last one that is known.
  async function findParts() {
    if (seen >= total) return;
    const from = seen + 1;
    seen = total;
    const more = `&regex=true&line=${from}`;
    const answer = await search(MARKERS, more).catch(() => null);
    if (!answer) { seen = from - 1; return; }
    const fresh = answer.lines.map((hit) => ({ line: hit.line - 1, text: hit.before + hit.found + hit.after }));
    if (answer.next) seen = answer.next - 1;
    if (fresh.length === 0) return;
    found = found.concat(fresh);
    const before = new Map(folded.map((part) => [part.first, part.shown]));
    folded = parts(found, total);
    for (const part of folded) part.shown = before.get(part.first) ?? (part.shown || !complete || (part.first < marked && marked <= part.last));
    fold();
    if (answer.next) findParts();
  }

  function fold() {
    const line = gaps.line(Math.floor(top));
    gaps = hidden(folded);
    heads = new Map(folded.map((part) => [part.first, part]));
    top = Math.min(gaps.row(line), last());
    drawn = "";
    place();
    draw();
  }

  function toggle(line) {
    const part = heads.get(line);
    if (part) { part.shown = !part.shown; fold(); }
  }

  function toggleAll() {
    const some = folded.some((part) => part.shown);
    for (const part of folded) part.shown = !some;
    fold();
  }

  // Unfolds whatever a line is in.
  function reveal(line) {
    const around = folded.filter((part) => !part.shown && part.first < line && line <= part.last);
    for (const part of around) part.shown = true;
    if (around.length > 0) fold();
  }

  function go(line) {
    reveal(line);
    top = Math.min(Math.max(0, gaps.row(line) - Math.floor(rows() / 3)), last());
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
      const from = marked < 0 ? gaps.line(Math.floor(top)) - 1 : marked;
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
    const button = event.target.closest("button[data-fold]");
    if (button) { toggle(Number(button.dataset.fold)); return; }
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
      z: toggleAll, t: toggleTimes,
    };
    // Of two beside each other, the keys are for the one that has the focus, or for the first.
    const own = viewers.find((one) => one.contains(document.activeElement)) ?? viewers[0];
    if (own !== root || !(event.key in keys)) return;
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
      findParts();
      if (ended) source.close();
    });
    addEventListener("pagehide", () => source.close());
  }

  root.querySelector("button[data-times]").addEventListener("click", toggleTimes);
  root.querySelector("button[data-folds]").addEventListener("click", toggleAll);
  root.hidden = false;
  for (const plain of document.querySelectorAll("[data-plain]")) plain.remove();
  const asked = /^#L(\d+)$/.exec(location.hash);
  tell();
  if (asked) mark(Number(asked[1]) - 1);
  else if (complete) { place(); draw(); }
  else setFollow(true);
  findParts();
  if (!complete) listen();
  addEventListener("hashchange", () => {
    const line = /^#L(\d+)$/.exec(location.hash);
    if (line) mark(Number(line[1]) - 1);
  });
}

// What a console says of its own parts: which lines begin one, where it ends, and which are hidden.
//
// The beginning of the viewer's script, apart from it to be read by itself. A row is what is seen, a line what is there: of a part that is folded, only its first line is a row.

// As the search of the server takes it: groups of GitHub, sections of GitLab, headings of Buildkite.
const MARKERS = String.raw`^(::group::|::endgroup::|section_(start|end):\d+:|(---|\+\+\+|~~~) )`;
const MOST_PARTS = 20000;

// From the lines that were found, `[{ line, text }]` in their order, to the parts of the console.
function parts(found, total) {
  const made = [];
  const open = [];
  const begin = (line, shown) => { if (made.length < MOST_PARTS) { const part = { first: line, last: -1, shown }; made.push(part); return part; } };
  const isDiff = new Set();
  for (let at = 1; at < found.length; at++) {
    // The two lines that begin a file of a difference are no headings.
    if (found[at].text.startsWith("+++ ") && found[at - 1].text.startsWith("--- ") && found[at].line === found[at - 1].line + 1) {
      isDiff.add(at); isDiff.add(at - 1);
    }
  }
  let heading = null;
  found.forEach(({ line, text }, at) => {
    if (isDiff.has(at)) return;
    if (text.startsWith("::group::")) { const part = begin(line, false); if (part) open.push(part); }
    else if (text.startsWith("section_start:")) { const part = begin(line, !/\[collapsed=true\]/.test(text)); if (part) open.push(part); }
    else if (text.startsWith("::endgroup::") || text.startsWith("section_end:")) { const part = open.pop(); if (part) part.last = line; }
    else {
      if (heading) heading.last = line - 1;
      heading = begin(line, text.startsWith("+++ ")) ?? null;
    }
  });
  // What has no end yet is not folded by itself.
  for (const part of open) { part.last = total - 1; part.shown = true; }
  if (heading) heading.last = total - 1;
  return made.filter((part) => part.last > part.first);
}

// The lines that are not shown, and the way between lines and rows.
function hidden(all) {
  const spans = [];
  for (const part of all) {
    if (part.shown) continue;
    const before = spans.at(-1);
    if (before && part.first < before.to) { before.to = Math.max(before.to, part.last + 1); continue; }
    spans.push({ from: part.first + 1, to: part.last + 1, before: 0 });
  }
  let sum = 0;
  for (const span of spans) { span.before = sum; sum += span.to - span.from; }
  const place = (fits) => {
    let low = 0, high = spans.length;
    while (low < high) { const middle = (low + high) >> 1; if (fits(spans[middle])) low = middle + 1; else high = middle; }
    return low;
  };
  return {
    count: sum,
    // A row to its line.
    line(row) {
      const span = spans[place((one) => one.from - one.before <= row) - 1];
      return span ? row + span.before + (span.to - span.from) : row;
    },
    // A line to its row; of a hidden one, to that of the line under which it is.
    row(line) {
      const span = spans[place((one) => one.from <= line) - 1];
      if (!span) return line;
      return line < span.to ? span.from - span.before - 1 : line - span.before - (span.to - span.from);
    },
  };
}

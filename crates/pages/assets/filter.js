// Filters a list while one types: asks for the same page that the form would ask for, and takes the
// list out of it. The last word counts, whichever answer comes first.

const field = document.querySelector("input[data-filter]");
let asked = null;
let soon = 0;

async function filter() {
  asked?.abort();
  asked = new AbortController();
  const address = new URL(location.pathname, location.href);
  if (field.value !== "") address.searchParams.set(field.name, field.value);
  try {
    const answer = await fetch(address, { signal: asked.signal, headers: { accept: "text/html" } });
    if (!answer.ok) return;
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const [old, fresh] = [document, page].map((one) => one.querySelector(field.dataset.filter));
    if (!old || !fresh) return;
    old.replaceWith(document.adoptNode(fresh));
    history.replaceState(null, "", address);
  } catch (error) {
    if (error.name !== "AbortError") throw error;
  }
}

field?.addEventListener("input", () => {
  clearTimeout(soon);
  soon = setTimeout(filter, 120);
});

// The slash is the way to the field, as on many pages.
addEventListener("keydown", (event) => {
  const typing = event.target instanceof Element && event.target.closest("input, textarea, select");
  if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && field) {
    event.preventDefault();
    field.select();
    field.focus();
  }
});

// Keeps an open page as it would be if it were loaded again: takes in what the server tells, node by
// node, so that what the reader does with the page (what is typed, chosen, unfolded) stays.

const mark = document.querySelector("meta[name=csrf]")?.content ?? "";
// A page may name another that shows less of it, or none if it is to stay as it is.
const other = document.querySelector("meta[name=live]")?.content;
const address = () => other ?? location.pathname + location.search;
let source = null;
let followed = "";
let pulse = 0;

function alike(one, other) {
  return one.nodeType === other.nodeType && one.nodeName === other.nodeName
    && (one.id ?? "") === (other.id ?? "") && one.dataset?.key === other.dataset?.key;
}

const named = (node) => node.nodeType === Node.ELEMENT_NODE && (node.id !== "" || node.dataset?.key !== undefined);

// What belongs to the reader, or to another script.
function kept(node, name) {
  if (node.nodeName === "DETAILS") return name === "open";
  if (node.nodeName === "INPUT") return name === "value" && (node.name === "csrf" || node.name === "request");
  return false;
}

function attributes(old, fresh) {
  for (const { name, value } of fresh.attributes) {
    if (!kept(old, name) && old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  for (const { name } of [...old.attributes]) {
    if (!kept(old, name) && !fresh.hasAttribute(name)) old.removeAttribute(name);
  }
}

function children(old, fresh) {
  let place = old.firstChild;
  for (const next of [...fresh.childNodes]) {
    let same = place;
    while (same && !alike(same, next)) same = named(next) ? same.nextSibling : null;
    if (same) {
      if (same === place) place = place.nextSibling;
      else old.insertBefore(same, place);
      morph(same, next);
    } else {
      old.insertBefore(document.adoptNode(next), place);
    }
  }
  while (place) {
    const gone = place;
    place = place.nextSibling;
    gone.remove();
  }
}

function morph(old, fresh) {
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.nodeValue !== fresh.nodeValue) old.nodeValue = fresh.nodeValue;
    return;
  }
  if (old.dataset?.keep !== undefined) return;
  if (old.nodeName === "TIME" && old.dateTime === fresh.dateTime) return;
  attributes(old, fresh);
  children(old, fresh);
}

function show({ title, icon, main }) {
  const page = new DOMParser().parseFromString(`<main${main}</main>`, "text/html");
  const fresh = page.querySelector("main");
  if (!fresh) return;
  morph(document.querySelector("main"), fresh);
  for (const field of document.querySelectorAll("main input[name=csrf]")) field.value = mark;
  const words = new DOMParser().parseFromString(title, "text/html").documentElement.textContent;
  if (document.title !== words) document.title = words;
  const link = document.querySelector("link[rel=icon]");
  if (link && link.getAttribute("href") !== icon) link.setAttribute("href", icon);
  dispatchEvent(new Event("distci:page"));
}

function follow() {
  leave();
  followed = address();
  source = new EventSource(`/live?of=${encodeURIComponent(followed)}`);
  source.addEventListener("page", (event) => {
    if (followed === address()) show(JSON.parse(event.data));
    else follow();
  });
  source.addEventListener("gone", leave);
}

function leave() {
  source?.close();
  source = null;
}

// A browser opens few connections to one host: a page that nobody sees holds none, and asks now and
// then how things stand, for its title and its picture.
async function glance() {
  try {
    const answer = await fetch(address(), { headers: { accept: "text/html" } });
    if (!answer.ok || answer.redirected) return;
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const icon = page.querySelector("link[rel=icon]")?.getAttribute("href");
    document.title = page.title;
    if (icon) document.querySelector("link[rel=icon]")?.setAttribute("href", icon);
  } catch {
    // No frontend answers just now.
  }
}

function look() {
  if (other === "") return;
  clearInterval(pulse);
  if (document.hidden) {
    leave();
    pulse = setInterval(glance, 30000);
  } else {
    follow();
  }
}

addEventListener("visibilitychange", look);
addEventListener("pagehide", leave);
addEventListener("pageshow", (event) => { if (event.persisted) look(); });
look();

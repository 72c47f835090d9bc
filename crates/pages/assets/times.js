// Puts every moment into the reader's zone, and keeps "3 min ago" true while the page is open.

const whole = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

// The same words as the server's, in `time.rs`.
function roughly(seconds) {
  if (seconds < 5) return null;
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} d`;
}

function tell(time) {
  const at = new Date(time.dateTime);
  if (Number.isNaN(at.getTime())) return;
  const local = whole.format(at);
  if (!time.classList.contains("ago")) {
    if (time.textContent !== local) {
      time.title = time.textContent;
      time.textContent = local;
    }
    return;
  }
  const seconds = (Date.now() - at.getTime()) / 1000;
  const words = roughly(Math.abs(seconds));
  const text = words === null ? "just now" : seconds < 0 ? `in ${words}` : `${words} ago`;
  if (time.textContent !== text) time.textContent = text;
  if (time.title !== local) time.title = local;
}

const plain = new WeakSet();
function all() {
  for (const time of document.querySelectorAll("time[datetime]")) {
    if (plain.has(time)) continue;
    if (!time.classList.contains("ago")) plain.add(time);
    tell(time);
  }
}

all();
setInterval(all, 10000);
// What other scripts bring into the page later.
let due = false;
new MutationObserver(() => {
  if (due) return;
  due = true;
  requestAnimationFrame(() => { due = false; all(); });
}).observe(document.body, { childList: true, subtree: true });

// A form that is seen again by the browser's way back is a new wish.
addEventListener("pageshow", (event) => {
  if (!event.persisted) return;
  for (const field of document.querySelectorAll("input[name=request]")) {
    const bytes = crypto.getRandomValues(new Uint8Array(16));
    field.value = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  }
});

// Keeps a page up to date: reads it again when the server says that it has changed, and adds what a
// run writes. The server's events are described in events.py.
import "./key.js";

const MAX_LOG_CHARS = 500_000;
const MIN_MILLIS_BETWEEN_READS = 1000;
const shown = new Map();
let source = null;
let followed = "";
let reading = null;
let lastRead = 0;

for (const section of document.querySelectorAll("[data-live]")) shown.set(section.id, section.outerHTML);
document.querySelector("#log[data-follows] pre")?.scrollTo(0, 1e9);
showLatest();
fitFrames();
tick();
setInterval(tick, 1000);

if (document.body.dataset.events) {
  // A browser opens few connections to one server: only the page in front has one.
  document.addEventListener("visibilitychange", () => (document.hidden ? disconnect() : connect()));
  if (!document.hidden) connect();
}

function connect() {
  if (source) return;
  followed = whatIsFollowed();
  const log = document.getElementById("log");
  const query = log && "follows" in log.dataset ? `?log=${log.dataset.follows}` : "";
  source = new EventSource(document.body.dataset.events + query);
  source.addEventListener("state", (event) => {
    if (JSON.parse(event.data) !== document.body.dataset.version) readAgain();
  });
  source.addEventListener("log", (event) => addToLog(JSON.parse(event.data)));
  source.addEventListener("cells", (event) => JSON.parse(event.data).forEach(showCell));
  source.addEventListener("error", () => {
    // The browser connects again by itself, but with the old position in the log.
    disconnect();
    setTimeout(() => document.hidden || connect(), 3000);
  });
}

function disconnect() {
  source?.close();
  source = null;
}

function whatIsFollowed() {
  return [...document.querySelectorAll("[data-follows]")].map((section) => section.id).join(" ");
}

function readAgain() {
  reading ??= (async () => {
    await new Promise((due) => setTimeout(due, Math.max(0, lastRead + MIN_MILLIS_BETWEEN_READS - Date.now())));
    lastRead = Date.now();
    try {
      const response = await fetch(location.href);
      const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
      if (!response.ok) return location.reload();
      fresh.querySelectorAll("[data-live]").forEach(replace);
      document.body.dataset.version = fresh.body.dataset.version;
      document.title = fresh.title;
      showLatest();
      fitFrames();
      tick();
      // A run that is repaired writes again, from the beginning.
      if (source && followed !== whatIsFollowed()) {
        disconnect();
        connect();
      }
    } catch {
      // The connection of the events notices, too, and comes back.
    } finally {
      reading = null;
    }
  })();
}

function replace(section) {
  const old = document.getElementById(section.id);
  // What is followed is newer here than on the page.
  if (!old || ("follows" in old.dataset && "follows" in section.dataset)) return;
  if (shown.get(section.id) === section.outerHTML) return;
  shown.set(section.id, section.outerHTML);
  const focused = old.contains(document.activeElement) ? pathTo(document.activeElement) : null;
  old.replaceWith(document.adoptNode(section));
  if (focused) section.querySelector(focused)?.focus();
}

function pathTo(element) {
  for (const name of ["href", "data-action", "data-copy"]) {
    const value = element.getAttribute(name);
    if (value) return `[${name}="${CSS.escape(value)}"]`;
  }
  return "summary, [tabindex]";
}

function addToLog({ text, offset, is_new: isNew }) {
  const section = document.getElementById("log");
  section.dataset.follows = offset;
  const log = document.getElementById("log-text");
  if (!log) return;
  const isAtEnd = log.scrollTop + log.clientHeight >= log.scrollHeight - 8;
  const all = (isNew ? "" : log.textContent) + text;
  log.textContent = all.slice(-MAX_LOG_CHARS);
  if (isAtEnd) log.scrollTop = log.scrollHeight;
}

function showCell({ index, kind, source: text, output, is_running: isRunning }) {
  const list = document.getElementById("cells");
  if (!list) return;
  document.getElementById("no-cells")?.remove();
  while (list.children.length <= index) list.append(document.createElement("li"));
  const item = list.children[index];
  item.className = `${kind}${isRunning ? " running" : ""}`;
  const parts = [text, output].filter(Boolean).map((content) => {
    const part = document.createElement("pre");
    part.tabIndex = 0;
    part.textContent = content;
    return part;
  });
  const wasAtEnd = item.lastChild ? item.lastChild.scrollTop + item.lastChild.clientHeight >= item.lastChild.scrollHeight - 8 : true;
  item.replaceChildren(...parts);
  if (wasAtEnd && output) item.lastChild.scrollTop = item.lastChild.scrollHeight;
}

/** Give frames the height of what they show. They run no scripts; what they say is not trusted. */
function fitFrames() {
  for (const frame of document.querySelectorAll("iframe:not([data-fitted])")) {
    frame.dataset.fitted = "";
    const fit = () => {
      const height = Number(frame.contentDocument?.body?.scrollHeight);
      if (height > 0) frame.style.height = `${Math.min(height + 40, 20_000)}px`;
    };
    frame.addEventListener("load", () => {
      fit();
      const body = frame.contentDocument?.body;
      if (body) new ResizeObserver(fit).observe(body);
    });
    fit();
  }
}

/** Scroll the matrix to the latest runs, which are at its end. */
function showLatest() {
  document.querySelector(".scroll:has(> .matrix)")?.scrollTo(1e6, 0);
}

function tick() {
  for (const element of document.querySelectorAll(".ticking")) {
    // The clock of the server counts: how far it is from that of the browser is known.
    element.dataset.skew ??= Date.now() - element.dataset.now;
    const seconds = (Date.now() - element.dataset.skew - element.dataset.since) / 1000;
    element.textContent = seconds < 60 ? `${seconds.toFixed(1)} s`
      : seconds < 3600 ? `${Math.floor(seconds / 60)} min ${Math.floor(seconds % 60)} s`
      : `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
  }
}

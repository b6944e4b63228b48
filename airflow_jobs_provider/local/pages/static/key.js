// The pages' key: kept in the storage of this origin, sent in a header. See key.py.
const NAME = "local-workspace-key";

// A link with the key in its fragment, which is not sent to the server, signs in.
const given = new URLSearchParams(location.hash.slice(1)).get("key");
if (given) {
  localStorage.setItem(NAME, given);
  history.replaceState(null, "", location.pathname + location.search);
}

/** Return whether there is a key, so that what needs one is shown without a question. */
export function hasKey() {
  return localStorage.getItem(NAME) !== null;
}

/** Replace an element by the one of the same id in what the server answers. */
export async function load(url, id) {
  say("");
  try {
    const response = await send(url);
    if (response === null) return;
    const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
    const element = fresh.getElementById(id);
    if (element) document.getElementById(id).replaceWith(document.adoptNode(element));
    else say(`The workspace answered with status ${response.status}.`);
  } catch (error) {
    say(`The workspace did not answer: ${error.message}`);
  }
}

/** Send a request with the key; ask for the access token where there is none, or it is not valid. */
export async function send(url, options = {}) {
  for (;;) {
    const key = localStorage.getItem(NAME);
    if (key) {
      const response = await fetch(url, { ...options, headers: { Authorization: `Bearer ${key}` } });
      if (response.status !== 401) return response;
      localStorage.removeItem(NAME);
    }
    if (!(await askForToken())) return null;
  }
}

async function askForToken() {
  const dialog = document.getElementById("key-dialog");
  const field = document.getElementById("key-token");
  for (;;) {
    field.value = "";
    dialog.returnValue = "cancel";
    dialog.showModal();
    await new Promise((closed) => dialog.addEventListener("close", closed, { once: true }));
    const token = field.value;
    field.value = "";
    if (dialog.returnValue !== "ok") return false;
    const response = await fetch("/actions/key", { method: "POST", headers: { Authorization: `Bearer ${token}` } });
    if (response.ok) {
      localStorage.setItem(NAME, (await response.json()).key);
      say("");
      return true;
    }
    say((await response.json()).message);
  }
}

/** Show a message to the user; an empty one removes it. */
export function say(text) {
  const message = document.getElementById("message");
  message.textContent = text;
  message.hidden = !text;
}

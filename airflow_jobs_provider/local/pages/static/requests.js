// The list of requests: read with the key.
import { say, send } from "./key.js";

const form = document.getElementById("request-filter");

async function show() {
  say("");
  try {
    const response = await send(`/requests/list?${new URLSearchParams(new FormData(form))}`);
    if (response === null) return;
    const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
    document.getElementById("requests").replaceWith(fresh.getElementById("requests"));
  } catch (error) {
    say(`The workspace did not answer: ${error.message}`);
  }
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  show();
});
// Without a key the dialog comes only when the user asks for the list.
if (localStorage.getItem("local-workspace-key")) show();

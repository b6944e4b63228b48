// The list of requests: read with the key.
import { hasKey, load } from "./key.js";

const form = document.getElementById("request-filter");

function show() {
  load(`/requests/list?${new URLSearchParams(new FormData(form))}`, "requests");
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  show();
});
// Without a key the dialog comes only when the user asks for the list.
if (hasKey()) show();

// Buttons that change something: data-action is the address.
import { say, send } from "./key.js";

document.addEventListener("click", async (event) => {
  const button = event.target.closest("button[data-action]");
  if (!button) return;
  say("");
  button.disabled = true;
  try {
    const response = await send(button.dataset.action, { method: "POST" });
    if (response === null) return;
    const answer = await response.json();
    if (!response.ok) say(answer.message);
    else if (answer.location !== location.pathname) location.assign(answer.location);
  } catch (error) {
    say(`The workspace did not answer: ${error.message}`);
  } finally {
    button.disabled = false;
  }
});

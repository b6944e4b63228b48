// Sections that need the key: data-load is the address, data-show names the section of a button.
import { hasKey, load } from "./key.js";

document.addEventListener("click", (event) => {
  const id = event.target.closest("button[data-show]")?.dataset.show;
  if (id) load(document.getElementById(id).dataset.load, id);
});

if (hasKey()) for (const section of document.querySelectorAll("[data-load]")) load(section.dataset.load, section.id);

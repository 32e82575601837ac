// Runs when Gradio has put the component on the page; `element`, `trigger`, `watch` are Gradio's.
const box = () => document.querySelector("#sae-search input, #sae-search textarea");
const rows = () => [...element.querySelectorAll("tr[data-sae] button")];
const close = (closed) => element.classList.toggle("closed", closed);

element.addEventListener("click", (event) => {
  const row = event.target.closest("[data-sae]");
  if (row) trigger("select", { name: row.dataset.sae });
});

// The box and the rows are one list for the keyboard.
document.addEventListener("keydown", (event) => {
  const all = rows(), at = all.indexOf(document.activeElement), inBox = document.activeElement === box();
  if (at < 0 && !inBox) return;
  if (event.key === "ArrowDown" || (event.key === "Enter" && inBox)) all[at + 1]?.focus();
  else if (event.key === "ArrowUp" && at >= 0) (all[at - 1] ?? box()).focus();
  else if (event.key === "Escape") {
    box().focus();
    close(true);
    return;
  } else return;
  event.preventDefault();
});

// Open while one searches, until something else is touched.
const outside = (target) => !element.contains(target) && !target.closest?.("#sae-search");
document.addEventListener("pointerdown", (event) => close(outside(event.target)));
document.addEventListener("focusin", (event) => close(outside(event.target)));
watch("value", () => close(false));

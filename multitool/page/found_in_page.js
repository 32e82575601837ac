// Runs when Gradio has put the component on the page; `element`, `trigger`, `watch` are Gradio's.
const ofNumber = (number) => element.querySelector(`[tabindex][data-number="${number}"]`);
let chosen = null; // whose focus is kept when all is drawn anew

const choose = (target) => {
  const choice = target.closest("[data-number]");
  if (!choice) return;
  chosen = choice.dataset.number;
  // Chosen once more, it is left.
  trigger("select", { number: choice.matches("[aria-pressed=true]") ? -1 : Number(chosen) });
};

element.addEventListener("click", (event) => {
  const selection = getSelection(); // who marks words in order to copy them chooses nothing
  if (selection.type !== "Range" || !element.contains(selection.anchorNode)) choose(event.target);
});
element.addEventListener("keydown", (event) => {
  const all = [...element.querySelectorAll("[tabindex][data-number]")];
  const at = all.indexOf(event.target);
  if (at < 0) return;
  const step = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 }[event.key];
  if (step) all[at + step]?.focus();
  else if ([" ", "Enter"].includes(event.key) && !event.target.matches("button")) choose(event.target);
  else return;
  event.preventDefault();
});
watch("value", () => {
  if (chosen !== null && document.activeElement === document.body) ofNumber(chosen)?.focus({ preventScroll: true });
  chosen = null;
});

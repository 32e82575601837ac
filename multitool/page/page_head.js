// What a screen reader is told while the page works. The words of a status are the value of a text box, whose changes no
// assistive technology is told of: those of the tab that is seen are said again, in peace, by the live region.
const said = element.querySelector("[role=status]");
let last = null;
const unnamed = "label:has(button) input:not([aria-label]), label:has(button) textarea:not([aria-label])";
setInterval(() => {
  // A label with a copy button in it names that button, and not its box.
  for (const box of document.querySelectorAll(unnamed)) {
    const name = box.closest("label").querySelector("[data-testid=block-info]")?.textContent.trim();
    if (name) box.setAttribute("aria-label", name);
  }
  const seen = [...document.querySelectorAll(".status textarea")].find(box => box.checkVisibility());
  const words = seen?.value ?? "";
  if (last !== null && words !== last) said.textContent = words;
  last = words;
}, 1500);

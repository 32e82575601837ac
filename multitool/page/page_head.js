// What a screen reader is told while the page works. The words of a status are the value of a text box, whose changes no
// assistive technology is told of: those of the tab that is seen are said again, in peace, by the live region.
const said = element.querySelector("[role=status]");
let last = null;
setInterval(() => {
  const seen = [...document.querySelectorAll(".status textarea")].find(box => box.checkVisibility());
  const words = seen?.value ?? "";
  if (last !== null && words !== last) said.textContent = words;
  last = words;
}, 1500);

// Before the scripts of components that copy.
// Where the page does not come by https or from this machine, browsers have no other clipboard than the old one.
const copyOld = (words) => {
  const area = document.createElement("textarea");
  area.value = words;
  area.style.cssText = "position: fixed; opacity: 0";
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  return done;
};
const copy = async (words) => {
  try {
    await navigator.clipboard.writeText(words);
    return true;
  } catch {
    return copyOld(words);
  }
};
// Copy when a button is clicked, and tell so for a while.
const copies = (button, told, words, as = "") => button.addEventListener("click", async () => {
  const done = await copy(words());
  button.focus({ preventScroll: true }); // the old way takes the focus away
  told.textContent = done ? `Copied${as}` : "This browser does not let the page copy.";
  clearTimeout(told.later);
  told.later = setTimeout(() => (told.textContent = ""), 4000);
});

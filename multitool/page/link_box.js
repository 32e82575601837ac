// Runs when Gradio has put the component on the page, behind clipboard.js; `element`, `props`, `watch` are Gradio's.
const box = element.querySelector("input"), place = element.querySelector(".link-box");
const show = () => {
  const told = props.value ?? "";
  const link = told.startsWith("?") ? location.origin + location.pathname + told : "";
  place.hidden = !told;
  box.value = link;
  box.placeholder = link ? "" : told; // why there is none
  element.querySelector("button").disabled = !link;
};
box.addEventListener("focus", () => box.select());
copies(element.querySelector("button"), element.querySelector(".told"), () => box.value);
watch("value", show);
show();

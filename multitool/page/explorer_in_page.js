
// Runs behind explorer.js when Gradio has put the component on the page; `element`, `props`, `watch` are Gradio's.
const place = element.querySelector(".tree-root");
let shown = 0;
const show = () => {
  const focused = document.activeElement?.matches(".body") && place.contains(document.activeElement);
  if (props.value) exploreTree(place, JSON.parse(props.value));
  else place.textContent = "No tree yet. Choose a feature and press “Grow tree”, or start with an example.";
  place.classList.toggle("empty", !props.value);
  if (focused) place.querySelector(".body")?.focus({ preventScroll: true }); // a growing tree is drawn time and again
  element.dataset.shown = ++shown; // tells from outside that what is there is new
};
watch("value", show);
show();

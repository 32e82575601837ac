// Keeps the browser's address and what the page shows together, when Gradio has put the component on the page; `element`,
// `props`, `trigger`, `watch` are Gradio's. The server tells by `props.value` where the page is (view.py, `entry`).
// Each entry of the history holds {query, empty, bare}: `bare` is the page as it opens, whose address says nothing.
let followed = 0; // how often the page was asked to follow the address; the first time as it opens: see address.py
let waiting = true; // for the answer to that: what is made meanwhile was asked for elsewhere
// What others have put into the address stays: Gradio's theme, and the key of a private Space, which is nobody else's.
const parameters = (others) =>
  new URLSearchParams([...new URLSearchParams(location.search)].filter(([name]) => name.startsWith("__") === others));
const there = (state) => state ?? { query: parameters(false).toString() };
let here = there(history.state), seen = location.search;

const viewOf = (query) => new URLSearchParams(query).get("view") ?? "tree";
const openTab = () => document.querySelector("#tabs [role=tab][aria-selected=true]")?.dataset.tabId;

const write = (entry, push) => {
  here = entry;
  const own = entry.bare ? "" : entry.query;
  const query = [parameters(true).toString(), own].filter(Boolean).join("&");
  history[push ? "pushState" : "replaceState"](entry, "", location.pathname + (query && "?" + query) + location.hash);
  seen = location.search;
  // On the hub the page stands in another one's frame, whose address is the one that is seen.
  if (parent !== window) {
    const theme = parameters(true).get("__theme");
    const queryString = [theme && `__theme=${theme}`, own].filter(Boolean).join("&");
    parent.postMessage({ queryString }, "https://huggingface.co");
  }
};

watch("value", () => {
  if (!props.value) return; // nothing has been told yet
  const { view, query, empty = false, bare = false, tab, number } = JSON.parse(props.value);
  if (number !== undefined) {
    if (number !== followed) return; // the visitor has gone on since
    waiting = false;
    write({ query: query ?? here.query, empty, bare }, false);
  } else if (waiting || (tab ? view === viewOf(here.query) : view !== openTab())) return;
  else if (query === here.query) write({ ...here, empty: empty && here.empty }, false);
  else write({ query, empty }, !here.empty);
});
element.dataset.followed = followed;
addEventListener("popstate", ({ state }) => {
  if (!state && location.search === seen) return; // a place in the page
  here = there(state);
  seen = location.search;
  waiting = true;
  element.dataset.followed = ++followed;
  trigger("select");
});
element.addEventListener("tab", () => {
  if (!waiting && openTab() !== viewOf(here.query)) trigger("input", { name: openTab() });
});

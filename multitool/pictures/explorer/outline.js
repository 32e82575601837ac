/* The tree as lines of text that open and close. Only the lines that can be seen are in the document. */

function outlineView({ tree, state, body, list, act, parts }) {
  const ROW = matchMedia("(pointer: coarse), (max-width: 560px)").matches ? 44 : 28; // px
  const SPARE = 15; // rows above and below what is seen
  let rows = [];

  function draw() {
    rows = [];
    const add = (i) => {
      const { shown, left } = act.split(i);
      for (const child of shown) {
        rows.push({ i: child });
        if (state.open.has(child)) add(child);
      }
      if (left.length) rows.push({ more: i, left });
    };
    add(-1);
    list.style.height = `${rows.length * ROW}px`;
    list.style.width = "";
    scrolled();
  }

  function scrolled() {
    const first = Math.max(0, Math.floor(body.scrollTop / ROW) - SPARE);
    const last = Math.min(rows.length, first + Math.ceil((body.clientHeight || 600) / ROW) + 2 * SPARE);
    list.replaceChildren(...rows.slice(first, last).map((row, place) => {
      const element = row.i === undefined ? moreRow(row) : phraseRow(row.i);
      element.style.setProperty("top", `${(first + place) * ROW}px`);
      element.style.setProperty("line-height", `${ROW}px`);
      return element;
    }));
  }

  function phraseRow(i) {
    const folded = tree.isFolded(i), isOpen = state.open.has(i);
    const row = make("div", { ...parts.item(i, "row"), style: { "--level": tree.level[i] } },
      make("span", { class: "twisty", "aria-hidden": "true" }, folded ? (isOpen ? "▾" : "▸") : ""), parts.words(i));
    if (tree.ended[i]) row.append(parts.end(i));
    if (folded && !isOpen) row.append(parts.preview(i), parts.hidden(i));
    row.append(make("span", { class: "amount" },
      make("span", { class: "meter" }, make("span", { style: { width: `${100 * tree.p[i] / tree.most}%` } })),
      make("span", { class: "percent" }, percent(tree.p[i]))));
    return row;
  }

  const moreRow = ({ more, left }) => make(
    "div", { class: "row rest", role: "none", style: { "--level": more < 0 ? 0 : tree.level[more] + 1 },
      onclick: () => act.revealBelow(more) },
    make("span", { class: "twisty" }), make("span", { class: "words" }, parts.left(left)));

  function scrollTo(i) {
    const top = rows.findIndex((row) => row.i === i) * ROW;
    if (top < body.scrollTop) body.scrollTop = top;
    else if (top + ROW > body.scrollTop + body.clientHeight) body.scrollTop = top + ROW - body.clientHeight;
    scrolled();
  }

  const order = () => rows.filter((row) => row.i !== undefined).map((row) => row.i);
  return { draw, scrolled, scrollTo, keys: treeKeys({ tree, state, act, order, page: () => body.clientHeight / ROW }) };
}

/* The keys of a tree whose phrases stand in `order()`, as the ARIA practices for trees have them. */
function treeKeys({ tree, state, act, order, page }) {
  const moved = (by) => {
    const listed = order();
    act.setActive(listed[clamped(listed.indexOf(state.active) + by, 0, listed.length - 1)], true);
  };
  const pages = () => Math.max(1, Math.floor(page()) - 1);
  const isOpen = () => tree.isFolded(state.active) && state.open.has(state.active);
  const up = () => tree.parent[state.active] >= 0 && act.setActive(tree.parent[state.active], true);
  return {
    ArrowDown: () => moved(1), ArrowUp: () => moved(-1), PageDown: () => moved(pages()), PageUp: () => moved(-pages()),
    Home: () => act.setActive(order()[0], true), End: () => act.setActive(order().at(-1), true),
    ArrowRight: () => (isOpen() ? moved(1) : act.toggle(state.active)),
    ArrowLeft: () => (isOpen() ? act.toggle(state.active) : up()),
    Enter: () => act.toggle(state.active), " ": () => act.toggle(state.active),
  };
}

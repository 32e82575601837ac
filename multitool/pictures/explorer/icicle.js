/* The tree as an icicle: columns of cells whose heights are probabilities; a click zooms in. */

function icicleView({ tree, state, body, list, act, parts }) {
  const THINNEST = 2, LABELLED = 13, COLUMN = 150, ENDING = 64; // px

  const tall = (i) => (state.filled ? state.mass[i] : tree.p[i]); // what a cell's height stands for

  function cells(height) {
    const found = [];
    const place = (i, column, top, size) => {
      if (!(size >= THINNEST)) return; // nor if there is nothing to have a share of
      found.push({ i, column, top, size });
      let y = top;
      for (const child of act.split(i).shown) {
        const part = size * (tall(child) / tall(i));
        place(child, column + 1, y, part);
        y += part;
      }
      const end = size * (tree.ended[i] / tall(i));
      if (end >= THINNEST && (tree.isFolded(i) || !state.filled)) {
        found.push({ i, column: column + 1, top: y, size: end, end: true });
      }
    };
    if (state.zoom >= 0) place(state.zoom, 0, 0, height);
    else {
      const all = state.filled ? tree.tops.reduce((sum, i) => sum + state.mass[i], 0) : 1;
      let y = 0;
      for (const i of act.split(-1).shown) { place(i, 0, y, height * tall(i) / all); y += height * tall(i) / all; }
    }
    return found;
  }

  function draw() {
    const height = body.clientHeight - 2, found = cells(height);
    const deepest = found.reduce((most, cell) => Math.max(most, cell.end ? 0 : cell.column), 0);
    const width = Math.max(COLUMN, body.clientWidth / (deepest + 1.2));
    list.style.height = `${height}px`;
    list.style.width = `${width * (deepest + 1) + 80}px`;
    list.replaceChildren(...found.map(({ i, column, top, size, end }) => {
      const attributes = end ? parts.mark(i, "cell ending") : parts.item(i, "cell");
      const cell = make("div", { ...attributes, style: {
        left: `${column * width}px`, top: `${top}px`, width: `${end ? ENDING : width - 2}px`,
        height: `${Math.max(size - 1, 1)}px`,
      } });
      if (end && size >= LABELLED) cell.append(`■ ${percent(tree.defined[i])}`);
      else if (size >= LABELLED) cell.append(parts.words(i), make("span", { class: "percent" }, percent(tree.p[i])));
      return cell;
    }));
  }

  const scrollTo = (i) => parts.elementOf(i)?.scrollIntoView({ block: "nearest", inline: "nearest" });

  const isDrawn = (i) => parts.elementOf(i) !== null;
  const beside = (by) => {
    if (state.active === state.zoom) return;
    const near = act.split(tree.parent[state.active]).shown.filter(isDrawn);
    const next = near[near.indexOf(state.active) + by];
    if (next !== undefined) act.setActive(next, true);
  };
  const into = () => {
    const next = act.split(state.active).shown.find(isDrawn);
    if (next !== undefined) act.setActive(next, true);
  };
  const back = () => state.active !== state.zoom && tree.parent[state.active] >= 0 &&
    act.setActive(tree.parent[state.active], true);
  const zoomOut = () => state.zoom >= 0 && act.zoomTo(tree.parent[state.zoom]);
  return { draw, scrolled: () => {}, scrollTo, keys: {
    ArrowDown: () => beside(1), ArrowUp: () => beside(-1), ArrowRight: into, ArrowLeft: back,
    Home: () => act.zoomTo(-1), Enter: () => act.zoomTo(state.active), " ": () => act.zoomTo(state.active),
    Escape: zoomOut, Backspace: zoomOut,
  } };
}

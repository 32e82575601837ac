/* The tree as a picture, from left to right: a link's width and a phrase's size and ink tell its probability.

   A phrase stands on the line of its likeliest continuation, so that answers are read straight along a line. When that
   line is scrolled away while others of its branch are still seen, the phrase stays at the edge: whatever is on top is
   read from its beginning. Only what can be seen is in the document. */

function branchesView({ tree, state, body, list, act, parts }) {
  const ROW = matchMedia("(pointer: coarse)").matches ? 44 : 27, BETWEEN = 10; // px; between the first phrases
  const GAP = 44, SPACE = 7, EDGE = 12, SPARE = 200, WIDEST = 340;
  const THIN = 0.7, THICK = 7, SMALL = 12;
  const pen = document.createElement("canvas").getContext("2d");
  const font = getComputedStyle(list).fontFamily;
  const widths = new Map();
  const share = (i) => tree.p[i] / tree.most;
  const size = (i) => Math.round(2 * (13 + 4 * Math.sqrt(share(i)))) / 2;
  let items = [];

  function measured(text, px) {
    const key = `${px} ${text}`;
    if (!widths.has(key)) {
      pen.font = `${px}px ${font}`;
      widths.set(key, Math.ceil(pen.measureText(text).width));
    }
    return widths.get(key);
  }

  /* From the left edge of a phrase to where its links begin. */
  function width(i) {
    const told = [[tree.label[i], size(i)]];
    if (tree.level[i] === 0) told.push([percent(tree.p[i]), SMALL]);
    if (tree.ended[i]) told.push([`■ ${percent(tree.defined[i])}`, SMALL]);
    if (tree.shared && tree.shared[i]) told.push([" =", size(i)]);
    return told.reduce((sum, [text, px]) => sum + Math.min(measured(text, px), WIDEST) + SPACE, 0);
  }

  function draw() {
    items = [];
    let y = EDGE / 2, right = 0;
    const put = (item) => {
      items.push(item);
      right = Math.max(right, item.x + item.width);
      return item;
    };
    const add = (i, x, from) => {
      const { shown, left } = act.split(i);
      for (const child of shown) {
        const item = put({ i: child, x, from, first: y, width: width(child) });
        if (state.open.has(child) && tree.isFolded(child)) add(child, x + item.width + GAP, item);
        else {
          if (tree.isFolded(child)) right = Math.max(right, x + item.width + measured(tree.preview(child), SMALL) + 60);
          y += ROW;
        }
        item.last = y - ROW;
        if (i < 0) y += BETWEEN;
      }
      if (left.length) {
        put({ more: i, left, x, from, first: y, last: y, width: measured(parts.left(left), SMALL) });
        y += ROW;
      }
    };
    add(-1, EDGE, null);
    list.style.height = `${y + EDGE / 2}px`;
    list.style.width = `${right + EDGE}px`;
    scrolled();
  }

  /* Where an item is drawn: on its first line, or at the edge as long as any of its lines is seen. */
  const top = (item) => clamped(body.scrollTop, item.first, item.last);

  function scrolled() {
    const above = body.scrollTop - SPARE, under = body.scrollTop + (body.clientHeight || 600) + SPARE;
    const seen = items.filter((item) => item.last + ROW > above && item.first < under);
    list.replaceChildren(links(seen, above, under), ...seen.map(label));
    markPath(state.active);
  }

  /* The way to phrase i stands out. */
  function markPath(i) {
    const path = new Set(tree.path(i).map(String));
    for (const link of list.querySelectorAll("path")) link.classList.toggle("on-path", path.has(link.dataset.to));
  }

  function links(seen, above, under) {
    const picture = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    picture.setAttribute("aria-hidden", "true");
    picture.style.cssText = `top: ${above}px; width: 100%; height: ${under - above}px`;
    for (const item of seen) {
      if (!item.from) continue;
      const x0 = item.from.x + item.from.width, x1 = item.x - 5, middle = (x0 + x1) / 2;
      const [y0, y1] = [item.from, item].map((one) => top(one) + ROW / 2 - above);
      const link = document.createElementNS(picture.namespaceURI, "path");
      link.setAttribute("d", `M${x0} ${y0}C${middle} ${y0} ${middle} ${y1} ${x1} ${y1}`);
      const p = item.i === undefined ? act.probabilityOf(item.left) : tree.p[item.i];
      link.style.strokeWidth = `${THIN + (THICK - THIN) * Math.sqrt(p / tree.most)}px`;
      link.dataset.to = item.i;
      picture.append(link);
    }
    return picture;
  }

  function label(item) {
    const { i } = item;
    const place = { left: `${item.x}px`, top: `${top(item)}px`, "line-height": `${ROW}px` };
    if (i === undefined) {
      return make("div", { class: "branch rest", role: "none", style: place, onclick: () => act.revealBelow(item.more) },
        make("span", { class: "words" }, parts.left(item.left)));
    }
    const words = parts.words(i);
    words.style.setProperty("font-size", `${size(i)}px`);
    words.style.setProperty("--ink-share", clamped(1 + Math.log10(share(i)) / 3, 0, 1).toFixed(2));
    const element = make("div", { ...parts.item(i, "branch"), style: place }, words);
    if (tree.level[i] === 0) element.append(make("span", { class: "percent" }, percent(tree.p[i])));
    if (tree.ended[i]) element.append(parts.end(i));
    if (tree.isFolded(i) && !state.open.has(i)) element.append(parts.preview(i), parts.hidden(i));
    return element;
  }

  function scrollTo(i) {
    const item = items.find((one) => one.i === i);
    if (!item) return;
    if (item.first < body.scrollTop) body.scrollTop = item.first - EDGE / 2;
    else if (item.first + ROW > body.scrollTop + body.clientHeight) body.scrollTop = item.first + ROW + EDGE - body.clientHeight;
    // With what it opens, where there is room for both.
    const opened = items.find((one) => one.from === item);
    const end = opened ? opened.x + Math.min(opened.width, 160) : item.x + item.width;
    if (end + EDGE > body.scrollLeft + body.clientWidth) body.scrollLeft = end + EDGE - body.clientWidth;
    if (item.x < body.scrollLeft) body.scrollLeft = item.x - EDGE;
    scrolled();
  }

  const order = () => items.filter((item) => item.i !== undefined).map((item) => item.i);
  return { draw, scrolled, scrollTo, markPath, keys: treeKeys({ tree, state, act, order, page: () => body.clientHeight / ROW }) };
}

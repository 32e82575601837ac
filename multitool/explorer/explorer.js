/* A definition tree to explore: an outline that opens and closes, or an icicle whose heights are probabilities.

   exploreTree(root, data) draws `data`, as explore.payload gives it, into the element `root`. Everything in `data` is
   text of unknown origin: it is only ever set as text. Row and cell "i" below is phrase number i of the data. */

function exploreTree(root, data) {
  const ROW = matchMedia("(pointer: coarse)").matches ? 38 : 28; // px; rows of one height can be drawn as they scroll by
  const OPEN_AT_FIRST = 36; // rows
  const SPARE = 15; // rows drawn above and below what is seen
  const THINNEST = 2, LABELLED = 13; // px of an icicle's cells
  const COLUMN = 150;
  const MOST_LIFT = 6; // nats, from which on a phrase is wholly blue
  const count = data.parent.length;

  // ── The tree ────────────────────────────────────────────────────────────────────────────────────────────────────
  const children = Array.from({ length: count }, () => []);
  const tops = [];
  const level = new Array(count), before = new Array(count), below = new Array(count).fill(0);
  data.parent.forEach((up, i) => {
    (up < 0 ? tops : children[up]).push(i);
    level[i] = up < 0 ? 0 : level[up] + 1;
    before[i] = up < 0 ? "" : before[up] + data.text[up];
  });
  for (let i = count - 1; i >= 0; i--) if (data.parent[i] >= 0) below[data.parent[i]] += 1 + below[i];
  const childrenOf = (i) => (i < 0 ? tops : children[i]);
  const probability = (i) => (i < 0 ? 1 : data.p[i]);
  const definition = (i) => (before[i] + data.text[i]).trim();
  const most = tops.length ? data.p[tops[0]] : 1;

  // Where answers end in the tree: definitions, and leaves that go on beyond it. By falling probability.
  const endings = [];
  for (let i = 0; i < count; i++) {
    if (data.ended[i] > 0) endings.push([data.ended[i], i]);
    else if (!children[i].length) endings.push([data.p[i], i]);
  }
  endings.sort((a, b) => b[0] - a[0]);
  const held = endings.reduce((sum, [p]) => sum + p, 0);

  // ── What is shown ───────────────────────────────────────────────────────────────────────────────────────────────
  let mode = "tree", filled = true, active = tops.length ? tops[0] : -1, zoom = -1, query = "";
  let open, matches = new Set(), rows = [];
  let within = new Array(count).fill(true), nodesWithin = data.total, endingsWithin = endings.length;
  let mass = new Float64Array(count); // of the shown endings at each phrase and below
  const revealed = new Set(); // phrases whose less probable continuations are shown nevertheless

  function openLikeliest() {
    open = new Set();
    const closed = [...tops];
    let seen = tops.length;
    while (closed.length && seen < OPEN_AT_FIRST) {
      closed.sort((a, b) => data.p[a] - data.p[b]);
      const i = closed.pop();
      if (!children[i].length) continue;
      open.add(i);
      seen += children[i].length;
      closed.push(...children[i]);
    }
  }

  function keepShare(share) {
    within = new Array(count).fill(share >= 1);
    endingsWithin = 0;
    let sum = 0;
    for (const [p, i] of endings) {
      if (sum >= share * held) break;
      sum += p;
      endingsWithin++;
      for (let up = i; up >= 0 && !within[up]; up = data.parent[up]) within[up] = true;
    }
    nodesWithin = within.reduce((sum, is, i) => sum + (is ? data.nodes[i] : 0), 0);
    weigh();
    revealed.clear();
  }

  function weigh() {
    mass = new Float64Array(count);
    for (const [p, i] of endings.slice(0, endingsWithin)) mass[i] += p;
    for (let i = count - 1; i >= 0; i--) if (data.parent[i] >= 0) mass[data.parent[i]] += mass[i];
  }

  const shownChildren = (i) => childrenOf(i).filter((child) => within[child] || revealed.has(i));

  function listRows() {
    rows = [];
    const add = (i) => {
      const listed = shownChildren(i);
      listed.forEach((child, place) => {
        rows.push({ i: child, place: place + 1, of: listed.length });
        if (open.has(child)) add(child);
      });
      const left = childrenOf(i).filter((child) => !listed.includes(child));
      if (left.length) rows.push({ more: i, left });
    };
    add(-1);
  }

  // ── Words ───────────────────────────────────────────────────────────────────────────────────────────────────────
  function percent(p) {
    if (!(p > 0)) return "0%";
    if (p >= 0.0995) return `${Math.round(100 * p)}%`;
    return p < 1e-6 ? "<0.0001%" : `${Number((100 * p).toPrecision(2))}%`;
  }

  function make(tag, attributes = {}, ...inside) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name === "style") for (const [key, v] of Object.entries(value)) element.style.setProperty(key, v);
      else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else if (value !== false && value !== null) element.setAttribute(name, value === true ? "" : value);
    }
    element.append(...inside);
    return element;
  }

  function phraseText(i) {
    const text = make("span", { class: "words", dir: "auto" }, data.text[i].trim() || "␣");
    if (data.lift) text.style.setProperty("--lift", Math.min(Math.max(data.lift[i] / MOST_LIFT, 0), 1).toFixed(2));
    return text;
  }

  const classes = (i, ...more) =>
    [...more, matches.has(i) && "match", data.shared && data.shared[i] && "shared", data.lift && "lifted",
      i === active && "active"].filter(Boolean).join(" ");

  // ── The frame ───────────────────────────────────────────────────────────────────────────────────────────────────
  root.replaceChildren();
  root.classList.add("explorer");
  const prefix = `x${Math.random().toString(36).slice(2, 8)}`; // ids must differ between two views of one page
  const views = { tree: make("button", { type: "button", onclick: () => setMode("tree") }, "Tree"),
    icicle: make("button", { type: "button", onclick: () => setMode("icicle") }, "Icicle") };
  const search = make("input", { type: "search", placeholder: "Search", "aria-label": "Search the definitions",
    spellcheck: "false", oninput: () => find(search.value), onkeydown: onSearchKey });
  const found = make("span", { class: "found", role: "status" });
  const share = make("input", { type: "range", min: 10, max: 100, value: 100, "aria-label": "Share of the probability",
    oninput: () => setShare(Number(share.value)) });
  const shareOut = make("output", {}, "100%");
  const told = make("span", { class: "told" });
  const heights = make("select", { "aria-label": "Heights of the icicle", onchange: () => {
    filled = heights.value === "tree";
    draw();
  } }, make("option", { value: "tree" }, "Height: probability, of what the tree holds"),
    make("option", { value: "all" }, "Height: probability, of all answers"));
  const crumbs = make("nav", { class: "crumbs", "aria-label": "Zoomed into" });
  const list = make("div", { class: "list" });
  const body = make("div", { class: "body", role: "tree", tabindex: 0, "aria-label": "Definition tree", onkeydown: onKey,
    onscroll: () => mode === "tree" && drawRows() }, list);
  const details = make("div", { class: "details" });
  const openAll = make("button", { type: "button", onclick: () => setOpen(new Set(children.keys())) }, "Open all");
  const closeAll = make("button", { type: "button", onclick: () => setOpen(new Set()) }, "Close all");
  root.append(
    make("div", { class: "bar" },
      make("span", { class: "modes", role: "group", "aria-label": "View" }, views.tree, views.icicle),
      make("span", { class: "finder" }, search, found), make("span", { class: "opening" }, openAll, closeAll, heights)),
    make("div", { class: "bar" },
      make("label", { class: "share" }, "Show ", shareOut, " of the tree’s probability", share), told),
    crumbs, body, details, legend());

  function legend() {
    const line = make("p", { class: "legend" }, make("span", {}, make("i", { class: "end" }, "■"), " a definition ends"));
    if (data.lift) line.append(make("span", { class: "lifts" }, make("i"), ` grey to blue: lift from 0 to ${MOST_LIFT} nats and more`));
    if (data.shared) line.append(make("span", {}, make("i", { class: "same" }, "="), " the other tree has it too"));
    return line;
  }

  // ── Drawing ─────────────────────────────────────────────────────────────────────────────────────────────────────
  function draw() {
    views.tree.setAttribute("aria-pressed", mode === "tree");
    views.icicle.setAttribute("aria-pressed", mode === "icicle");
    openAll.hidden = closeAll.hidden = mode !== "tree";
    heights.hidden = mode !== "icicle";
    told.textContent = count ? `${endingsWithin.toLocaleString("en")} of ${endings.length.toLocaleString("en")} endings, ` +
      `${nodesWithin.toLocaleString("en")} of ${data.total.toLocaleString("en")} nodes` : "";
    root.dataset.mode = mode;
    crumbs.hidden = mode === "tree" || zoom < 0;
    if (!count) {
      list.replaceChildren(make("p", { class: "nothing" }, "No continuation reaches the cutoff. Lower it."));
    } else if (mode === "tree") {
      listRows();
      drawRows();
    } else {
      drawCrumbs();
      drawIcicle();
    }
    drawDetails(active);
  }

  function drawRows() {
    const first = Math.max(0, Math.floor(body.scrollTop / ROW) - SPARE);
    const last = Math.min(rows.length, first + Math.ceil((body.clientHeight || 600) / ROW) + 2 * SPARE);
    list.style.height = `${rows.length * ROW}px`;
    list.style.width = "";
    list.replaceChildren(...rows.slice(first, last).map((row, place) => {
      const element = row.i === undefined ? moreRow(row) : phraseRow(row);
      element.style.setProperty("top", `${(first + place) * ROW}px`);
      element.style.setProperty("height", `${ROW}px`);
      return element;
    }));
    markActive();
  }

  function phraseRow({ i, place, of }) {
    const folded = children[i].length > 0;
    const row = make("div", { class: classes(i, "row"), role: "treeitem", id: `${prefix}-${i}`, "aria-level": level[i] + 1,
      "aria-setsize": of, "aria-posinset": place, "aria-expanded": folded ? String(open.has(i)) : null,
      "aria-label": `${data.text[i].trim()}, ${percent(data.p[i])}${data.ended[i] ? ", ends" : ""}`,
      style: { "--level": level[i] }, onclick: () => { setActive(i); toggle(i); }, onmouseenter: () => drawDetails(i) },
      make("span", { class: "twisty", "aria-hidden": "true" }, folded ? (open.has(i) ? "▾" : "▸") : ""), phraseText(i));
    if (data.ended[i]) row.append(make("span", { class: "end" }, `■ ${percent(data.ended[i])}`));
    if (folded && !open.has(i)) row.append(make("span", { class: "more" }, `+${below[i].toLocaleString("en")}`));
    row.append(make("span", { class: "amount" },
      make("span", { class: "meter" }, make("span", { style: { width: `${100 * data.p[i] / most}%` } })),
      make("span", { class: "percent" }, percent(data.p[i]))));
    return row;
  }

  function moreRow({ more, left }) {
    const p = left.reduce((sum, i) => sum + data.p[i], 0);
    return make("div", { class: "row rest", role: "none", style: { "--level": more < 0 ? 0 : level[more] + 1 },
      onclick: () => { revealed.add(more); draw(); } },
      make("span", { class: "twisty" }), make("span", { class: "words" }, `… ${left.length} more, ${percent(p)}`));
  }

  function drawIcicle() {
    const height = body.clientHeight - 2, cells = [];
    const tall = (i) => (filled ? mass[i] : data.p[i]); // what a cell's height stands for
    let deepest = 0;
    const place = (i, column, top, size) => {
      if (!(size >= THINNEST)) return; // nor if there is nothing to have a share of
      deepest = Math.max(deepest, column);
      cells.push({ i, column, top, size });
      let y = top;
      for (const child of shownChildren(i)) {
        const part = size * (tall(child) / tall(i));
        place(child, column + 1, y, part);
        y += part;
      }
      const end = size * (data.ended[i] / tall(i));
      if (end >= THINNEST && (children[i].length || !filled)) cells.push({ i, column: column + 1, top: y, size: end, end: true });
    };
    if (zoom >= 0) place(zoom, 0, 0, height);
    else {
      const all = filled ? tops.reduce((sum, i) => sum + mass[i], 0) : 1;
      let y = 0;
      for (const i of shownChildren(-1)) { place(i, 0, y, height * tall(i) / all); y += height * tall(i) / all; }
    }
    const width = Math.max(COLUMN, body.clientWidth / (deepest + 1.2));
    list.style.height = `${height}px`;
    list.style.width = `${width * (deepest + 1) + 80}px`;
    list.replaceChildren(...cells.map(({ i, column, top, size, end }) => {
      const cell = make("div", {
        class: end ? "cell ending" : classes(i, "cell"), role: end ? "none" : "treeitem", id: end ? null : `${prefix}-${i}`,
        "aria-level": end ? null : level[i] + 1, "aria-label": end ? null : `${data.text[i].trim()}, ${percent(data.p[i])}`,
        style: { left: `${column * width}px`, top: `${top}px`, width: `${end ? 64 : width - 2}px`,
          height: `${Math.max(size - 1, 1)}px` },
        onclick: () => { setActive(i); if (!end) zoomTo(i === zoom ? data.parent[i] : i); },
        onmouseenter: () => drawDetails(i) });
      if (end && size >= LABELLED) cell.append(`■ ${percent(data.ended[i])}`);
      else if (size >= LABELLED) cell.append(phraseText(i), make("span", { class: "percent" }, percent(tall(i))));
      return cell;
    }));
    markActive();
  }

  function drawCrumbs() {
    const path = [];
    for (let i = zoom; i >= 0; i = data.parent[i]) path.unshift(i);
    crumbs.replaceChildren(make("button", { type: "button", onclick: () => zoomTo(-1) }, "All"),
      ...path.map((i) => make("button", { type: "button", onclick: () => zoomTo(i) }, phraseText(i))));
  }

  function drawDetails(i) {
    if (i < 0) return details.replaceChildren();
    const step = data.p[i] / probability(data.parent[i]);
    const figures = [`${percent(data.p[i])} of all answers begin so`];
    if (data.parent[i] >= 0) figures.push(`${percent(step)} of those that came to “${data.text[data.parent[i]].trim()}”`);
    if (data.ended[i]) figures.push(`■ ends here: ${percent(data.ended[i])}`);
    if (data.lift) figures.push(`lift ${data.lift[i].toFixed(1)} nats`);
    if (data.activation && data.activation[i] !== null) figures.push(`fires: ${data.activation[i]}`);
    if (data.shared && data.shared[i]) figures.push("= in the other tree too");
    return details.replaceChildren(make("q", { dir: "auto" }, definition(i)), make("span", {}, figures.join(" · ")));
  }

  // ── Doing ───────────────────────────────────────────────────────────────────────────────────────────────────────
  function markActive() {
    for (const element of list.querySelectorAll(".active")) element.classList.remove("active");
    const element = active >= 0 && list.querySelector(`#${prefix}-${active}`);
    if (element) {
      element.classList.add("active");
      body.setAttribute("aria-activedescendant", element.id);
    } else body.removeAttribute("aria-activedescendant");
  }

  function setActive(i, scroll = false) {
    active = i;
    if (scroll && mode === "tree") {
      const top = rows.findIndex((row) => row.i === i) * ROW;
      if (top < body.scrollTop) body.scrollTop = top;
      else if (top + ROW > body.scrollTop + body.clientHeight) body.scrollTop = top + ROW - body.clientHeight;
      drawRows();
    } else markActive();
    if (scroll && mode === "icicle") list.querySelector(".active")?.scrollIntoView({ block: "nearest", inline: "nearest" });
    drawDetails(i);
  }

  function toggle(i) {
    if (!children[i].length) return;
    if (!open.delete(i)) open.add(i);
    draw();
  }

  function setOpen(phrases) {
    open = phrases;
    while (active >= 0 && data.parent[active] >= 0 && !open.has(data.parent[active])) active = data.parent[active];
    draw();
  }

  function setMode(name) {
    mode = name;
    body.scrollTop = body.scrollLeft = 0;
    if (mode === "icicle") zoomTo(zoom);
    else { reveal(active); draw(); setActive(active, true); }
  }

  function zoomTo(i) {
    zoom = i;
    if (i >= 0 && !isWithin(active, i)) active = i;
    body.scrollLeft = 0;
    draw();
  }

  function isWithin(i, top) {
    while (i >= 0 && i !== top) i = data.parent[i];
    return i === top;
  }

  function setShare(value) {
    keepShare(value / 100);
    shareOut.textContent = `${value}%`;
    while (active >= 0 && !within[active]) active = data.parent[active];
    if (active < 0 && tops.length) active = tops[0];
    if (zoom >= 0 && !within[zoom]) zoom = -1;
    draw();
  }

  function reveal(i) {
    for (let up = i; up >= 0; up = data.parent[up]) {
      if (!within[up]) revealed.add(data.parent[up]);
      if (up !== i) open.add(up);
    }
  }

  function find(text) {
    query = text.toLowerCase();
    matches = new Set();
    for (let i = 0; query && i < count; i++) {
      // It belongs to the phrase in which it ends; it may begin in those before.
      const start = Math.max(0, before[i].length - query.length + 1);
      if ((before[i] + data.text[i]).toLowerCase().indexOf(query, start) >= 0) matches.add(i);
    }
    found.textContent = query ? `${matches.size.toLocaleString("en")} of ${count.toLocaleString("en")} phrases` : "";
    for (const i of matches) reveal(i);
    if (matches.size && mode === "icicle" && zoom >= 0) zoom = -1;
    draw();
    if (matches.size) setActive(Math.min(...matches), true);
  }

  function onSearchKey(event) {
    if (event.key === "Escape") { search.value = ""; find(""); }
    if (event.key !== "Enter" || !matches.size) return;
    const sorted = [...matches].sort((a, b) => (event.shiftKey ? b - a : a - b));
    setActive(sorted.find((i) => (event.shiftKey ? i < active : i > active)) ?? sorted[0], true);
    event.preventDefault();
  }

  function onKey(event) {
    if (!count || event.ctrlKey || event.metaKey || event.altKey) return;
    const steps = mode === "tree" ? treeKeys : icicleKeys;
    if (!steps[event.key]) return;
    event.preventDefault();
    steps[event.key]();
  }

  const phraseRows = () => rows.filter((row) => row.i !== undefined).map((row) => row.i);
  const moved = (by) => {
    const listed = phraseRows();
    const next = listed[Math.min(Math.max(listed.indexOf(active) + by, 0), listed.length - 1)];
    setActive(next, true);
  };
  const page = () => Math.max(1, Math.floor(body.clientHeight / ROW) - 1);
  const treeKeys = {
    ArrowDown: () => moved(1), ArrowUp: () => moved(-1), PageDown: () => moved(page()), PageUp: () => moved(-page()),
    Home: () => setActive(phraseRows()[0], true), End: () => setActive(phraseRows().at(-1), true),
    ArrowRight: () => (children[active].length && !open.has(active) ? toggle(active) : children[active].length && moved(1)),
    ArrowLeft: () => (open.has(active) && children[active].length ? toggle(active)
      : data.parent[active] >= 0 && setActive(data.parent[active], true)),
    Enter: () => toggle(active), " ": () => toggle(active),
  };
  const beside = (by) => {
    const near = shownChildren(data.parent[active]).filter(isDrawn);
    const next = near[near.indexOf(active) + by];
    if (next !== undefined) setActive(next, true);
  };
  const isDrawn = (i) => list.querySelector(`#${prefix}-${i}`) !== null;
  const zoomOut = () => zoom >= 0 && zoomTo(data.parent[zoom]);
  const icicleKeys = {
    ArrowDown: () => active !== zoom && beside(1), ArrowUp: () => active !== zoom && beside(-1),
    ArrowRight: () => { const next = shownChildren(active).find(isDrawn); if (next !== undefined) setActive(next, true); },
    ArrowLeft: () => active !== zoom && data.parent[active] >= 0 && setActive(data.parent[active], true),
    Home: () => zoomTo(-1), Enter: () => zoomTo(active), " ": () => zoomTo(active), Escape: zoomOut, Backspace: zoomOut,
  };

  body.addEventListener("mouseleave", () => drawDetails(active));
  const resized = new ResizeObserver(() => (root.isConnected && list.isConnected ? draw() : resized.disconnect()));
  openLikeliest();
  weigh();
  draw();
  resized.observe(body);
}

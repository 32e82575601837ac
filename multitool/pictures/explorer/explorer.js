/* A definition tree to explore: as a picture, as an outline, or as an icicle.

   exploreTree(root, data) draws `data`, as explore.payload gives it, into the element `root`. Everything in `data` is
   text of unknown origin: it is only ever set as text. The files before this one hold the tree (phrases.js) and the
   views, each of which draws the same state. */

function exploreTree(root, data) {
  const OPEN_AT_FIRST = 30; // lines
  const WIDE = 450; // px; narrower, the picture would be scrolled sideways more than it is read
  const MOST_LIFT = 6; // nats, from which on a phrase is wholly blue
  const tree = phrasesOf(data);
  const { count, tops, endings } = tree;

  // What is shown: `open` phrases with their continuations, of those only what is `within` the share of probability or
  // below a `revealed` phrase. `mass` is the probability of the shown endings at each phrase and below.
  const state = {
    active: tops.length ? tops[0] : -1, open: new Set(), matches: new Set(), revealed: new Set(),
    within: new Array(count).fill(true), mass: new Float64Array(count), zoom: -1, filled: true,
  };
  let mode = "tree", nodesWithin = tree.total, endingsWithin = endings.length;

  function openLikeliest() {
    const closed = [...tops];
    let lines = Math.min(tops.length, OPEN_AT_FIRST / 2); // however many there are, some are read whole
    while (closed.length && lines < OPEN_AT_FIRST) {
      closed.sort((a, b) => tree.p[a] - tree.p[b]);
      const i = closed.pop();
      if (!tree.isFolded(i)) continue;
      state.open.add(i);
      lines += tree.children(i).length - 1;
      closed.push(...tree.children(i));
    }
  }

  function keepShare(share) {
    state.within = new Array(count).fill(share >= 1);
    endingsWithin = 0;
    let sum = 0;
    for (const [p, i] of endings) {
      if (share < 1 && sum >= share * tree.held) break;
      sum += p;
      endingsWithin++;
      for (let up = i; up >= 0 && !state.within[up]; up = tree.parent[up]) state.within[up] = true;
    }
    nodesWithin = state.within.reduce((sum, is, i) => sum + (is ? tree.nodes[i] : 0), 0);
    state.revealed.clear();
    state.mass = new Float64Array(count);
    for (const [p, i] of endings.slice(0, endingsWithin)) state.mass[i] += p;
    for (let i = count - 1; i >= 0; i--) if (tree.parent[i] >= 0) state.mass[tree.parent[i]] += state.mass[i];
  }

  // ── What visitors do ────────────────────────────────────────────────────────────────────────────────────────────
  const act = { split, probabilityOf, setActive, toggle, zoomTo, revealBelow };

  /* The continuations of a phrase: those that are shown, and those that are left out. */
  function split(i) {
    const isShown = (child) => state.within[child] || state.revealed.has(i);
    return { shown: tree.children(i).filter(isShown), left: tree.children(i).filter((child) => !isShown(child)) };
  }

  function probabilityOf(phrases) {
    return phrases.reduce((sum, i) => sum + tree.p[i], 0);
  }

  function setActive(i, scroll = false) {
    state.active = i;
    if (scroll) views[mode].scrollTo(i);
    markActive();
    point(i);
  }

  /* Tells of a phrase: the active one, or what the mouse is on. */
  function point(i) {
    drawDetails(i);
    if (mode === "tree") views.tree.markPath(i);
  }

  function toggle(i) {
    if (!tree.isFolded(i)) return;
    if (!state.open.delete(i)) state.open.add(i);
    draw();
    setActive(i, true);
  }

  function setOpen(phrases) {
    state.open = phrases;
    while (tree.parent[state.active] >= 0 && !phrases.has(tree.parent[state.active])) {
      state.active = tree.parent[state.active];
    }
    draw();
  }

  function setMode(name) {
    root.dataset.chosen = mode = name;
    body.scrollTop = body.scrollLeft = 0;
    if (mode === "icicle") return zoomTo(state.zoom);
    reveal(state.active);
    draw();
    setActive(state.active, true);
  }

  function zoomTo(i) {
    state.zoom = i;
    if (i >= 0 && !tree.isWithin(state.active, i)) state.active = i;
    body.scrollLeft = 0;
    draw();
  }

  function setShare(value) {
    keepShare(value / 100);
    shareOut.textContent = `${value}%`;
    while (state.active >= 0 && !state.within[state.active]) state.active = tree.parent[state.active];
    if (state.active < 0 && tops.length) state.active = tops[0];
    if (state.zoom >= 0 && !state.within[state.zoom]) state.zoom = -1;
    draw();
  }

  function revealBelow(i) {
    state.revealed.add(i);
    draw();
  }

  /* Opens the way to a phrase. */
  function reveal(i) {
    for (let up = i; up >= 0; up = tree.parent[up]) {
      if (!state.within[up]) state.revealed.add(tree.parent[up]);
      if (up !== i) state.open.add(up);
    }
  }

  function find(text) {
    const query = text.toLowerCase();
    state.matches = new Set();
    for (let i = 0; query && i < count; i++) {
      // It belongs to the phrase in which it ends; it may begin in those before.
      const start = Math.max(0, tree.before[i].length - query.length + 1);
      if ((tree.before[i] + tree.text[i]).toLowerCase().indexOf(query, start) >= 0) state.matches.add(i);
    }
    found.textContent = query ? `${counted(state.matches.size)} of ${counted(count)} phrases` : "";
    for (const i of state.matches) reveal(i);
    if (state.matches.size) state.zoom = -1;
    draw();
    if (state.matches.size) setActive(Math.min(...state.matches), true);
  }

  function onSearchKey(event) {
    if (event.key === "Escape") { search.value = ""; find(""); }
    if (event.key !== "Enter" || !state.matches.size) return;
    const sorted = [...state.matches].sort((a, b) => (event.shiftKey ? b - a : a - b));
    const next = sorted.find((i) => (event.shiftKey ? i < state.active : i > state.active));
    setActive(next ?? sorted[0], true);
    event.preventDefault();
  }

  function onKey(event) {
    if (!count || event.ctrlKey || event.metaKey || event.altKey) return;
    const step = views[mode].keys[event.key];
    if (!step) return;
    event.preventDefault();
    step();
  }

  function fillScreen() {
    if (document.fullscreenElement) document.exitFullscreen();
    else root.requestFullscreen();
  }

  // ── The parts that views are made of ────────────────────────────────────────────────────────────────────────────
  const prefix = `x${Math.random().toString(36).slice(2, 8)}`; // ids must differ between two views of one page

  const parts = {
    /* What every element that stands for a phrase is and does. */
    item(i, kind) {
      const { shown } = split(tree.parent[i]);
      return {
        class: [kind, state.matches.has(i) && "match", tree.shared && tree.shared[i] && "shared",
          tree.lift && "lifted"].filter(Boolean).join(" "),
        role: "treeitem", id: `${prefix}-${i}`, "aria-level": tree.level[i] + 1, "aria-setsize": shown.length,
        "aria-posinset": shown.indexOf(i) + 1,
        "aria-expanded": tree.isFolded(i) ? String(mode === "icicle" || state.open.has(i)) : null,
        "aria-label": `${tree.label[i]}, ${percent(tree.p[i])}${tree.ended[i] ? ", ends" : ""}`,
        onclick: () => {
          state.active = i;
          if (mode === "icicle") zoomTo(i === state.zoom ? tree.parent[i] : i);
          else if (tree.isFolded(i)) toggle(i);
          else setActive(i);
        },
        onmouseenter: () => point(i),
      };
    },
    /* An element that only tells of a phrase. */
    mark: (i, classes) => ({
      class: classes, role: "none", onclick: () => setActive(i), onmouseenter: () => point(i),
    }),
    words(i) {
      const text = make("span", { class: "words", dir: "auto" }, tree.label[i]);
      if (tree.lift) text.style.setProperty("--lift", clamped(tree.lift[i] / MOST_LIFT, 0, 1).toFixed(2));
      return text;
    },
    end: (i) => make("span", { class: "end" }, `■ ${percent(tree.defined[i])}`),
    preview: (i) => make("span", { class: "preview", dir: "auto" }, tree.preview(i).trim()),
    hidden: (i) => make("span", { class: "more" }, `+${counted(tree.below[i])}`),
    left: (phrases) => `… ${counted(phrases.length)} more, ${percent(probabilityOf(phrases))}`,
    elementOf: (i) => list.querySelector(`#${prefix}-${i}`),
  };

  // ── The frame ───────────────────────────────────────────────────────────────────────────────────────────────────
  root.replaceChildren();
  root.classList.add("explorer");
  const button = (text, onclick, more = {}) => make("button", { type: "button", onclick, ...more }, text);
  const modes = {
    tree: button("Tree", () => setMode("tree")), outline: button("Outline", () => setMode("outline")),
    icicle: button("Icicle", () => setMode("icicle")),
  };
  const search = make("input", { type: "search", placeholder: "Search", "aria-label": "Search the definitions",
    spellcheck: "false", oninput: () => find(search.value), onkeydown: onSearchKey });
  const found = make("span", { class: "found", role: "status" });
  const share = make("input", { type: "range", min: 10, max: 100, value: 100, "aria-label": "Share of the probability",
    oninput: () => setShare(Number(share.value)) });
  const shareOut = make("output", {}, "100%");
  const told = make("span", { class: "told" });
  const heights = make("select", { "aria-label": "Heights of the icicle", onchange: () => {
    state.filled = heights.value === "tree";
    draw();
  } }, make("option", { value: "tree" }, "Height: probability, of what the tree holds"),
    make("option", { value: "all" }, "Height: probability, of all answers"));
  const crumbs = make("nav", { class: "crumbs", "aria-label": "Zoomed into" });
  const list = make("div", { class: "list" });
  const body = make("div", { class: "body", role: "tree", tabindex: 0, "aria-label": "Definition tree", onkeydown: onKey,
    onscroll: () => { views[mode].scrolled(); markActive(); }, onmouseleave: () => point(state.active) }, list);
  const details = make("div", { class: "details" });
  const openAll = button("Open all", () => setOpen(new Set(tree.parent.keys())));
  const closeAll = button("Close all", () => setOpen(new Set()));
  const whole = button("⛶", fillScreen, { class: "whole", "aria-label": "Fill the screen", title: "Fill the screen" });
  whole.hidden = !document.fullscreenEnabled;
  root.append(
    make("div", { class: "bar" },
      make("span", { class: "modes", role: "group", "aria-label": "View" }, ...Object.values(modes)),
      make("span", { class: "finder" }, search, found),
      make("span", { class: "opening" }, openAll, closeAll, heights, whole)),
    make("div", { class: "bar" },
      make("label", { class: "share" }, "Show ", shareOut, " of the tree’s probability", share), told),
    details, crumbs, body);
  const context = { tree, state, body, list, act, parts };
  const views = { tree: branchesView(context), outline: outlineView(context), icicle: icicleView(context) };
  // Icicles fold nothing away.
  const folded = make("span", {}, make("i", { class: "more" }, "+9"), ": nine more phrases, the likeliest ones in grey");
  root.append(legend());

  function legend() {
    const line = make("p", { class: "legend" },
      make("span", {}, make("i", { class: "end" }, "■"), " a definition ends; its probability in all spellings"), folded);
    if (tree.lift) line.append(make("span", { class: "lifts" }, make("i"), ` grey to blue: lift from 0 to ${MOST_LIFT} nats and more`));
    if (tree.shared) line.append(make("span", {}, make("i", { class: "same" }, "="), " the other tree has it too"));
    return line;
  }

  // ── Drawing ─────────────────────────────────────────────────────────────────────────────────────────────────────
  function draw() {
    mode = root.dataset.chosen || (body.clientWidth >= WIDE ? "tree" : "outline");
    for (const [name, element] of Object.entries(modes)) element.setAttribute("aria-pressed", mode === name);
    openAll.hidden = closeAll.hidden = folded.hidden = mode === "icicle";
    heights.hidden = mode !== "icicle";
    const partly = endingsWithin < endings.length;
    told.textContent = !count ? "" : `${partly ? `${counted(nodesWithin)} of ` : ""}${counted(tree.total)} nodes, ` +
      `${partly ? `${counted(endingsWithin)} of ` : ""}${counted(endings.length)} endings`;
    root.dataset.mode = mode;
    crumbs.hidden = mode !== "icicle" || state.zoom < 0;
    crumbs.replaceChildren(button("All", () => zoomTo(-1)),
      ...tree.path(state.zoom).map((i) => button(parts.words(i), () => zoomTo(i))));
    if (count) views[mode].draw();
    else list.replaceChildren(make("p", { class: "nothing" }, "No continuation reaches the cutoff. Lower it."));
    markActive();
    drawDetails(state.active);
  }

  function markActive() {
    for (const element of list.querySelectorAll(".active")) element.classList.remove("active");
    const element = state.active >= 0 && parts.elementOf(state.active);
    if (element) {
      element.classList.add("active");
      body.setAttribute("aria-activedescendant", element.id);
    } else body.removeAttribute("aria-activedescendant");
  }

  // Of a file from elsewhere the activation can be any number.
  function fires(activation) {
    if (activation <= 0) return "does not fire";
    if (tree.maximum) return `fires at ${percent(activation / tree.maximum)} of its maximum`;
    return `fires: ${activation} (its maximum is not known)`;
  }

  function drawDetails(i) {
    if (i < 0) return details.replaceChildren();
    const up = tree.parent[i];
    const figures = [`${percent(tree.p[i])} of all answers begin this way`];
    if (up >= 0) figures.push(`${percent(tree.p[i] / tree.p[up])} of those that came to “${tree.label[up]}”`);
    if (tree.ended[i]) {
      const [whole, here] = [percent(tree.defined[i]), percent(tree.ended[i])];
      figures.push(`■ this definition: ${whole}${whole === here ? "" : `, of which ${here} spelled so`}`);
    }
    if (tree.lift) figures.push(`lift ${tree.lift[i].toFixed(1)} nats`);
    if (tree.activation && tree.activation[i] !== null) figures.push(fires(tree.activation[i]));
    if (tree.shared && tree.shared[i]) figures.push("= in the other tree too");
    return details.replaceChildren(make("q", { dir: "auto" }, tree.definition(i)), make("span", {}, figures.join(" · ")));
  }

  const resized = new ResizeObserver(() => (root.isConnected && list.isConnected ? draw() : resized.disconnect()));
  openLikeliest();
  keepShare(1);
  draw();
  resized.observe(body);
}

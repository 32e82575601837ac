/* The tree that the columns of `data` hold (explore.payload tells what they are), phrase by phrase: "i" is always a
   phrase's number, -1 the prompt. */

function phrasesOf(data) {
  const PREVIEWED = 60; // characters
  const count = data.parent.length;
  const following = Array.from({ length: count }, () => []);
  const tops = [];
  const level = new Array(count), before = new Array(count), below = new Array(count).fill(0);
  data.parent.forEach((up, i) => {
    (up < 0 ? tops : following[up]).push(i);
    level[i] = up < 0 ? 0 : level[up] + 1;
    before[i] = up < 0 ? "" : before[up] + data.text[up];
  });
  for (let i = count - 1; i >= 0; i--) if (data.parent[i] >= 0) below[data.parent[i]] += 1 + below[i];
  const blank = new Set(data.blank);
  const label = data.text.map((text, i) => (blank.has(i) ? "␣" : "") + text.trim() || "␣");
  const children = (i) => (i < 0 ? tops : following[i]);

  // Where answers end in the tree: definitions, and leaves that go on beyond it. By falling probability.
  const endings = [];
  for (let i = 0; i < count; i++) {
    if (data.ended[i] > 0) endings.push([data.ended[i], i]);
    else if (!following[i].length) endings.push([data.p[i], i]);
  }
  endings.sort((a, b) => b[0] - a[0]);

  function isWithin(i, top) {
    while (i >= 0 && i !== top) i = data.parent[i];
    return i === top;
  }

  /* How the likeliest answer goes on behind phrase i. */
  function preview(i) {
    let text = "", at = i;
    while (following[at].length && text.length < PREVIEWED) {
      const next = following[at].reduce((best, child) => (data.p[child] > data.p[best] ? child : best));
      if (at !== i && data.ended[at] >= data.p[next]) break;
      at = next;
      text += data.text[at];
    }
    return text.length < PREVIEWED && data.ended[at] ? text : `${text.slice(0, PREVIEWED)} …`;
  }

  return {
    ...data, count, tops, children, label, level, before, below, endings, isWithin, preview,
    most: Math.max(...tops.map((i) => data.p[i]), 0) || 1,
    held: endings.reduce((sum, [p]) => sum + p, 0),
    path: (i) => { const path = []; for (; i >= 0; i = data.parent[i]) path.unshift(i); return path; },
    definition: (i) => (before[i] + data.text[i]).trim(),
    isFolded: (i) => following[i].length > 0,
  };
}

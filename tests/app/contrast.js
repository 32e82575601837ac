// The texts of the page that are harder to read than WCAG's level AA allows: each with its ratio of luminances.
() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const parts = colour => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = "#000";
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    const [red, green, blue, alpha] = canvas.getImageData(0, 0, 1, 1).data;
    return [red, green, blue, alpha / 255];
  };
  const over = (above, below) => [0, 1, 2].map(i => above[i] * above[3] + below[i] * (1 - above[3]));
  const luminance = colour => {
    const [red, green, blue] = colour.map(value => {
      const share = value / 255;
      return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const lineage = element => {
    const found = [];
    for (let at = element; at; at = at.parentElement) found.push(at);
    return found.reverse();
  };
  const told = [];
  const measure = (element, colour, text, style) => {
    let ground = [255, 255, 255], opacity = 1;
    for (const at of lineage(element)) {
      const of = getComputedStyle(at);
      ground = over(parts(of.backgroundColor), ground);
      opacity *= Number(of.opacity);
    }
    const ink = parts(colour);
    const [light, dark] = [luminance(over([...ink.slice(0, 3), ink[3] * opacity], ground)), luminance(ground)]
      .sort((a, b) => b - a);
    const size = parseFloat(style.fontSize), bold = Number(style.fontWeight) >= 700;
    const ratio = (light + 0.05) / (dark + 0.05);
    if (ratio < (size >= 24 || (bold && size >= 18.66) ? 3 : 4.5)) {
      const named = element.closest("[id]")?.id ?? "";
      told.push(`${ratio.toFixed(2)} #${named} ${element.tagName.toLowerCase()}.${element.className}: ${text.slice(0, 40)}`);
    }
  };
  const seen = element => {
    const box = element.getBoundingClientRect();
    return box.width > 1 && box.height > 1 && element.checkVisibility({ visibilityProperty: true, opacityProperty: true })
      && !element.closest(".unseen, footer, svg");
  };
  for (const element of document.querySelectorAll("body *")) {
    const style = getComputedStyle(element);
    const off = element.closest("[disabled], [aria-disabled=true]") && !element.closest(".status");
    if (!seen(element) || off) continue;  // WCAG asks nothing of what is switched off
    const own = [...element.childNodes].filter(node => node.nodeType === Node.TEXT_NODE).map(node => node.data).join("").trim();
    if (own) measure(element, style.color, own, style);
    if (element.matches("input:not([type=range], [type=checkbox], [type=radio]), textarea")) {
      const empty = !element.value;
      const of = empty ? getComputedStyle(element, "::placeholder") : style;
      const text = element.value || element.placeholder;
      if (text) measure(element, empty ? of.color : style.webkitTextFillColor, text, style);
    }
  }
  return [...new Set(told)];
}

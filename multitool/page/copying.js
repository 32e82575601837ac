// Runs when Gradio has put the component on the page, behind clipboard.js; `element`, `props`, `watch` are Gradio's.
const place = element.querySelector(".copying");
const SOME = [10, 20, 50]; // rows that can be copied in place of all

const text = (format, n) => format.head + format.rows.slice(0, n).join(format.between) + format.foot;

const make = (tag, properties, ...children) => {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
};

const show = () => {
  const formats = props.value ? JSON.parse(props.value) : {};
  const names = Object.keys(formats);
  const rows = names.length ? formats[names[0]].rows.length : 0;
  place.setAttribute("aria-label", `Copy ${props.what}`);
  if (!names.length) {
    place.replaceChildren();
    return;
  }
  const told = make("span", { className: "told", role: "status" });
  const choice = make("select", { ariaLabel: "How many rows are copied" });
  for (const n of SOME.filter((n) => n < rows)) choice.append(make("option", { value: n }, `the first ${n}`));
  choice.append(make("option", { value: rows, selected: true }, `all ${rows}`));
  const buttons = names.map((name) => {
    const button = make("button", { type: "button", title: `Copy ${props.what} as ${name}` }, name);
    copies(button, told, () => text(formats[name], Number(choice.value)), ` as ${name}`);
    return button;
  });
  place.replaceChildren(make("span", {}, "Copy"), ...(rows > SOME[0] ? [choice] : []),
    ...(names.length > 1 ? [make("span", {}, "as")] : []), ...buttons, told);
};
watch("value", show);
show();

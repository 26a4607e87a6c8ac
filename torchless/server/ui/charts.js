// Pictures of figures as SVG: lines over time, bars, and a filled share. Each says in words what it shows.

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 320;
const HEIGHT = 110;

function svg(name, attributes = {}, children = []) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

function picture(description, children) {
  const title = svg("title");
  title.textContent = description;
  return svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": description }, [title, ...children]);
}

function label(x, y, text, anchor = "start") {
  const node = svg("text", { x, y, "text-anchor": anchor, class: "tick" });
  node.textContent = text;
  return node;
}

/** A round number at or above a value, for the top of an axis. */
export function roundUp(value) {
  if (value <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value);
}

/** A number with as many digits as it needs. */
export function short(value) {
  if (value === null || !Number.isFinite(value)) return "–";
  if (value >= 1e6) return `${(value / 1e6).toFixed(1)}M`;
  if (value >= 1e4) return `${(value / 1e3).toFixed(value >= 1e5 ? 0 : 1)}k`;
  if (value >= 100 || Number.isInteger(value)) return value.toFixed(0);
  return value >= 10 ? value.toFixed(1) : value.toFixed(2);
}

/**
 * Lines over time.
 *
 * `series` is [{name, values}] with equally many values, the newest last; null leaves a gap.
 */
export function lines(description, series, numPlaces, unit = "") {
  const most = roundUp(Math.max(0, ...series.flatMap(({ values }) => values.map((value) => value ?? 0))));
  const x = (index, length) => WIDTH - ((length - 1 - index) * WIDTH) / (numPlaces - 1);
  const y = (value) => HEIGHT - 4 - (value / most) * (HEIGHT - 20);
  const children = [svg("line", { x1: 0, x2: WIDTH, y1: y(0), y2: y(0), class: "axis" }), svg("line", { x1: 0, x2: WIDTH, y1: y(most), y2: y(most), class: "grid" }), label(0, 11, `${short(most)} ${unit}`)];
  series.forEach(({ values }, number) => {
    let path = "";
    values.forEach((value, index) => {
      if (value === null) return;
      const begins = index === 0 || values[index - 1] === null;
      const isAlone = begins && (values[index + 1] ?? null) === null;
      path += `${begins ? "M" : "L"}${x(index, values.length).toFixed(1)} ${y(value).toFixed(1)}${isAlone ? "h0" : ""}`;
    });
    children.push(svg("path", { d: path, class: `line series-${number}` }));
  });
  return picture(description, children);
}

/** Bars: [{name, value}]. */
export function bars(description, items) {
  const most = Math.max(1, ...items.map(({ value }) => value));
  const room = WIDTH / Math.max(1, items.length);
  const children = items.flatMap(({ name, value }, index) => {
    const height = (value / most) * (HEIGHT - 32);
    return [
      svg("rect", { x: index * room + 2, y: HEIGHT - 18 - height, width: Math.max(1, room - 4), height, class: "bar" }),
      ...(value ? [label(index * room + room / 2, HEIGHT - 21 - height, short(value), "middle")] : []),
      label(index * room + room / 2, HEIGHT - 5, name, "middle"),
    ];
  });
  return picture(description, [svg("line", { x1: 0, x2: WIDTH, y1: HEIGHT - 18, y2: HEIGHT - 18, class: "axis" }), ...children]);
}

/** Rows that fill: [{label, most, parts: [{kind, value}]}], widths relative to the largest `most` of all. */
export function rows(description, items) {
  const most = Math.max(1, ...items.map((item) => item.most));
  const height = Math.min(16, HEIGHT / Math.max(1, items.length));
  const children = items.flatMap(({ parts, ...item }, index) => {
    let at = 0;
    const y = index * height + 1;
    const made = [svg("rect", { x: 0, y, width: (item.most / most) * WIDTH, height: height - 2, class: "empty" })];
    for (const { kind, value } of parts) {
      const width = (value / most) * WIDTH;
      if (width > 0) made.push(svg("rect", { x: at, y, width, height: height - 2, class: `fill ${kind}` }));
      at += width;
    }
    if (height > 11) made.push(label(WIDTH - 2, y + height - 5, item.label, "end"));
    return made;
  });
  return picture(description, children);
}

/** Parts of a whole, filled from the left: [{name, share}], shares from 0 to 1. */
export function shares(description, parts) {
  let at = 0;
  const children = [svg("rect", { x: 0, y: 34, width: WIDTH, height: 30, rx: 6, class: "empty" })];
  parts.forEach(({ share }, number) => {
    children.push(svg("rect", { x: at * WIDTH, y: 34, width: Math.max(0, share) * WIDTH, height: 30, class: `part series-${number}` }));
    at += share;
  });
  return picture(description, children);
}

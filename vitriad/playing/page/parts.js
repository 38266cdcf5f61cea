// What the page is put together from: elements, tables, and numbers as texts.

export const element = (id) => document.getElementById(id);

export function made(tag, properties, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

export function heading(name, below) {
  return made("th", { scope: "col" }, name, made("small", {}, below));
}

export async function decoded(url) {
  const picture = new Image();
  picture.src = url;
  await picture.decode();
  return picture;
}

// Rows of cells; the roles are said, since rows that are laid out as grids lose them.
export function table(className, caption, head, rows) {
  const line = (cells) => made("tr", {}, ...cells);
  const whole = made(
    "table",
    { className },
    made("caption", { className: "unseen" }, caption),
    made("thead", {}, line(head)),
    made("tbody", {}, ...rows.map(line)),
  );
  const roles = { table: whole, rowgroup: "thead, tbody", row: "tr", columnheader: "thead th", rowheader: "tbody th", cell: "td" };
  for (const [role, where] of Object.entries(roles)) {
    for (const node of typeof where === "string" ? whole.querySelectorAll(where) : [where]) node.setAttribute("role", role);
  }
  return whole;
}

export function difference(value, of) {
  if (value === null) return "";
  return `Largest difference between two backends: ${value === 0 ? "0" : value.toExponential(1)} (${of}).`;
}

export function milliseconds(value) {
  return `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`;
}

export function percent(share, digits = 1) {
  return `${(share * 100).toFixed(digits)}%`;
}

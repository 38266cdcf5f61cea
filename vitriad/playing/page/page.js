// The page of `vitriad play`: sends an image to a model and draws what comes back. The server keeps nothing, so every
// request brings the image along; a request that is no longer wanted is taken back.

import { decoded, difference, element, heading, made, milliseconds, percent, table } from "./parts.js";

const running = {}; // what is asked -> what takes it back
let models = [];
let mostBytes = 0;
let chosen = 0; // number of the model
let image = null; // the file, {blob, name}
let seen = null; // what the model made of it
let hidden = []; // whether each patch is hidden, of an autoencoder
let seed = 0;
let comparing = 0; // the timer that will ask all backends

// --- asking ----------------------------------------------------------------------------------------------------------

async function ask(what, query = "") {
  running[what]?.abort();
  const stop = new AbortController();
  running[what] = stop;
  for (let attempt = 0; ; attempt += 1) {
    const answer = await fetch(`/api/models/${chosen}/${what}${query}`, {
      method: "POST",
      headers: { "content-type": "application/octet-stream" },
      body: image.blob,
      signal: stop.signal,
    }).catch((error) => {
      throw error.name === "AbortError" ? error : new Error("The server does not answer. Is vitriad play still running?");
    });
    if (answer.status === 503 && attempt < 3) {
      await new Promise((resolve) => setTimeout(resolve, 1000));
      stop.signal.throwIfAborted();
      continue;
    }
    const found = await answer.json();
    if (!answer.ok) throw new Error(found.error.message.replace(/^the image:/, `${image.name}:`));
    return found;
  }
}

// Shows what a request made of the image, or says why it cannot be used; nothing of what was taken back.
async function attempt(work, failed = () => {}) {
  try {
    await work();
    problem("");
  } catch (error) {
    if (error.name === "AbortError") return;
    failed();
    problem(error.message);
    status("");
  }
}

function status(text) {
  element("status").textContent = text;
}

function problem(text) {
  element("problem").textContent = text;
}

// --- the image -------------------------------------------------------------------------------------------------------

async function use(file, name) {
  if (file.size > mostBytes) {
    problem(`${name}: larger than ${mostBytes / 1e6} MB.`);
    return;
  }
  try {
    image = { blob: new Blob([await file.arrayBuffer()]), name }; // as it is now: files change
  } catch {
    problem(`${name}: cannot be read. Is it a folder?`);
    return;
  }
  document.body.removeAttribute("data-empty");
  markExample(null);
  look();
}

async function look() {
  if (!image) return;
  const model = models[chosen];
  status(`Looking at ${image.name} …`);
  await attempt(async () => {
    const [found] = await Promise.all([ask("seen"), model.kind === "autoencoder" ? paint() : null]);
    seen = found;
    await showMaps();
    showClasses();
    status(`${image.name}, as ${model.name} takes it: ${model.size[1]} × ${model.size[0]} pixels, ${model.grid[0] * model.grid[1]} patches.`);
  }, clear);
}

// Shows no results, where there were some of another image or model.
function clear() {
  seen = null;
  clearTimeout(comparing);
  element("paint-table").replaceChildren();
  for (const id of ["classes", "paint", "look"]) element(id).hidden = true;
}

function listenForImages() {
  element("file").addEventListener("change", (event) => {
    const [file] = event.target.files;
    if (file) use(file, file.name);
    event.target.value = "";
  });
  document.addEventListener("paste", (event) => {
    const [file] = event.clipboardData.files;
    if (file) use(file, file.name || "the pasted image");
  });
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    document.body.classList.add("dropping");
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) document.body.classList.remove("dropping");
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("dropping");
    const [file] = event.dataTransfer.files;
    if (file) use(file, file.name);
    else problem("That was no file. Save the image first, or copy and paste it.");
  });
}

function showExamples() {
  const list = element("examples").querySelector("ul");
  element("examples").hidden = models[chosen].examples.length === 0;
  list.replaceChildren(
    ...models[chosen].examples.map(({ url, label }) => {
      const picture = made("img", { src: url, alt: `the digit ${label}`, width: 40, height: 40 });
      const button = made("button", { type: "button" }, picture);
      button.setAttribute("aria-pressed", "false");
      button.addEventListener("click", () => useExample(button, url, label));
      return made("li", {}, button);
    }),
  );
}

async function useExample(button, url, label) {
  await attempt(async () => {
    const answer = await fetch(url);
    await use(await answer.blob(), `a scan of ${label}`);
    markExample(button);
  });
}

function markExample(chosenOne) {
  for (const button of element("examples").querySelectorAll("button")) {
    button.setAttribute("aria-pressed", String(button === chosenOne));
  }
}

// --- classes ---------------------------------------------------------------------------------------------------------

function showClasses() {
  const { classes } = seen;
  element("classes").hidden = !classes;
  if (!classes) return;
  const { backends } = models[chosen];
  const head = [made("th", { scope: "col" }, made("span", { className: "unseen" }, "Class"))];
  backends.forEach((name, i) => head.push(heading(name, `${milliseconds(classes.milliseconds[i])}`)));
  const rows = classes.rows.map(({ label, scores }) => [
    made("th", { scope: "row" }, label),
    ...scores.map((score) => {
      const bar = made("span", { className: "bar" }, score < 0.0005 ? "< 0.1%" : percent(score));
      bar.style.setProperty("--share", percent(score, 2));
      return made("td", {}, bar);
    }),
  ]);
  const isWordy = classes.rows.some(({ label }) => label.length > 12); // such labels get a line of their own
  element("classes-table").replaceChildren(table(isWordy ? "bars wordy" : "bars", "Scores of the best classes in every backend", head, rows));
  element("classes-table").style.setProperty("--columns", backends.length);
  element("classes-note").textContent = difference(classes.difference, "logits");
}

// --- painting --------------------------------------------------------------------------------------------------------

async function paint(removed = "") {
  const patches = models[chosen].grid[0] * models[chosen].grid[1];
  const ratio = (element("hidden-count").value - 0.5) / patches; // between two counts, where rounding decides nothing
  const query = `?${new URLSearchParams(removed ? { removed } : { seed, ratio })}`;
  clearTimeout(comparing);
  running.compared?.abort();
  const found = await ask("painted", query);
  element("paint").hidden = false;
  element("paint").classList.toggle("small", isSmall());
  element("paint-image").src = found.pictures.image;
  element("paint-painted").src = found.pictures.painted;
  element("paint-pasted").src = found.pictures.pasted;
  hidden = found.removed.map(Boolean);
  markPatches();
  element("paint-note").textContent = `Asking every backend …\n${found.note}`;
  element("paint-table").setAttribute("aria-busy", "true");
  // Frameworks compile a program for every number of patches, which takes seconds: once the slider rests.
  comparing = setTimeout(() => attempt(async () => showLosses(await ask("compared", query), found.note)), 400);
}

function showLosses(found, note) {
  const { backends } = models[chosen];
  const rows = backends.map((name, i) => [
    made("th", { scope: "row" }, name),
    made("td", {}, milliseconds(found.milliseconds[i])),
    made("td", {}, found.losses[i].toFixed(4)),
  ]);
  const head = ["Backend", "Time", "Error"].map((text) => made("th", { scope: "col" }, text));
  element("paint-table").replaceChildren(table("plain", "Time and mean squared error of every backend", head, rows));
  element("paint-table").removeAttribute("aria-busy");
  element("paint-note").textContent = `${difference(found.difference, "pixel values")}
Error: mean squared, of the hidden patches. ${note}`.trim();
}

function makePatches() {
  const [rows, columns] = models[chosen].grid;
  const cell = (row, column) => {
    const patch = made("div", { tabIndex: row + column ? -1 : 0 });
    patch.setAttribute("role", "gridcell");
    patch.setAttribute("aria-label", `row ${row + 1}, column ${column + 1}`);
    return patch;
  };
  const line = (_, row) => {
    const whole = made("div", {}, ...Array.from({ length: columns }, (__, column) => cell(row, column)));
    whole.setAttribute("role", "row");
    return whole;
  };
  element("patches").replaceChildren(...Array.from({ length: rows }, line));
  const count = element("hidden-count");
  count.max = rows * columns - 1;
  count.value = rows * columns - Math.floor(rows * columns * (1 - models[chosen].mask_ratio));
  hidden = Array(rows * columns).fill(false);
  markPatches(Number(count.value));
}

function cells() {
  return [...element("patches").querySelectorAll("[role=gridcell]")];
}

function markPatches(count = hidden.filter(Boolean).length) {
  cells().forEach((patch, i) => patch.setAttribute("aria-selected", String(hidden[i])));
  element("hidden-count").value = count;
  const said = `${count} of ${hidden.length} (${percent(count / hidden.length, 0)})`;
  element("hidden-said").value = said;
  element("hidden-count").setAttribute("aria-valuetext", said);
}

function toggle(i) {
  const changed = hidden.with(i, !hidden[i]);
  const count = changed.filter(Boolean).length;
  if (count === 0 || count === hidden.length) {
    problem(count ? "One patch has to stay visible." : "One patch has to stay hidden.");
    return;
  }
  hidden = changed;
  markPatches();
  if (image) attempt(() => paint(hidden.map(Number).join("")));
}

function listenForPatches() {
  const grid = element("patches");
  const focus = (i) => {
    cells().forEach((patch, number) => (patch.tabIndex = number === i ? 0 : -1));
    cells()[i].focus();
  };
  grid.addEventListener("click", (event) => {
    const i = cells().indexOf(event.target);
    if (i < 0) return;
    focus(i);
    toggle(i);
  });
  grid.addEventListener("keydown", (event) => {
    const [rows, columns] = models[chosen].grid;
    const i = cells().indexOf(document.activeElement);
    const [row, column] = [Math.floor(i / columns), i % columns];
    const moves = {
      ArrowUp: [row - 1, column],
      ArrowDown: [row + 1, column],
      ArrowLeft: [row, column - 1],
      ArrowRight: [row, column + 1],
      Home: [row, 0],
      End: [row, columns - 1],
    };
    const isPress = event.key === " " || event.key === "Enter";
    if (i < 0 || !(isPress || event.key in moves)) return;
    event.preventDefault();
    if (isPress) toggle(i);
    else {
      const [down, across] = moves[event.key];
      if (down >= 0 && down < rows && across >= 0 && across < columns) focus(down * columns + across);
    }
  });
  let timer = 0;
  element("hidden-count").addEventListener("input", (event) => {
    markPatches(Number(event.target.value));
    clearTimeout(timer);
    timer = setTimeout(() => image && attempt(() => paint()), 120); // while it is dragged, not for every step
  });
  element("another").addEventListener("click", () => {
    seed += 1;
    if (image) attempt(() => paint());
  });
}

// --- maps ------------------------------------------------------------------------------------------------------------

const NOTES = {
  rollout: "Rollout: how much every patch reaches the class token through all layers.",
  heads: "The attention of the class token: bright patches are those it takes most from. Every map has its own scale.",
  features: "The three directions in which the patches of this image differ most, as red, green and blue.",
  image: "The image, resized and cropped as the model takes it.",
};
let pictures = {}; // decoded: image, strip of maps, features

async function showMaps() {
  const { maps, features, picture } = seen;
  pictures = {
    image: await decoded(picture),
    strip: maps && (await decoded(maps.strip)),
    features: features && (await decoded(features)),
  };
  element("look").hidden = !(maps || features);
  if (!maps && !features) return;
  const views = { rollout: maps, heads: maps, features, image: true };
  for (const radio of document.querySelectorAll("[name=view]")) {
    radio.parentElement.hidden = !views[radio.value];
    if (!views[radio.value]) radio.checked = false;
  }
  if (!view()) document.querySelector(maps ? "[value=rollout]" : "[value=features]").checked = true;
  if (maps) {
    setRange("layer", maps.layers - 1);
    setRange("head", maps.heads);
  }
  drawMap();
}

// Keeps the place of a slider where a new image has the same range; a new one of layers starts at the last.
function setRange(id, most) {
  const slider = element(id);
  if (Number(slider.max) === most && slider.dataset.isSet) return;
  slider.max = most;
  slider.value = id === "layer" ? most : 0;
  slider.dataset.isSet = "yes";
}

function view() {
  return document.querySelector("[name=view]:checked")?.value;
}

function isSmall() {
  return Math.max(...models[chosen].size) < 128;
}

function drawMap() {
  if (!seen) return;
  const [rows, columns] = models[chosen].grid;
  const canvas = element("map");
  const [height, width] = models[chosen].size;
  const scale = 768 / Math.max(height, width);
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  const pen = canvas.getContext("2d");
  const all = [0, 0, canvas.width, canvas.height];
  const number = mapNumber();
  pen.imageSmoothingEnabled = !isSmall();
  pen.imageSmoothingQuality = "high";
  if (view() === "features") {
    pen.imageSmoothingEnabled = false;
    pen.drawImage(pictures.features, ...all);
  } else {
    pen.filter = number === null ? "none" : "grayscale(1)";
    pen.drawImage(pictures.image, ...all);
  }
  if (number !== null) {
    pen.filter = "none";
    pen.globalAlpha = 0.6;
    pen.imageSmoothingEnabled = true;
    pen.drawImage(pictures.strip, 0, number * rows, columns, rows, ...all);
  }
  sayMap(number);
}

// Where a map is in the strip: the rollout, then for every layer the mean of its heads and each head.
function mapNumber() {
  if (view() === "rollout") return 0;
  if (view() !== "heads") return null;
  return 1 + Number(element("layer").value) * (seen.maps.heads + 1) + Number(element("head").value);
}

function sayMap(number) {
  const layer = element("layer").value;
  const head = element("head").value === "0" ? "mean of all" : String(element("head").value - 1);
  const said = { layer: `${layer} (0 to ${element("layer").max})`, head };
  for (const id of ["layer", "head"]) {
    element(`${id}-said`).value = said[id];
    element(id).setAttribute("aria-valuetext", said[id]);
  }
  for (const part of document.querySelectorAll("[data-view]")) {
    part.hidden = !part.dataset.view.split(" ").includes(view());
  }
  const peak = number === null ? "" : ` Highest in row ${seen.maps.peaks[number][0] + 1}, column ${seen.maps.peaks[number][1] + 1} of ${models[chosen].grid.join(" × ")} patches.`;
  element("look-note").textContent = NOTES[view()] + peak;
  const which = { rollout: "Attention rollout", heads: `Attention, layer ${layer}, head ${head}`, features: "Features as colours", image: "The image" };
  element("map").setAttribute("aria-label", `${which[view()]}.${peak}`);
}

// --- the page --------------------------------------------------------------------------------------------------------

function choose(number) {
  for (const stop of Object.values(running)) stop.abort();
  chosen = number;
  document.body.className = models[chosen].kind;
  clear();
  showExamples();
  document.body.toggleAttribute("data-empty", !image && models[chosen].examples.length === 0);
  if (models[chosen].kind === "autoencoder") makePatches();
}

function showModels() {
  const radios = models.map(({ name }, i) => {
    const radio = made("input", { type: "radio", name: "model", value: i, checked: i === 0 });
    radio.addEventListener("change", () => {
      choose(i);
      look();
    });
    return made("label", {}, radio, made("span", {}, name));
  });
  element("models").append(...radios);
  element("models").hidden = false;
}

async function start() {
  const about = await (await fetch("/api/models")).json();
  models = about.models;
  mostBytes = about.most_bytes;
  showModels();
  listenForImages();
  listenForPatches();
  element("views").addEventListener("change", drawMap);
  for (const id of ["layer", "head"]) element(id).addEventListener("input", drawMap);
  choose(0);
  if (models[0].examples.length) element("examples").querySelectorAll("button")[6].click();
}

attempt(start);

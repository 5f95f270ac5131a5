"use strict";

// The page of `softly explain`: a few scores and a temperature; all else is worked out of them.

const data = JSON.parse(document.getElementById("data").textContent);
const LEAST_SHARE = 0.001; // to which a probability can be dragged; 0 would take a score of -∞
const MOST_SHOWN = 20;

let state = atStart();

function atStart() {
  const { classes, scores, temperature, cross_entropy } = data.explanation;
  return {
    names: [...classes],
    scores: scores.map(Number), // "Infinity" is a word in JSON
    temperature,
    truth: cross_entropy ? classes.indexOf(cross_entropy.true_class) : null,
    shown: [...data.shown],
    looked: null, // the class whose formula is shown: the one last touched, or else the chosen
  };
}

// --- softmax --------------------------------------------------------------------

function softmax(scores, temperature) {
  const greatest = scores.reduce((a, b) => Math.max(a, b));
  const shifted = scores.map((z) => (z === greatest ? 0 : (z - greatest) / temperature));
  const exponentials = shifted.map(Math.exp);
  const sum = add(exponentials);
  const probabilities = exponentials.map((e) => e / sum);
  return { greatest, shifted, exponentials, sum, probabilities, chosen: scores.indexOf(greatest) };
}

const add = (numbers) => numbers.reduce((a, b) => a + b, 0);

/** The score with which a class gets this probability, while all others stay as they are. */
function scoreFor(index, share) {
  const others = state.scores.filter((_, j) => j !== index);
  const { greatest, sum } = softmax(others, state.temperature);
  const odds = Math.log(share / (1 - share));
  const score = greatest + state.temperature * (Math.log(sum) + odds);
  return Number(score.toPrecision(6));
}

function perplexity(probabilities) {
  return Math.exp(-add(probabilities.map((p) => (p > 0 ? p * Math.log(p) : 0))));
}

// --- numbers and words, by the rules of explaining.py ------------------------------

function number(x, digits = 4) {
  const sign = x < 0 ? "−" : "";
  x = Math.abs(x);
  if (x === Infinity) return `${sign}∞`;
  if (x === 0 || (x >= 0.5 * 10 ** -digits && x < 1e6)) return sign + x.toFixed(digits);
  const [mantissa, exponent] = x.toExponential(2).split("e");
  const raised = String(Number(exponent)).replace(/./g, (c) => "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"["-0123456789".indexOf(c)]);
  return `${sign}${mantissa}×10${raised}`;
}

function percent(p) {
  if (p === 0 || p === 1) return `${100 * p}%`;
  const shown = (100 * p).toFixed(2);
  return { "0.00": "<0.01%", "100.00": ">99.99%" }[shown] ?? `${shown}%`;
}

const grouped = (n) => n.toLocaleString("en-US");
const ratio = (x) => (x < 10 ? x.toFixed(1) : grouped(Math.round(x)));

/** As many as show all of them, from `least` to 4. */
function decimals(numbers, least = 1) {
  const finite = numbers.filter(Number.isFinite);
  for (let n = least; n < 4; n++) if (finite.every((x) => Number(x.toFixed(n)) === x)) return n;
  return 4;
}

/** A score or temperature as its field has it, to be written over. */
const written = (x) => (Number.isFinite(x) ? String(Number(x.toPrecision(5))) : x > 0 ? "∞" : "-∞");

function short(name, most = 40) {
  const letters = [...name];
  const cut = letters.length <= most ? name : `${letters.slice(0, most - 1).join("")}…`;
  return cut.replace(/[\x00-\x1f\x7f-\x9f]/g, "\ufffd");
}

function say(key, facts = {}) {
  return data.texts[`explain.${key}`].replace(/\{(\w+)\}/g, (_, name) => facts[name]);
}

function verdict({ probabilities, chosen, greatest }) {
  const p = probabilities[chosen];
  const facts = { chosen: short(state.names[chosen]), p: percent(p) };
  const tied = state.scores.filter((z) => z === greatest).length;
  if (probabilities.length === 1) return say("verdict.alone", facts);
  if (tied > 1) return say("verdict.tied", { count: grouped(tied), p: facts.p });
  if (p >= 0.99) return say("verdict.certain", facts);
  if (p <= 0.5) return say("verdict.unsure", facts);
  const next = state.scores.reduce((a, z) => (z < greatest ? Math.max(a, z) : a), -Infinity);
  const second = state.scores.indexOf(next);
  facts.ratio = ratio(p / probabilities[second]);
  return say("verdict.likely", { ...facts, second: short(state.names[second]) });
}

// --- the page -------------------------------------------------------------------

const at = (id) => document.getElementById(id);

function build() {
  const extent = Math.max(5, ...state.scores.filter(Number.isFinite).map((z) => Math.ceil(Math.abs(z))));
  at("classes").replaceChildren(...state.shown.map((index) => classRow(index, extent)), ...others());
  at("truth").replaceChildren(
    new Option(say("loss.none"), ""),
    ...state.shown.map((index) => new Option("", index)),
  );
  at("truth").value = state.truth ?? "";
  at("add").disabled = state.names.length >= MOST_SHOWN;
  for (const button of document.querySelectorAll(".remove"))
    button.disabled = state.names.length === 1 || state.shown.length < state.names.length;
  update();
}

function classRow(index, extent) {
  const row = at("class").content.cloneNode(true).firstElementChild;
  row.dataset.index = index;
  const [name, slider, field, bar, remove] = [".name input", ".score", ".field", ".bar", ".remove"].map(
    (part) => row.querySelector(part),
  );
  slider.min = -extent;
  slider.max = extent;
  name.value = state.names[index];
  name.addEventListener("input", () => rename(index, name.value));
  slider.addEventListener("input", () => setScore(index, Number(slider.value)));
  field.addEventListener("change", () =>
    enter(field, (z) => z > -Infinity || state.scores.some((other, j) => j !== index && other > z), (z) =>
      setScore(index, z),
    ),
  );
  remove.addEventListener("click", () => removeClass(index));
  dragged(bar, index);
  return row;
}

/** Where very many classes came: what those not shown add up to. */
function others() {
  const count = state.names.length - state.shown.length;
  if (!count) return [];
  const row = at("class").content.cloneNode(true).firstElementChild;
  row.id = "others";
  for (const part of row.querySelectorAll("input, .remove")) part.style.visibility = "hidden";
  row.querySelector(".name").textContent = say("others", { count: grouped(count) });
  const bar = row.querySelector(".bar");
  for (const name of ["role", "tabindex", "aria-valuemin", "aria-valuemax"]) bar.removeAttribute(name);
  bar.setAttribute("aria-disabled", "true");
  return [row];
}

/** Everything that is shown, anew. */
function update() {
  const found = softmax(state.scores, state.temperature);
  for (const row of document.querySelectorAll("li[data-index]")) updateRow(row, found);
  updateOthers(found);
  updateSum(found);
  updateTemperature();
  const sentence = verdict(found);
  if (at("verdict").textContent !== sentence) at("verdict").textContent = sentence; // said once
  at("perplexity").textContent = say("perplexity", { perplexity: number(perplexity(found.probabilities), 2) });
  updateFormula(found);
  updateSigmoid(found);
  updateLoss(found);
}

function updateRow(row, { exponentials, probabilities, chosen }) {
  const index = Number(row.dataset.index);
  const [name, score, p] = [state.names[index], state.scores[index], probabilities[index]];
  const part = (selector) => row.querySelector(selector);
  row.classList.toggle("chosen", index === chosen);
  part(".name input").title = name;
  label(part(".name input"), "name.of", { number: index + 1 });
  label(part(".score"), "score.of", { name });
  label(part(".field"), "field.of", { name });
  label(part(".bar"), "probability.of", { name });
  label(part(".remove"), "remove", { name });
  part(".remove").title = part(".remove").ariaLabel;
  const slider = part(".score");
  if (Number.isFinite(score) && Math.abs(score) > slider.max) widen(Math.ceil(Math.abs(score)));
  slider.value = Math.max(slider.min, Math.min(slider.max, score));
  slider.ariaValueText = written(score);
  stretch(slider, 0, Number(slider.value));
  show(part(".field"), score);
  part(".exp").textContent = number(exponentials[index]);
  part(".percent").textContent = percent(p);
  part(".bar").ariaValueNow = (100 * p).toFixed(2);
  part(".bar").ariaValueText = percent(p);
  part(".bar").ariaDisabled = String(!canDrag(index));
  part(".fill").style.setProperty("--share", p);
}

function updateOthers({ exponentials, probabilities }) {
  if (!at("others")) return;
  const hidden = (_, index) => !state.shown.includes(index);
  const p = Math.min(add(probabilities.filter(hidden)), 1);
  at("others").querySelector(".exp").textContent = number(add(exponentials.filter(hidden)));
  at("others").querySelector(".percent").textContent = percent(p);
  at("others").querySelector(".fill").style.setProperty("--share", p);
}

function updateSum({ sum, probabilities, chosen }) {
  at("total").textContent = number(sum);
  at("whole").textContent = percent(Number(add(probabilities).toFixed(9)));
  const parts = state.shown.map((index) => {
    const segment = element("span", probabilities[index] > 0.12 ? short(state.names[index], 16) : "");
    segment.classList.toggle("chosen", index === chosen);
    segment.style.setProperty("--share", probabilities[index]);
    return segment;
  });
  const rest = 1 - add(state.shown.map((index) => probabilities[index]));
  if (state.shown.length < state.names.length) {
    parts.push(element("span", ""));
    parts.at(-1).style.setProperty("--share", Math.max(rest, 0));
  }
  at("strip").replaceChildren(...parts);
}

function updateTemperature() {
  const slider = at("temperature");
  const position = Math.log2(state.temperature);
  const extent = Math.max(4, Math.ceil(Math.abs(position)), slider.max);
  slider.min = -extent;
  slider.max = extent;
  slider.value = position;
  slider.ariaValueText = written(state.temperature);
  stretch(slider, 0, position);
  show(at("temperature-field"), state.temperature);
  const power = state.temperature === 1 ? "z − max" : "(z − max) / T";
  document.querySelector(".titles .power").textContent = power;
}

function updateFormula(found) {
  const index = state.looked ?? found.chosen;
  const name = short(state.names[index], 16);
  const { exponentials, sum, probabilities, greatest } = found;
  const [score, e, p] = [state.scores[index], exponentials[index], probabilities[index]];
  const t = number(state.temperature, decimals([state.temperature], 0));
  const z = (x) => math("msub", math("mi", "z"), x);
  const power = (x) => math("msup", math("mi", "e"), math("mrow", ...x));
  const over = (x) => [math("mo", "("), x, math("mo", "−"), math("mi", "max"), math("mi", "z"), math("mo", ")"), math("mo", "/"), math("mi", "T")];
  const all = math("munder", math("mo", "∑"), math("mi", "j"));
  const lines = [
    [
      math("msub", math("mi", "p"), math("mtext", name)),
      math("mo", "="),
      math("mfrac", power(over(z(math("mtext", name)))), math("mrow", all, power(over(z(math("mi", "j")))))),
    ],
    // Infinity less infinity is no number: the limit has no such line.
    Number.isFinite(greatest) && [math("mo", "="), math("mfrac", power(numbersOf(score, greatest, t)), math("mrow", ...summands(exponentials)))],
    [math("mo", "="), math("mfrac", math("mn", number(e)), math("mn", number(sum)))],
    [math("mo", "="), math("mn", number(p))],
  ].filter(Boolean);
  at("formula").replaceChildren(...lines.map((parts) => math("math", math("mrow", ...parts))));
  at("formula").querySelectorAll("math").forEach((line) => line.setAttribute("displaystyle", "true"));
  at("formula-note").textContent = say(Number.isFinite(greatest) ? "formula.note" : "limit");
}

/** (2.0 − 2.0) / 1, as it stands in the exponent. */
function numbersOf(score, greatest, t) {
  const digits = decimals([score, greatest]);
  const [a, b] = [number(score, digits), number(greatest, digits)];
  const taken = greatest < 0 ? `(${b})` : b;
  return [math("mo", "("), math("mn", a), math("mo", "−"), math("mn", taken), math("mo", ")"), math("mo", "/"), math("mn", t)];
}

/** The exponentials with plus signs between; of many, the first and the last. */
function summands(exponentials) {
  const few = exponentials.length <= 4;
  const numbers = few ? exponentials : [...exponentials.slice(0, 2), null, exponentials.at(-1)];
  return numbers.flatMap((e, i) => [
    ...(i ? [math("mo", "+")] : []),
    e === null ? math("mo", "…") : math("mn", number(e)),
  ]);
}

function updateSigmoid({ shifted, probabilities }) {
  at("sigmoid").hidden = state.names.length !== 2;
  if (state.names.length !== 2) return;
  const difference = shifted[0] - shifted[1];
  const [left, width, bottom, height, most] = [40, 348, 190, 170, 6];
  const x = (d) => left + (width * (Math.max(-most, Math.min(most, d)) + most)) / (2 * most);
  const y = (p) => bottom - height * p;
  const points = Array.from({ length: 121 }, (_, i) => -most + (i * most) / 60);
  const curve = points.map((d) => `${x(d).toFixed(2)} ${y(1 / (1 + Math.exp(-d))).toFixed(2)}`);
  at("curve").setAttribute("d", `M ${curve.join(" L ")}`);
  const here = [x(difference), y(probabilities[0])];
  at("point").setAttribute("cx", here[0]);
  at("point").setAttribute("cy", here[1]);
  at("guides").setAttribute("d", `M ${left} ${here[1]} H ${here[0]} V ${bottom}`);
  at("here").setAttribute("x", left + 4); // above its guide, where the curve never is
  at("here").setAttribute("y", here[1] - 6);
  at("here").textContent = percent(probabilities[0]);
  at("sigmoid-sentence").textContent = say("sigmoid.is", {
    difference: number(difference),
    p: percent(probabilities[0]),
    name: short(state.names[0]),
  });
}

function updateLoss({ shifted, sum, probabilities }) {
  [...at("truth").options].slice(1).forEach((option) => {
    option.textContent = short(state.names[option.value]);
  });
  at("loss").hidden = state.truth === null;
  if (state.truth === null) return;
  at("loss-sentence").textContent = say("loss.is", {
    name: short(state.names[state.truth]),
    p: number(probabilities[state.truth]),
    loss: number(Math.log(sum) - shifted[state.truth]),
  });
  at("gradient").replaceChildren(...state.shown.map((index) => gradientRow(index, probabilities[index])));
}

function gradientRow(index, p) {
  const pull = p - (index === state.truth ? 1 : 0);
  const row = element("tr");
  const name = element("th", short(state.names[index]));
  name.scope = "row";
  name.dir = "auto";
  name.title = state.names[index];
  const bar = element("div");
  bar.style.setProperty("--pull", pull);
  for (const part of [row, bar]) part.classList.toggle("true", index === state.truth);
  const cells = [name, element("td", number(pull)), element("td")];
  cells[1].className = "number";
  cells[2].className = "pull";
  cells[2].append(bar);
  row.append(...cells);
  return row;
}

// --- small parts ----------------------------------------------------------------

function element(name, text = "") {
  const made = document.createElement(name);
  made.textContent = text;
  return made;
}

function math(name, ...content) {
  const made = document.createElementNS("http://www.w3.org/1998/Math/MathML", name);
  made.append(...content);
  return made;
}

function label(part, key, facts) {
  part.ariaLabel = say(key, facts);
}

/** The part of a slider's track between two of its values. */
function stretch(slider, from, to) {
  const [min, max] = [Number(slider.min), Number(slider.max)];
  const share = (x) => (Math.max(min, Math.min(max, x)) - min) / (max - min);
  const length = Math.abs(share(to) - share(from));
  const start = Math.min(share(from), share(to));
  slider.style.setProperty("--length", `${100 * length}%`);
  slider.style.setProperty("--from", length < 1 ? `${(100 * start) / (1 - length)}%` : "0");
}

function widen(extent) {
  for (const slider of document.querySelectorAll("li[data-index] .score")) {
    slider.min = -extent;
    slider.max = extent;
  }
}

/** A field's number, unless it is just being written. */
function show(field, x) {
  if (field === document.activeElement && field.ariaInvalid === "true") return;
  field.value = written(x);
  field.ariaInvalid = "false";
}

/** What was written in a field: a number that will do, or a word on what is needed. */
function enter(field, holds, take) {
  const text = field.value.trim().replace("−", "-").replace("∞", "Infinity");
  const x = text === "" ? NaN : Number(text.replace(/^([+-]?)inf(inity)?$/i, "$1Infinity"));
  const sound = !Number.isNaN(x) && holds(x);
  field.ariaInvalid = String(!sound);
  field.setCustomValidity(sound ? "" : say("field.wrong"));
  if (sound) take(x);
  else field.reportValidity();
}

// --- what can be done -------------------------------------------------------------

function setScore(index, score) {
  state.scores[index] = score;
  state.looked = index;
  update();
}

function setTemperature(temperature) {
  state.temperature = temperature;
  update();
}

function rename(index, name) {
  state.names[index] = name;
  update();
}

/** A share can be given to a class only where others are there to take the rest. */
function canDrag(index) {
  const others = state.scores.filter((_, j) => j !== index);
  return others.length > 0 && others.every((z) => z < Infinity) && others.some((z) => z > -Infinity);
}

function setShare(index, share) {
  if (!canDrag(index)) return;
  const within = Math.min(1 - LEAST_SHARE, Math.max(LEAST_SHARE, share));
  setScore(index, scoreFor(index, within));
}

function dragged(bar, index) {
  const follow = (event) => {
    const box = bar.getBoundingClientRect();
    const share = (event.clientX - box.left) / box.width;
    setShare(index, getComputedStyle(bar).direction === "rtl" ? 1 - share : share);
  };
  bar.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    bar.setPointerCapture(event.pointerId);
    follow(event);
  });
  bar.addEventListener("pointermove", (event) => {
    if (bar.hasPointerCapture(event.pointerId)) follow(event);
  });
  bar.addEventListener("keydown", (event) => {
    const steps = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, PageUp: 10, PageDown: -10 };
    const now = softmax(state.scores, state.temperature).probabilities[index];
    const ends = { Home: 0, End: 1 };
    const share = ends[event.key] ?? now + (steps[event.key] ?? NaN) / 100;
    if (Number.isNaN(share)) return;
    event.preventDefault();
    setShare(index, share);
  });
}

function addClass() {
  const letters = [..."ABCDEFGHIJKLMNOPQRSTUVWXYZ"];
  state.names.push(letters.find((name) => !state.names.includes(name)));
  state.scores.push(0);
  state.shown = state.names.map((_, index) => index);
  build();
  const name = at("classes").lastElementChild.querySelector(".name input");
  name.focus();
  name.select();
}

function removeClass(index) {
  if (state.scores.every((z, j) => j === index || z === -Infinity)) state.scores.fill(0);
  state.names.splice(index, 1);
  state.scores.splice(index, 1);
  state.shown = state.names.map((_, j) => j);
  state.looked = null;
  if (state.truth === index) state.truth = null;
  else if (state.truth > index) state.truth -= 1;
  build();
  const rows = at("classes").children;
  const next = rows[Math.min(index, rows.length - 1)].querySelector(".remove");
  (next.disabled ? at("add") : next).focus();
}

at("temperature").addEventListener("input", (event) =>
  setTemperature(Number((2 ** event.target.value).toPrecision(3))),
);
at("temperature-field").addEventListener("change", (event) =>
  enter(event.target, (t) => t > 0 && t < Infinity, setTemperature),
);
at("truth").addEventListener("change", (event) => {
  state.truth = event.target.value === "" ? null : Number(event.target.value);
  update();
});
at("add").addEventListener("click", addClass);
at("reset").addEventListener("click", () => {
  state = atStart();
  build();
});

at("live").hidden = false;
build();

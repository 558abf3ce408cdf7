// What all views use: texts, elements, AlertManager's API, matchers.
const remembered = (name, value) => {
  try { // A browser may forbid storage.
    if (value === undefined) return localStorage.getItem(name) || "";
    localStorage.setItem(name, value);
  } catch { /* then it is asked again */ }
  return value || "";
};

let language = remembered("language") || (navigator.language.startsWith("ru") ? "ru" : "en");
if (!(language in TEXTS)) language = "en";

const text = (key, ...values) => TEXTS[language][key].replace(/\{(\d)\}/g, (_, number) => String(values[number]));

// Make an element. `text` and `label` are keys of TEXTS, which follow the language; a function is a listener.
// Children that are strings become text, never markup: labels and annotations come from outside.
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (name === "text" || name === "label" || name === "key") element.dataset[name] = value;
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  if (element.dataset.text || element.dataset.label) translate(element);
  return element;
}

function translate(element) {
  if (element.dataset.text) element.textContent = text(element.dataset.text);
  if (element.dataset.label) element.setAttribute("aria-label", text(element.dataset.label));
}

// A link to another site, and plain text where it is anything but http: a label may say `javascript:`.
function link(address, ...children) {
  let protocol = "";
  try { protocol = new URL(address).protocol; } catch { /* no address */ }
  if (protocol !== "http:" && protocol !== "https:") return make("span", {}, ...children);
  return make("a", { href: address, target: "_blank", rel: "noopener noreferrer" }, ...children);
}

const field = (key, input) => make("label", {}, make("span", { text: key }), input);

function time(iso) {
  const day = { year: "numeric", month: "short", day: "numeric" };
  const clock = { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23", timeZoneName: "short" };
  const shown = new Intl.DateTimeFormat(language, { ...day, ...clock }).format(new Date(iso));
  return make("time", { datetime: iso }, shown);
}

// Fill a list anew, but only when something in it has changed; the focus and what was unfolded stay.
function redraw(container, data, build) {
  const key = JSON.stringify([language, data]);
  if (container.drawn === key) return;
  const focused = container.contains(document.activeElement) ? document.activeElement.dataset.key : "";
  const unfolded = new Set([...container.querySelectorAll("details[open]")].map((each) => each.dataset.key));
  container.replaceChildren(...build());
  container.drawn = key;
  for (const each of container.querySelectorAll("details")) each.open = unfolded.has(each.dataset.key);
  // What had the focus may be gone; the keyboard goes on from the content then.
  if (focused) (container.querySelector(`[data-key="${CSS.escape(focused)}"]`) || main).focus();
}

class Refused extends Error {}
class NoAnswer extends Error {}
class NotWell extends Error {} // something that a person wrote

const spoken = (error) => error instanceof NoAnswer ? text("silent") : error.message;

const PATIENCE = 10000; // milliseconds
let ahead = 0; // milliseconds by which AlertManager's clock is ahead of this one

async function ask(path, { method = "GET", query = [], body } = {}) {
  const address = new URL(`api/v2/${path}`, document.baseURI);
  address.username = address.password = address.hash = ""; // fetch refuses an address with a password in it
  for (const [name, value] of query) address.searchParams.append(name, value);
  const options = { method, cache: "no-store", redirect: "error", signal: AbortSignal.timeout(PATIENCE) };
  if (body) Object.assign(options, { headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
  let answer, said;
  try {
    answer = await fetch(address, options);
    said = await answer.text();
  } catch (error) { throw new NoAnswer(String(error)); }
  const date = Date.parse(answer.headers.get("Date"));
  if (date) ahead = date - Date.now();
  let value = said;
  try { value = said && JSON.parse(said); } catch { /* an error in plain text, or another program's page */ }
  if (answer.ok && (typeof value === "object" || !said)) return value;
  const why = typeof value === "string" ? value : value?.message || said;
  throw new Refused(text("refused", answer.status, why.trim().slice(0, 500)));
}

const now = () => new Date(Date.now() + ahead);

const NAME = /^[a-zA-Z_:][a-zA-Z0-9_:]*$/;
const OPERATORS = ["=", "!=", "=~", "!~"];

const operator = ({ isEqual = true, isRegex }) => OPERATORS[(isRegex ? 2 : 0) + (isEqual ? 0 : 1)];
const matcherOf = (name, sign, value) => ({ name, value, isRegex: sign.includes("~"), isEqual: !sign.includes("!") });
const written = (matcher) =>
  (NAME.test(matcher.name) ? matcher.name : JSON.stringify(matcher.name)) + operator(matcher) + JSON.stringify(matcher.value);
const formAddress = (matchers) => `#/silences/new?filter=${encodeURIComponent(`{${matchers.map(written).join(", ")}}`)}`;

// Read matchers as a person or a message's link writes them: {name="value", other=~"a|b"}.
function matchersIn(words) {
  const inner = words.trim().replace(/^\{([^]*)\}$/, "$1");
  const one = /\s*("(?:[^"\\]|\\.)*"|[^\s=!~,"{}]+)\s*(=~|!~|!=|=)\s*("(?:[^"\\]|\\.)*"|[^",{}]*?)\s*(?:,|$)/y;
  const plain = (word) => {
    if (!word.startsWith('"')) return word;
    try { return JSON.parse(word); } catch { throw new NotWell(text("badMatcher", word)); }
  };
  const found = [];
  while (one.lastIndex < inner.length && inner.slice(one.lastIndex).trim()) {
    const start = one.lastIndex, parts = one.exec(inner);
    if (!parts) throw new NotWell(text("badMatcher", inner.slice(start).trim()));
    found.push(matcherOf(plain(parts[1]), parts[2], plain(parts[3])));
  }
  return found;
}

const filters = (matchers) => matchers.map((each) => ["filter", written(each)]);

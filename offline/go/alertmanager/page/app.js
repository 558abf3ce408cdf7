// Which view is shown, and that it stays fresh.
const PERIOD = 10000; // milliseconds
const TYPING = 300;

const main = document.getElementById("main");
let view, timer, turn = 0, lastAnswer = "";

function route() {
  const [path, words = ""] = location.hash.replace(/^#\/?/, "").split(/\?([^]*)/);
  const query = new URLSearchParams(words.replaceAll("+", "%2B")); // a plus sign is one, as in AlertManager's own links
  const [first, second] = path.split("/");
  if (first === "silences" && second === "new") return ["#/silences/new", formView(query)];
  if (first === "silences") return ["#/silences", silencesView(query, second)];
  if (first === "status") return ["#/status", statusView()];
  return ["#/alerts", alertsView(query)];
}

function show(moved) {
  let address;
  [address, view] = route();
  const heading = make("h2", { tabindex: "-1", text: view.title });
  main.replaceChildren(heading, ...view.parts);
  for (const each of document.querySelectorAll("nav a")) {
    if (each.getAttribute("href") === address) each.setAttribute("aria-current", "page");
    else each.removeAttribute("aria-current");
  }
  document.title = `${text(view.title)} · AlertManager`;
  trouble(null);
  notice("");
  lastAnswer = "";
  answered();
  if (moved) heading.focus();
  tick();
}

function notice(words) {
  const element = document.getElementById("notice");
  element.textContent = words;
  element.hidden = !words;
}

// Go to a view and say there what was done.
function go(address, words) {
  history.pushState(null, "", address);
  show(true);
  notice(words);
}

function trouble(error) {
  const element = document.getElementById("trouble");
  const old = error && !(error instanceof NoAnswer) ? ` ${text("old")}` : "";
  const words = error ? spoken(error) + old : "";
  if (element.textContent !== words) element.textContent = words; // else it is read aloud again
  element.hidden = !words;
}

function answered() {
  const words = lastAnswer ? text("answered", time(lastAnswer).textContent, PERIOD / 1000) : text("notAnswered");
  document.getElementById("answered").textContent = words;
}

async function tick() {
  clearTimeout(timer);
  const mine = ++turn, current = () => mine === turn;
  try {
    await view.refresh(current);
    if (!current()) return; // another question was asked meanwhile
    lastAnswer = new Date().toISOString();
    trouble(null);
  } catch (error) {
    if (!current()) return;
    trouble(error);
  }
  answered();
  timer = setTimeout(tick, PERIOD);
}

function soon() {
  clearTimeout(timer);
  turn++; // what is asked now is for other words
  timer = setTimeout(tick, TYPING);
}

function speak() {
  document.documentElement.lang = language;
  document.querySelectorAll("[data-text], [data-label]").forEach(translate);
  const other = language === "en" ? "ru" : "en";
  const button = document.getElementById("language");
  button.textContent = TEXTS[other].language;
  button.lang = other;
  answered();
}

if (window.top !== window.self) {
  // A page around this one could have a person press its buttons unseen.
  document.body.replaceChildren(text("framed"));
} else {
  document.getElementById("language").addEventListener("click", () => {
    language = remembered("language", language === "en" ? "ru" : "en");
    speak();
    document.title = `${text(view.title)} · AlertManager`;
    tick();
  });
  document.querySelector("a.skip").addEventListener("click", (event) => {
    event.preventDefault(); // the address names the view
    main.focus();
  });
  window.addEventListener("hashchange", () => show(true));
  document.addEventListener("visibilitychange", () => { if (!document.hidden) tick(); });
  speak();
  show(false);
}

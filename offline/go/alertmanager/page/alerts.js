// The alerts, in the groups in which AlertManager sends them.
const ALERT_STATES = ["active", "silenced", "inhibited"];

const sought = { search: "", matchers: "", states: new Set(ALERT_STATES), silences: new Set(["active", "pending"]) };

function statesOf({ status }) {
  const found = [];
  if (status.silencedBy.length) found.push("silenced");
  if (status.inhibitedBy.length) found.push("inhibited");
  if (status.mutedBy?.length) found.push("muted");
  return found.length ? found : [status.state === "unprocessed" ? "unprocessed" : "active"];
}

// Those two have no box of their own.
const boxOf = (state) => ({ unprocessed: "active", muted: "inhibited" })[state] || state;
const hasState = (alert, chosen) => statesOf(alert).some((each) => chosen.has(boxOf(each)));

const contains = (alert, words) =>
  [...Object.entries(alert.labels), ...Object.entries(alert.annotations)]
    .some(([name, value]) => `${name}=${value}`.toLowerCase().includes(words.toLowerCase()));

const chip = (words, kind = "") => make("span", { class: `chip ${kind}` }, words);
const chips = (labels) => Object.entries(labels).map(([name, value]) => chip(`${name}=${value}`));

function stateBoxes(states, chosen, changed) {
  const boxes = states.map((state) => {
    const change = (event) => { chosen[event.target.checked ? "add" : "delete"](state); changed(); };
    const box = make("input", { type: "checkbox", name: state, change });
    box.checked = chosen.has(state);
    return make("label", {}, box, " ", make("span", { text: state }));
  });
  return make("fieldset", { class: "states" }, make("legend", { text: "states" }), ...boxes);
}

const KNOWN = new Map([["runbook_url", "runbook"], ["dashboard_url", "dashboard"], ["logs_url", "logs"]]);

// The annotation opens the last hour of the logs; what is of use is the hour around the begin, as in messages.
function logsThen(address, startsAt) {
  const end = new Date(Date.parse(startsAt) + 15 * 60_000).toISOString();
  return address.replace("g0.relative_time=last_1_hour", `g0.relative_time=none&g0.end_input=${end}`);
}

// What an annotation says: the known ones by their names, a command of the log as it is typed, an address as a link.
function annotation(name, value) {
  const known = KNOWN.get(name); // an alert may name an annotation as it likes, also `constructor`
  if (known) return link(value, text(known));
  if (/^logs?(_|$)/.test(name) && !/^https?:/.test(value)) return make("span", {}, `${name}: `, make("code", {}, value));
  return make("span", {}, `${name}: `, link(value, value));
}

// Prometheus' address of a rule holds its expression, which is of use also where Prometheus has no page.
function source(address) {
  let expression = "";
  try { expression = new URL(address).searchParams.get("g0.expr") || ""; } catch { /* no address */ }
  if (!expression) return [];
  const folded = make("details", { key: `expression ${address}` }, make("summary", { text: "expression" }));
  folded.append(make("code", {}, expression));
  return [folded];
}

function alertCard(alert, names) {
  const { labels, annotations, status, generatorURL } = alert;
  const { summary, description, ...others } = annotations;
  const severity = ["critical", "warning"].includes(labels.severity) ? labels.severity : "";
  const silence = formAddress(Object.entries(labels).map(([name, value]) => matcherOf(name, "=", value)));
  const by = (key, found) => found.length ? [make("p", {}, make("span", { text: key }), ": ", ...found)] : [];
  return make("article", { class: severity, key: alert.fingerprint },
    make("h4", {}, labels.alertname || "—", " ", ...statesOf(alert).map((state) => chip(text(state), state))),
    summary ? make("p", {}, summary) : null,
    description ? make("p", {}, description) : null,
    make("p", {}, ...chips(labels)),
    make("p", { class: "faint" }, make("span", { text: "since" }), " ", time(alert.startsAt)),
    ...by("silencedBy", status.silencedBy.map((id) =>
      make("a", { href: `#/silences/${encodeURIComponent(id)}`, key: `${alert.fingerprint} ${id}` }, id))),
    ...by("inhibitedBy", status.inhibitedBy.map((each) => chip(names.get(each) || each))),
    make("p", { class: "links" },
      make("a", { href: silence, text: "silenceThis", key: `silence ${alert.fingerprint}` }),
      generatorURL ? link(generatorURL, text("source")) : null,
      ...Object.entries(others).map(([name, value]) =>
        annotation(name, name === "logs_url" ? logsThen(value, alert.startsAt) : value))),
    ...source(generatorURL));
}

function alertGroup(group, names) {
  const labels = chips(group.labels);
  return make("section", { class: "group" },
    make("h3", {}, text("receiver", group.receiver.name), " ", ...(labels.length ? labels : [text("noLabels")])),
    ...group.alerts.map((alert) => alertCard(alert, names)));
}

function alertsView(query) {
  if (query.has("filter")) sought.matchers = query.get("filter").replace(/^\{([^]*)\}$/, "$1");
  const summary = make("p", { id: "summary", role: "status" });
  const list = make("div", { id: "list" });
  const search = make("input", { type: "search", id: "search", input: () => { sought.search = search.value; draw(); } });
  const matchers = make("input", { id: "matchers", spellcheck: "false", autocomplete: "off",
    placeholder: 'severity="critical", service=~"api|worker"',
    input: () => { sought.matchers = matchers.value; soon(); } });
  [search.value, matchers.value] = [sought.search, sought.matchers];
  let groups = [];

  function draw() {
    const shown = groups.map((group) => ({ ...group,
      alerts: group.alerts.filter((each) => hasState(each, sought.states) && contains(each, sought.search)) }));
    // An alert that goes to two receivers is one alert.
    const all = new Map(groups.flatMap((group) => group.alerts).map((each) => [each.fingerprint, each]));
    const seen = new Set(shown.flatMap((group) => group.alerts).map((each) => each.fingerprint));
    const counted = (state) => [...all.values()].filter((each) => hasState(each, new Set([state]))).length;
    const counts = text("alertsShown", seen.size, all.size, ...ALERT_STATES.map(counted));
    if (summary.textContent !== counts) summary.textContent = counts;
    const names = new Map([...all.values()].map((each) => [each.fingerprint, each.labels.alertname]));
    redraw(list, shown, () => shown.filter((group) => group.alerts.length).map((group) => alertGroup(group, names)));
  }

  async function refresh(current) {
    const found = await ask("alerts/groups", { query: filters(matchersIn(sought.matchers)) });
    if (!current()) return;
    // Prometheus moves these each minute; nothing that is shown changes by it.
    groups = found.map((group) => ({ ...group,
      alerts: group.alerts.map((each) => ({ ...each, updatedAt: undefined, endsAt: undefined })) }));
    draw();
  }

  const form = make("form", { role: "search", submit: (event) => { event.preventDefault(); tick(); } },
    field("search", search), field("matchers", matchers), stateBoxes(ALERT_STATES, sought.states, () => draw()));
  return { title: "alerts", parts: [form, summary, list], refresh };
}

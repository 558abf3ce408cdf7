// The silences, the form that makes one, and AlertManager's state.
const SILENCE_STATES = ["active", "pending", "expired"];

const fact = (key, value) => make("p", {}, make("span", { class: "faint", text: key }), ": ", value);

function silenceCard(silence) {
  const { id, status: { state } } = silence;
  const end = () => confirmExpire(silence);
  return make("article", { key: id },
    make("h3", {}, chip(text(state), state), " ", ...silence.matchers.map((each) => chip(written(each)))),
    make("p", {}, silence.comment),
    fact("by", silence.createdBy), fact("starts", time(silence.startsAt)), fact("ends", time(silence.endsAt)),
    make("p", { class: "links" },
      state === "expired" ? null : make("button", { type: "button", class: "danger", text: "expire", key: `end ${id}`, click: end }),
      make("a", { href: formAddress(silence.matchers), text: "again", key: `again ${id}` }),
      make("a", { href: `#/silences/${encodeURIComponent(id)}`, key: `one ${id}` }, id)));
}

function confirmExpire(silence) {
  const dialog = document.getElementById("confirm");
  document.getElementById("subject").replaceChildren(...silence.matchers.map((each) => chip(written(each))), " ", silence.comment);
  document.getElementById("keep").onclick = () => dialog.close();
  const expire = document.getElementById("expire"), refusal = document.getElementById("refusal");
  expire.disabled = false;
  refusal.hidden = true;
  const mine = expire.onclick = async () => {
    const current = () => expire.onclick === mine; // it may be asked about another silence meanwhile
    expire.disabled = true;
    try {
      await ask(`silence/${encodeURIComponent(silence.id)}`, { method: "DELETE" });
      notice(text("silenceExpired", silence.id));
      if (current()) dialog.close();
      tick();
    } catch (error) {
      if (!current()) return notice(spoken(error));
      refusal.textContent = spoken(error);
      refusal.hidden = false;
    } finally { if (current()) expire.disabled = false; }
  };
  dialog.showModal();
}

function silencesView(_query, id) {
  const summary = make("p", { id: "summary", role: "status" });
  const list = make("div", { id: "list" });
  let silences = [];

  function draw() {
    const shown = silences.filter((each) => id || sought.silences.has(each.status.state));
    summary.textContent = text("silencesShown", shown.length, silences.length);
    redraw(list, shown, () => shown.map(silenceCard));
  }

  async function refresh(current) {
    const found = id ? [await ask(`silence/${encodeURIComponent(id)}`)] : await ask("silences");
    if (!current()) return;
    silences = found;
    draw();
  }

  const first = id ? make("p", {}, make("a", { href: "#/silences", text: "allSilences" }))
    : make("form", { submit: (event) => event.preventDefault() }, stateBoxes(SILENCE_STATES, sought.silences, draw));
  return { title: id ? "oneSilence" : "silences", parts: [first, summary, list], refresh };
}

// Milliseconds of a duration as 1d12h, and 0 for anything else.
function milliseconds(words) {
  const parts = /^(?:(\d{1,4})w)?(?:(\d{1,4})d)?(?:(\d{1,4})h)?(?:(\d{1,5})m)?$/.exec(words.trim());
  const minutes = [10080, 1440, 60, 1];
  return parts ? minutes.reduce((sum, each, index) => sum + each * Number(parts[index + 1] || 0), 0) * 60000 : 0;
}

function matcherRow(matcher, changed) {
  const name = make("input", { name: "name", label: "labelName", value: matcher.name, spellcheck: "false", input: changed });
  const sign = make("select", { name: "operator", label: "operator", change: changed },
    ...OPERATORS.map((each) => make("option", { selected: each === operator(matcher) }, each)));
  const value = make("input", { name: "value", label: "labelValue", value: matcher.value, spellcheck: "false", input: changed });
  const remove = () => { row.parentElement.querySelector("button.add").focus(); row.remove(); changed(); };
  const row = make("div", { class: "row" }, name, sign, value,
    make("button", { type: "button", label: "removeMatcher", click: remove }, "✕"));
  return row;
}

function formView(query) {
  const result = make("p", { id: "result", class: "trouble", role: "alert", hidden: true });
  const hits = make("p", { id: "hits", role: "status" });
  const list = make("ul", { id: "preview" });
  const until = make("p", { id: "until", class: "faint" });
  const add = make("button", { type: "button", class: "add", text: "addMatcher",
    click: () => { const row = matcherRow(matcherOf("", "=", ""), edited); add.before(row); row.querySelector("input").focus(); } });
  const rows = make("fieldset", {}, make("legend", { text: "what" }), add);
  const duration = make("input", { id: "duration", value: "2h", required: true, list: "durations", autocomplete: "off", input: () => clock() });
  const author = make("input", { id: "author", value: remembered("author"), required: true, pattern: ".*\\S.*", autocomplete: "name" });
  const comment = make("input", { id: "comment", required: true, pattern: ".*\\S.*", autocomplete: "off" });
  const send = make("button", { id: "send", text: "makeSilence" });
  const say = (words) => { result.textContent = words; result.hidden = !words; };
  let previewed = "";

  // What was previewed is no longer what would be sent.
  function edited() {
    previewed = "";
    hits.textContent = text("asking");
    redraw(list, [], () => []);
    soon();
  }

  function clock() {
    const length = milliseconds(duration.value);
    duration.setCustomValidity(length ? "" : text("badDuration"));
    until.textContent = length ? text("endsAt", time(new Date(+now() + length).toISOString()).textContent) : text("badDuration");
  }

  const matchers = () => [...rows.querySelectorAll(".row")]
    .map((row) => ["name", "operator", "value"].map((each) => row.querySelector(`[name=${each}]`).value))
    .filter(([name, , value]) => name.trim() || value)
    .map(([name, sign, value]) => {
      if (!name.trim()) throw new NotWell(text("noName"));
      return matcherOf(name.trim(), sign, value);
    });

  async function refresh(current) {
    clock();
    const wanted = matchers();
    // Without a matcher all alerts would be told as hit.
    const found = wanted.length ? await ask("alerts", { query: filters(wanted) }) : [];
    if (!current()) return;
    hits.textContent = wanted.length ? text("hits", found.length) : text("noMatchers");
    previewed = JSON.stringify(wanted);
    redraw(list, found.map(({ labels }) => labels), () => found.map(({ labels }) => make("li", {}, ...chips(labels))));
  }

  async function submit(event) {
    event.preventDefault();
    if (send.disabled) return;
    let wanted;
    try { wanted = matchers(); } catch (error) { return say(error.message); }
    if (!wanted.length) return say(text("noMatchers"));
    if (JSON.stringify(wanted) !== previewed) return say(text("notPreviewed"));
    say("");
    send.disabled = true; // pressed twice, it would make two
    const start = now();
    const body = { matchers: wanted, startsAt: start.toISOString(),
      endsAt: new Date(+start + milliseconds(duration.value)).toISOString(),
      createdBy: author.value.trim(), comment: comment.value.trim() };
    try {
      const { silenceID } = await ask("silences", { method: "POST", body });
      remembered("author", body.createdBy);
      go("#/silences", text("silenceMade", silenceID));
    } catch (error) {
      say(error instanceof NoAnswer ? text("unsure") : error.message);
    } finally { send.disabled = false; }
  }

  let given = [matcherOf("alertname", "=", "")];
  try {
    if (query.get("filter")) given = matchersIn(query.get("filter"));
  } catch (error) { say(error.message); }
  for (const each of given) add.before(matcherRow(each, edited));
  const form = make("form", { class: "tall", submit }, rows, field("duration", duration),
    make("datalist", { id: "durations" }, ...["30m", "1h", "2h", "8h", "1d", "1w"].map((value) => make("option", { value }))),
    until, field("author", author), field("comment", comment),
    make("section", {}, make("h3", { text: "preview" }), hits, list),
    result, make("p", { class: "buttons" }, send));
  return { title: "newSilence", parts: [form], refresh };
}

function statusView() {
  const list = make("div", { id: "list" });
  async function refresh(current) {
    const found = await ask("status");
    if (!current()) return;
    const { versionInfo: version, cluster } = found;
    const facts = [["version", version.version], ["revision", version.revision], ["go", version.goVersion],
      ["started", time(found.uptime)], ["cluster", cluster.status],
      ...(cluster.peers || []).map((peer) => ["peers", `${peer.name} ${peer.address}`])];
    redraw(list, found, () => [
      make("dl", {}, ...facts.filter(([, value]) => value).flatMap(([key, value]) => [make("dt", { text: key }), make("dd", {}, value)])),
      make("h3", { text: "configuration" }), make("pre", { tabindex: "0", id: "configuration" }, found.config.original)]);
  }
  return { title: "status", parts: [list], refresh };
}

// Asks the driver for news each second and shows them.

const PERIOD_MS = 1000;
const ROLES = ["client", "server", "dealer", "referee"];
const MOST_STAGES = 7;

const place = (id) => document.getElementById(id);
const percent = (v) => `${+(100 * v).toFixed(v < 0.00995 ? 2 : v < 0.0995 ? 1 : 0)} %`;
const number = (v) => v.toLocaleString("en", { maximumFractionDigits: v < 10 ? 1 : 0 });
const seconds = (v) => (v >= 100 ? `${v.toFixed(0)} s` : v >= 0.995 || v === 0 ? `${+v.toFixed(2)} s` : `${+(v * 1e3).toPrecision(3)} ms`);
const throughput = (v) => `${+v.toPrecision(3)}`;
const cores = (v) => v.toFixed(2);

function bytes(value) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  for (; value >= 1000 && unit < 4; unit++) value /= 1000;
  return `${unit ? value.toFixed(value < 99.5 ? 1 : 0) : value.toFixed(0)} ${units[unit]}`;
}

function duration(value) {
  const whole = Math.round(value);
  if (whole < 60) return `${whole} s`;
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor((whole % 3600) / 60), whole % 60];
  return h ? `${h} h ${String(m).padStart(2, "0")} min` : `${m} min ${String(s).padStart(2, "0")} s`;
}

const charts = {
  token: new Chart(place("token"), { label: "Seconds per token", format: seconds }),
  stages: new Chart(place("stages"), { label: "Share of time by stage", format: percent, stacked: true, top: 1 }),
  used: new Chart(place("used"), { label: "Used share of each link", format: percent, height: 130 }),
  memory: new Chart(place("memory"), { label: "Resident memory by party", format: bytes }),
  cpu: new Chart(place("cpu"), { label: "Busy cores by party", format: cores }),
};
for (const role of ["client", "server", "dealer"]) {
  const box = html("div", { class: "chart" });
  place("parties").append(html("strong", {}, role), box);
  charts[role] = new Chart(box, { label: `${role}, computing and blocked`, format: percent, stacked: true, top: 1, height: 92 });
}

const SERVING = [
  ["TTFT", "ttft_seconds", seconds],
  ["TPOT", "tpot_seconds", seconds],
  ["ITL p50", "itl_p50_seconds", seconds],
  ["ITL p90", "itl_p90_seconds", seconds],
  ["ITL p99", "itl_p99_seconds", seconds],
  ["tokens per second", "tokens_per_second", throughput],
  ["acceptance", "acceptance", percent],
];
const servingNumber = (times, key, format) => (times && times[key] !== null ? format(times[key]) : "");

let samples = [];
let shown = { cell: "", generation: -1 };
let paused = false;

/** How fast something grew before each sample but the first; null where it is not known. */
function rates(of) {
  return samples.slice(1).map((sample, i) => {
    const [before, now] = [of(samples[i]), of(sample)];
    const known = before !== undefined && now !== undefined && before !== null && now !== null;
    return [sample.t, known ? Math.max(0, now - before) / (sample.t - samples[i].t) : null];
  });
}

/** First and last second of what is shown. */
function span() {
  return [samples[0]?.t ?? 0, samples.at(-1)?.t ?? 0];
}

function clock() {
  return samples.at(-1)?.parties.referee?.tokens ? "referee" : "client";
}

function secondsPerToken() {
  const role = clock();
  const points = [];
  let last = samples.find((sample) => sample.parties[role]?.state === "decode");
  for (const sample of samples) {
    const tokens = sample.parties[role]?.tokens;
    if (!last || tokens === undefined || tokens <= (last.parties[role]?.tokens ?? 0)) continue;
    points.push([sample.t, (sample.t - last.t) / (tokens - (last.parties[role]?.tokens ?? 0))]);
    last = sample;
  }
  return points;
}

function drawStages() {
  const total = Object.entries(samples.at(-1)?.stages || {}).filter(([name]) => name !== "bench.idle");
  const names = total.sort((a, b) => b[1][0] - a[1][0]).slice(0, MOST_STAGES).map(([name]) => name);
  const series = names.map((name) => ({ name, points: rates((s) => s.stages[name]?.[0] ?? 0) }));
  const others = (s) => Object.entries(s.stages).filter(([n]) => n !== "bench.idle" && !names.includes(n)).reduce((sum, [, v]) => sum + v[0], 0);
  if (total.length > names.length) series.push({ name: "all others", points: rates(others) });
  charts.stages.draw(series, span());
}

function drawParties() {
  for (const role of ["client", "server", "dealer"]) {
    charts[role].draw([
      { name: "computing", points: rates((s) => s.parties[role]?.compute_seconds) },
      { name: "blocked", points: rates((s) => s.parties[role]?.blocked_seconds) },
    ], span());
  }
  const of = (key) => ROLES.map((role) => ({ name: role, points: samples.map((s) => [s.t, s.parties[role]?.[key] ?? null]) }));
  charts.memory.draw(of("rss_bytes"), span());
  charts.cpu.draw(ROLES.map((role) => ({ name: role, points: rates((s) => s.parties[role]?.cpu_seconds) })), span());
  const left = ROLES.map((role) => samples.at(-1)?.parties[role]).filter((p) => p?.memory_limit_bytes);
  const tight = left.sort((a, b) => a.memory_available_bytes / a.memory_limit_bytes - b.memory_available_bytes / b.memory_limit_bytes)[0];
  place("headroom").textContent = tight ? `${bytes(tight.memory_available_bytes)} of ${bytes(tight.memory_limit_bytes)} are left on the fullest host.` : "";
}

function table(caption, heads, rows) {
  const cell = (kind, value, text) => html(kind, { ...(text ? { class: text } : {}), ...(kind === "th" ? { scope: "col" } : {}) }, value);
  const kind = (i) => heads[i][1];
  const head = html("tr", {}, ...heads.map(([name], i) => cell("th", name, kind(i))));
  const body = rows.map(({ bad, cells }) => html("tr", bad ? { class: "bad" } : {}, ...cells.map((value, i) => cell("td", value ?? "", kind(i)))));
  return html("table", { "aria-label": caption }, html("thead", {}, head), html("tbody", {}, ...body));
}

function showStages() {
  const stages = Object.entries(samples.at(-1)?.stages || {}).filter(([, [, rounds, size]]) => rounds || size);
  const rows = stages.sort((a, b) => b[1][1] - a[1][1] || b[1][2] - a[1][2]).map(([name, [took, rounds, size]]) => ({
    cells: [name, number(rounds), bytes(size), seconds(took)],
  }));
  const heads = [["stage", "text"], ["rounds"], ["bytes, both ways"], ["seconds"]];
  place("by-stage").replaceChildren(rows.length ? table("Rounds and bytes by stage", heads, rows) : html("p", { class: "empty" }, "nothing yet"));
}

function meter(share) {
  const inner = html("span", { style: `width: ${Math.min(100, 100 * share).toFixed(0)}%` });
  return html("span", {}, percent(share), html("span", { class: share > 0.9 ? "meter full" : "meter", "aria-hidden": "true" }, inner));
}

function showLinks(links) {
  const heads = [["link", "text"], ["asked"], ["RTT"], ["measured"], ["RTT"], ["used", "text"]];
  const rate = (v) => (v === null ? "as it is" : `${number((v * 8) / 1e6)} Mbit/s`);
  const time = (v) => (v === null ? "" : seconds(v));
  const share = (link) => rates((s) => s.pairs[link.pair] ?? 0).map(([t, v]) => [t, v === null ? null : v / link.measured_rate]);
  const known = links.filter((link) => link.measured_rate);
  const rows = links.map((link) => ({
    cells: [
      link.pair.replace(">", " → "), rate(link.asked_rate), time(link.asked_rtt), link.measured_rate ? rate(link.measured_rate) : "",
      time(link.measured_rtt), meter(link.measured_rate ? (share(link).at(-1)?.[1] ?? 0) : 0),
    ],
  }));
  place("links").replaceChildren(rows.length ? table("Links", heads, rows) : html("p", { class: "empty" }, "not measured yet"));
  charts.used.draw(known.filter((link) => samples.at(-1)?.pairs[link.pair]).map((link) => ({ name: link.pair.replace(">", " → "), points: share(link) })), span());
}

function showFinished(finished) {
  const heads = [["cell", "text"], ["status", "text"], ["took"], ...SERVING.map(([name]) => [name]), ["what happened", "text wrap"]];
  const rows = [...finished].reverse().map((cell) => ({
    bad: cell.status !== "ok",
    cells: [cell.title, cell.status, duration(cell.seconds), ...SERVING.map(([, key, format]) => servingNumber(cell.times, key, format)), cell.error ?? ""],
  }));
  place("finished").replaceChildren(rows.length ? table("Finished cells", heads, rows) : html("p", { class: "empty" }, "none yet"));
}

function showProgress(news) {
  const done = Object.values(news.statuses).reduce((sum, n) => sum + n, 0);
  const words = Object.entries(news.statuses).map(([status, n]) => `${n} ${status}`);
  place("name").textContent = news.name;
  const starting = news.now && news.now.cell !== shown.cell;
  const title = news.now ? news.now.title : done === news.total ? "all cells are done" : "between cells";
  place("title").textContent = starting && samples.length ? `${title}: starting; below is the cell before` : title;
  place("bar").max = news.total;
  place("bar").value = done;
  place("cells").textContent = `${done} of ${news.total} cells${words.length ? `: ${words.join(", ")}` : ""}`;
  const party = samples.at(-1)?.parties[clock()];
  const online = rates((s) => s.parties[clock()]?.rounds).at(-1)?.[1];
  const tiles = {
    "elapsed": duration(news.elapsed),
    "expected left": duration(news.left),
    "tokens of the cell": party ? `${party.tokens}${news.now && !starting ? ` of ${news.now.new_tokens}` : ""}` : "–",
    "last token": secondsPerToken().length ? seconds(secondsPerToken().at(-1)[1]) : "–",
    "rounds per second": online === undefined || online === null ? "–" : number(online),
    "doing": party && !starting ? `${party.state}, ${party.stage}` : "starting",
  };
  const tile = ([name, value]) => html("div", {}, html("dt", {}, name), html("dd", {}, value));
  place("tiles").replaceChildren(...Object.entries(tiles).map(tile));
  const serving = SERVING.map(([name, key, format]) => [name, servingNumber(news.times, key, format) || "–"]);
  place("serving").replaceChildren(...serving.map(tile));
  document.title = `${done}/${news.total} ${news.name}, mpcache-bench`;
}

function show(news) {
  if (news.fresh) samples = [];
  samples.push(...news.samples);
  shown = { cell: news.cell, generation: news.generation };
  showProgress(news);
  charts.token.draw([{ name: "seconds per token", points: secondsPerToken() }], span());
  drawStages();
  drawParties();
  showStages();
  showLinks(news.links);
  showFinished(news.finished);
}

function say(text, ended) {
  place("state").textContent = text;
  place("state").classList.toggle("ended", ended);
}

async function ask() {
  if (!paused) {
    try {
      const query = new URLSearchParams({ ...shown, seen: samples.length });
      const answer = await fetch(`news?${query}`, { signal: AbortSignal.timeout(10000) });
      show(await answer.json());
      say("live", false);
    } catch (error) {
      if (error instanceof TypeError || error.name === "TimeoutError") say("the run has ended, or its driver does not answer", true);
      else throw error;
    }
  }
}

async function forever() {
  try {
    await ask();
  } finally {
    setTimeout(forever, PERIOD_MS);
  }
}

place("pause").addEventListener("click", () => {
  paused = !paused;
  place("pause").setAttribute("aria-pressed", paused);
  place("pause").textContent = paused ? "Resume" : "Pause";
  say(paused ? "paused" : "live", false);
});
forever();

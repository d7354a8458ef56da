// Charts as SVG: lines or stacked areas over seconds, read out by pointer or arrow keys.

const SVG = "http://www.w3.org/2000/svg";
const DASHES = ["", "6 3", "2 2", "8 3 2 3"];
const SIZE = { height: 190, left: 56, right: 10, top: 8, bottom: 22 };
const LEAST_WIDTH = 300;

function element(name, attributes, ...children) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function html(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

/** Round values from 0 to at least `most`, in about as many steps. */
function ticks(most, steps = 4) {
  const raw = most / steps;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((n) => n * power).find((n) => n >= raw * 0.999);
  return Array.from({ length: Math.ceil(most / step - 1e-9) + 1 }, (_, i) => i * step);
}

/** Splits points [t, value] at gaps, where the value is null. */
function runs(points) {
  const found = [[]];
  for (const point of points) point[1] === null ? found.push([]) : found.at(-1).push(point);
  return found.filter((run) => run.length);
}

class Chart {
  /**
   * @param {HTMLElement} place
   * @param {{label: string, format: (value: number) => string, stacked?: boolean, top?: number, height?: number}} look
   *     top: where the vertical axis ends, if it is to stay
   */
  constructor(place, look) {
    this.place = place;
    this.look = look;
    this.size = { ...SIZE, height: look.height || SIZE.height };
    this.at = null;
    place.tabIndex = 0;
    place.setAttribute("role", "group");
    place.addEventListener("pointermove", (event) => this.point(event));
    place.addEventListener("pointerleave", () => this.move(null));
    place.addEventListener("keydown", (event) => this.key(event));
    place.addEventListener("blur", () => this.move(null));
  }

  /**
   * @param {{name: string, points: [number, number | null][]}[]} series with the same times each
   * @param {[number, number]} span first and last second of the horizontal axis
   */
  draw(series, span) {
    this.span = span;
    this.series = series.filter((one) => one.points.length);
    this.times = this.series.length ? this.series[0].points.map((point) => point[0]) : [];
    if (!this.times.length) {
      this.place.replaceChildren(html("p", { class: "empty" }, "nothing yet"));
      return;
    }
    if (this.at !== null) this.at = Math.min(this.at, this.times.length - 1);
    const layers = this.look.stacked ? this.stack() : this.series.map((one) => one.points.map(([t, v]) => [t, v, null]));
    const { height, left, right, top, bottom } = this.size;
    const most = Math.max(...layers.flat().map((point) => point[1] ?? 0), 0);
    const marks = ticks(this.look.top || most || 1, height < 100 ? 2 : 4);
    const [begin, end] = span;
    const width = Math.max(LEAST_WIDTH, this.place.clientWidth);
    this.x = (t) => left + ((t - begin) / (end - begin || 1)) * (width - left - right);
    const y = (v) => height - bottom - Math.min(1, v / marks.at(-1)) * (height - top - bottom);
    const svg = element("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": this.summary() });
    for (const mark of marks) {
      svg.append(
        element("line", { class: "axis", x1: left, x2: width - right, y1: y(mark), y2: y(mark) }),
        element("text", { x: left - 6, y: y(mark) + 4, "text-anchor": "end" }, this.look.format(mark)),
      );
    }
    for (const mark of ticks(end).filter((t) => begin <= t && t <= end)) {
      svg.append(element("text", { x: this.x(mark), y: height - 6, "text-anchor": "middle" }, `${+mark.toFixed(2)} s`));
    }
    layers.forEach((points, index) => this.layer(svg, points, index, y));
    if (this.at !== null) {
      const x = this.x(this.times[this.at]);
      svg.append(element("line", { class: "cursor", x1: x, x2: x, y1: top, y2: height - bottom }));
    }
    this.place.replaceChildren(svg, this.legend());
  }

  layer(svg, points, index, y) {
    for (const run of runs(points)) {
      const over = run.map(([t, v]) => `${this.x(t).toFixed(1)},${y(v).toFixed(1)}`);
      const style = { stroke: `var(--c${index % 8})`, "stroke-width": 1.8, fill: "none" };
      if (this.look.stacked) {
        const under = run.map(([t, , base]) => `${this.x(t).toFixed(1)},${y(base).toFixed(1)}`).reverse();
        const filled = { points: [...over, ...under].join(" "), fill: `var(--c${index % 8})`, "fill-opacity": 0.75 };
        svg.append(element("polygon", { ...filled, stroke: "var(--card)", "stroke-width": 0.8 }));
      } else if (run.length === 1) {
        const [cx, cy] = over[0].split(",");
        svg.append(element("circle", { cx, cy, r: 2.5, fill: `var(--c${index % 8})` }));
      } else {
        const dash = DASHES[index % DASHES.length];
        svg.append(element("polyline", { ...style, "stroke-dasharray": dash, points: over.join(" ") }));
      }
    }
  }

  stack() {
    const base = this.times.map(() => 0);
    return this.series.map((one) =>
      one.points.map(([t, value], i) => {
        const under = base[i];
        base[i] += value ?? 0;
        return [t, value === null ? null : base[i], under];
      }),
    );
  }

  legend() {
    const at = this.at ?? this.times.length - 1;
    const items = this.series.map((one, index) => {
      const line = { x1: 0, x2: 22, y1: 5, y2: 5, stroke: `var(--c${index % 8})`, "stroke-width": this.look.stacked ? 9 : 2.5 };
      const dash = this.look.stacked ? "" : DASHES[index % DASHES.length];
      const key = element("svg", { viewBox: "0 0 22 10", "aria-hidden": "true" }, element("line", { ...line, "stroke-dasharray": dash }));
      const value = one.points[at][1];
      return html("li", {}, key, `${one.name} ${value === null ? "silent" : this.look.format(value)}`);
    });
    const when = html("li", {}, this.at === null ? "now:" : `at ${this.times[at].toFixed(0)} s:`);
    return html("ul", { class: "legend", "aria-live": this.at === null ? "off" : "polite" }, when, ...items);
  }

  summary() {
    const last = this.series.map((one) => `${one.name} ${one.points.at(-1)[1] === null ? "silent" : this.look.format(one.points.at(-1)[1])}`);
    return `${this.look.label}; after ${this.times.at(-1).toFixed(0)} s: ${last.join(", ")}`;
  }

  point(event) {
    const svg = this.place.querySelector("svg");
    if (!svg || !this.times.length) return;
    const x = event.clientX - svg.getBoundingClientRect().left;
    const distances = this.times.map((t) => Math.abs(this.x(t) - x));
    this.move(distances.indexOf(Math.min(...distances)));
  }

  key(event) {
    const last = this.times.length - 1;
    const here = this.at ?? last;
    const next = { ArrowLeft: here - 1, ArrowRight: here + 1, Home: 0, End: last, Escape: null }[event.key];
    if (next === undefined || last < 0) return;
    event.preventDefault();
    this.move(next === null ? null : Math.max(0, Math.min(last, next)));
  }

  move(at) {
    if (at === this.at || !this.series) return;
    this.at = at;
    this.draw(this.series, this.span);
  }
}

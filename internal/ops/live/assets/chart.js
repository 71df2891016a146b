// A small chart of the last five minutes: one point a second, and no more kept.

const POINTS = 300;
const SVG = "http://www.w3.org/2000/svg";

function shape(tag, attrs) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attrs)) node.setAttribute(name, value);
  return node;
}

export class Chart {
  // limit, if given, is the top of the scale; else the highest point is.
  constructor(label, { second = false, limit = 0 } = {}) {
    this.label = label;
    this.limit = limit;
    this.values = [];
    this.seconds = second ? [] : null;
    this.node = shape("svg", { viewBox: "0 0 300 44", preserveAspectRatio: "none", role: "img", "aria-label": label });
    this.area = shape("path", { class: "area" });
    this.line = shape("path", { class: "line" });
    this.node.append(shape("line", { class: "base", x1: 0, x2: 300, y1: 43.5, y2: 43.5 }), this.area, this.line);
    if (second) {
      this.line2 = shape("path", { class: "line second" });
      this.node.append(this.line2);
    }
  }

  // push adds a point; missed seconds before it, and null, leave a gap.
  push(missed, value, second) {
    for (const [list, last] of this.seconds ? [[this.values, value], [this.seconds, second]] : [[this.values, value]]) {
      for (let i = 0; i < Math.min(missed, POINTS); i++) list.push(null);
      list.push(last);
      list.splice(0, list.length - POINTS);
    }
    this.draw();
  }

  draw() {
    // A young page shows its first minute over the whole width.
    const step = 300 / Math.max(this.values.length, 60);
    const all = (this.seconds ? this.values.concat(this.seconds) : this.values).filter((v) => v !== null && v !== undefined);
    const top = this.limit || Math.max(...all, 1e-9) * 1.1;
    // Stretches of points without a gap between them.
    const stretches = (list) => {
      const out = [];
      let open = null;
      list.forEach((v, i) => {
        if (v === null || v === undefined) {
          open = null;
          return;
        }
        if (!open) out.push(open = []);
        open.push((300 - (list.length - 1 - i) * step).toFixed(1) + "," + (43 - 41 * Math.min(v / top, 1)).toFixed(2));
      });
      return out;
    };
    const path = (all) => all.map((points) => "M" + points.join("L") + (points.length === 1 ? "h0" : "")).join("");
    const first = stretches(this.values), x = (point) => point.split(",")[0];
    this.line.setAttribute("d", path(first));
    this.area.setAttribute("d", first.map((points) => "M" + x(points[0]) + ",43.5L" + points.join("L") + "L" + x(points[points.length - 1]) + ",43.5Z").join(""));
    if (this.line2) this.line2.setAttribute("d", path(stretches(this.seconds)));
  }

  // describe sets the text alternative of the line.
  describe(text) {
    this.node.setAttribute("aria-label", this.label + ": " + text);
  }
}

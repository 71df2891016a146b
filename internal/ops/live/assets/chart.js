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
    this.line = shape("polyline", { class: "line" });
    this.node.append(shape("line", { class: "base", x1: 0, x2: 300, y1: 43.5, y2: 43.5 }), this.area, this.line);
    if (second) {
      this.line2 = shape("polyline", { class: "line second" });
      this.node.append(this.line2);
    }
  }

  push(value, second) {
    this.values.push(value);
    if (this.seconds) this.seconds.push(second);
    if (this.values.length > POINTS) {
      this.values.shift();
      if (this.seconds) this.seconds.shift();
    }
    this.draw();
  }

  draw() {
    // A young page shows its first minute over the whole width.
    const step = 300 / Math.max(this.values.length, 60);
    const all = (this.seconds ? this.values.concat(this.seconds) : this.values).filter((v) => v !== null && v !== undefined);
    const top = this.limit || Math.max(...all, 1e-9) * 1.1;
    const points = (list) => {
      const out = [];
      list.forEach((v, i) => {
        if (v === null || v === undefined) return;
        const x = 300 - (list.length - 1 - i) * step;
        out.push(x.toFixed(1) + "," + (43 - 41 * Math.min(v / top, 1)).toFixed(2));
      });
      return out;
    };
    const line = points(this.values);
    this.line.setAttribute("points", line.join(" "));
    if (line.length > 1) {
      const first = line[0].split(",")[0], last = line[line.length - 1].split(",")[0];
      this.area.setAttribute("d", "M" + first + ",43.5L" + line.join("L") + "L" + last + ",43.5Z");
    }
    if (this.line2) this.line2.setAttribute("points", points(this.seconds).join(" "));
  }

  // describe says in words what the line shows.
  describe(text) {
    this.node.setAttribute("aria-label", this.label + ": " + text);
  }
}

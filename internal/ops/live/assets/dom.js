// The page makes elements only here, and text only as text: nothing that comes
// from an event can become markup.

export const $ = (id) => document.getElementById(id);

// el makes an element. Attributes: class, data-*, aria-*, on* handlers, and
// properties such as title; children are elements or texts.
export function el(tag, attrs, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attrs || {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  add(node, children);
  return node;
}

function add(node, children) {
  for (const child of children.flat(Infinity)) {
    if (child === undefined || child === null || child === false) continue;
    node.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
}

export function fill(node, ...children) {
  node.replaceChildren();
  add(node, children);
}

// refresh brings what is there to what is wanted and touches nothing else, so
// that a selection, the scroll and what a pointer rests on survive.
export function refresh(node, ...children) {
  const want = document.createElement(node.tagName);
  add(want, children);
  morph(node, want);
}

function morph(node, want) {
  for (const { name, value } of want.attributes) if (node.getAttribute(name) !== value) node.setAttribute(name, value);
  let at = node.firstChild;
  for (const next of [...want.childNodes]) {
    if (!at) {
      node.append(next);
      continue;
    }
    const after = at.nextSibling;
    if (at.nodeName !== next.nodeName) at.replaceWith(next);
    else if (next.nodeType === Node.TEXT_NODE) { if (at.data !== next.data) at.data = next.data; }
    else {
      for (const { name } of [...at.attributes]) if (!next.hasAttribute(name)) at.removeAttribute(name);
      morph(at, next);
    }
    at = after;
  }
  while (at) {
    const after = at.nextSibling;
    at.remove();
    at = after;
  }
}

// say sets a text only when it differs, so that nothing is announced or drawn
// twice.
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function tone(node, name) {
  if (node.dataset.tone !== name) node.dataset.tone = name;
}

// facts are the rows of a definition list; those without a value are left out.
export function facts(pairs) {
  return pairs.filter(([, value]) => value !== undefined && value !== null && value !== "")
    .flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]);
}

export function copyButton(text, what) {
  const button = el("button", { type: "button", class: "quiet", "aria-label": "Copy " + what, onclick: copy }, "Copy");
  async function copy() {
    try {
      await navigator.clipboard.writeText(text);
      setText(button, "Copied");
    } catch {
      setText(button, "Not allowed");
    }
    setTimeout(() => setText(button, "Copy"), 1500);
  }
  return button;
}

// announce speaks to a screen reader, politely.
export function announce(text) {
  setText($("announcement"), text);
}

"use strict";
// Keeps the page as the server renders it. Nothing moves that has not changed, and what a person opened stays open.

const live = document.getElementById("live");
const calm = live.textContent;

/** Makes `old` equal to `next`, and touches only what differs. */
function follow(old, next) {
  if (old.isEqualNode(next)) return;
  const same = old.nodeType === Node.ELEMENT_NODE && next.nodeType === Node.ELEMENT_NODE &&
    old.tagName === next.tagName && old.id === next.id;
  if (!same) {
    old.replaceWith(next);
    return;
  }
  for (const { name } of [...old.attributes]) {
    if (!next.hasAttribute(name) && name !== "open") old.removeAttribute(name);
  }
  for (const { name, value } of next.attributes) {
    if (old.getAttribute(name) !== value && name !== "open") old.setAttribute(name, value);
  }
  const [before, after] = [[...old.childNodes], [...next.childNodes]];
  const ids = new Map(before.filter((node) => node.id).map((node) => [node.id, node]));
  const kept = new Set();
  after.forEach((node, index) => {
    const partner = node.id ? ids.get(node.id) : before[index] && !before[index].id ? before[index] : undefined;
    const place = old.childNodes[index];
    if (partner && !kept.has(partner)) {
      kept.add(partner);
      if (place !== partner) old.insertBefore(partner, place || null);
      follow(partner, node);
    } else {
      old.insertBefore(node, place || null);
    }
  });
  while (old.childNodes.length > after.length) old.lastChild.remove();
}

const source = new EventSource("live");
source.addEventListener("page", (event) => {
  live.textContent = calm;
  const next = new DOMParser().parseFromString(event.data, "text/html");
  follow(document.querySelector("main"), next.querySelector("main"));
  document.title = next.title;
});
source.addEventListener("error", () => {
  live.textContent = "The connection to scimtail is lost; what is below may be old.";
});

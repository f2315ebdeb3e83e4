// What page_audit.py measures inside a page.

const parse = (text) => {
  const [r, g, b, a = 1] = text.match(/[\d.]+/g).map(Number);
  return [r, g, b, a];
};

const luminance = ([r, g, b]) => {
  const linear = [r, g, b].map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
  return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
};

const ratio = (a, b) => {
  const [high, low] = [luminance(a), luminance(b)].sort((x, y) => y - x);
  return (high + 0.05) / (low + 0.05);
};

// Every opaque colour that may lie behind an element: its own, that of a decorating ::before, else its ancestors'.
function grounds(element) {
  const found = [];
  for (let node = element; node; node = node.parentElement) {
    const before = getComputedStyle(node, "::before");
    const painted = parse(before.backgroundColor);
    const covers = before.content !== "none" && before.position === "absolute" && painted[3] > 0.99;
    if (covers) found.push(painted);
    if (covers && node.matches("button")) return found;
    const own = parse(getComputedStyle(node).backgroundColor);
    if (own[3] > 0.99) return [...found, own];
  }
  return [...found, [255, 255, 255, 1]];
}

const shown = (element) => element.checkVisibility({ opacityProperty: true, visibilityProperty: true });

function contrasts() {
  const results = [];
  const measure = (element, colour, text) => {
    for (const ground of grounds(element)) {
      results.push({ text: text.trim().slice(0, 40), colour, ground, ratio: ratio(colour, ground) });
    }
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !shown(element)) continue;
    if (element.closest(".unseen, .skip, noscript, script")) continue;
    measure(element, parse(getComputedStyle(element).color), walker.currentNode.data);
  }
  for (const input of document.querySelectorAll("textarea, input")) {
    if (shown(input) && input.placeholder) {
      measure(input, parse(getComputedStyle(input, "::placeholder").color), input.placeholder);
    }
  }
  return results;
}

function targets() {
  return [...document.querySelectorAll("button, summary, input, textarea, a[href]")]
    .filter((element) => shown(element) && !element.matches(".skip"))
    .map((element) => {
      const { width, height } = element.getBoundingClientRect();
      return { name: element.textContent.trim() || element.id, width, height };
    });
}

function unnamed() {
  const named = (element) =>
    element.getAttribute("aria-label")?.trim() ||
    element.labels?.[0]?.textContent.trim() ||
    document.getElementById(element.getAttribute("aria-labelledby"))?.textContent.trim() ||
    (element.matches("button") && element.textContent.trim());
  const all = document.querySelectorAll("button, input, textarea, dialog, [role=log], [role=group], [role=img]");
  return [...all].filter((element) => shown(element) && !named(element)).map((element) => element.outerHTML.slice(0, 120));
}

function overflowing() {
  return [...document.querySelectorAll("body, body *")]
    .filter((element) => shown(element) && !element.closest(".scroll > *, pre, svg") && !element.matches(".unseen, .skip"))
    .filter((element) => element.getBoundingClientRect().right > innerWidth + 1)
    .map((element) => element.outerHTML.slice(0, 100));
}

// The interface's texts: one catalogue a language below /static/texts. A new language is a file there and a line here.

export const LANGUAGES = {
  en: { name: "English", dir: "ltr", said: ["english", "englisch", "en"] },
  de: { name: "Deutsch", dir: "ltr", said: ["german", "deutsch", "de"] },
};

let texts = {};
let current = "en";

export const language = () => current;

// The best of our languages for this browser.
export function preferred() {
  const wanted = navigator.languages.map((tag) => tag.slice(0, 2).toLowerCase());
  return wanted.find((code) => code in LANGUAGES) ?? "en";
}

// The language that a visitor named ("German", "Deutsch"), or undefined.
export function named(words) {
  const said = words.trim().toLowerCase();
  return Object.keys(LANGUAGES).find((code) => LANGUAGES[code].said.includes(said));
}

export async function use(code) {
  const reply = await fetch(`/static/texts/${code}.json`);
  if (!reply.ok) throw new Error(`no texts for ${code}: ${reply.status}`);
  texts = await reply.json();
  current = code;
  document.documentElement.lang = code;
  document.documentElement.dir = LANGUAGES[code].dir;
  translate(document);
}

export const has = (key) => key in texts;

export function say(key, values = {}) {
  if (!has(key)) throw new Error(`no text ${key} in ${current}`);
  return texts[key].replace(/\{(\w+)\}/g, (whole, name) => (name in values ? String(values[name]) : whole));
}

// A node's text that follows the language: the key stays on the node, `translate` fills it again.
export function put(node, key, values) {
  node.dataset.text = key;
  if (values) node.dataset.values = JSON.stringify(values);
  else delete node.dataset.values;
  node.textContent = say(key, values);
  return node;
}

function translate(root) {
  for (const node of root.querySelectorAll("[data-text]")) {
    node.textContent = say(node.dataset.text, JSON.parse(node.dataset.values ?? "{}"));
  }
  for (const node of root.querySelectorAll("[data-label]")) node.setAttribute("aria-label", say(node.dataset.label));
  for (const node of root.querySelectorAll("[data-hint]")) node.placeholder = say(node.dataset.hint);
}

// Names of languages in the interface's own language: "English and German".
export function languageNames(codes) {
  const names = new Intl.DisplayNames(current, { type: "language" });
  return new Intl.ListFormat(current, { type: "disjunction" }).format(codes.map((code) => names.of(code)));
}

/* Keys of the review desk: each presses the button, or follows the link, that names its action.
   Which key does what can be changed on each device; whether there are any, in the account. */

const CHANGED = "review-keys";
const dialog = document.getElementById("keys");
const palette = document.getElementById("palette");
const toggle = document.getElementById("keys-on");
const fields = [...dialog.querySelectorAll("input[data-key-of]")];
const rows = [...document.querySelectorAll("a[data-row]")];
const keys = {};

function read() {
  const changed = JSON.parse(localStorage.getItem(CHANGED) ?? "{}");
  for (const field of fields) {
    const name = field.dataset.keyOf;
    keys[name] = changed[name] ?? field.defaultValue;
    field.value = keys[name].toUpperCase();
  }
}

/** Write each key where its action stands, also in cards that came later. */
function show() {
  const name = (key) => (key.length > 1 ? key : key.toUpperCase());
  for (const label of document.querySelectorAll("kbd[data-for]")) {
    label.textContent = name(keys[label.dataset.for] ?? label.dataset.for.split("-").pop());
  }
  for (const one of document.querySelectorAll("[data-opens], [data-swaps]")) one.hidden = false;
  for (const one of document.querySelectorAll("[data-action]")) {
    const key = keys[one.dataset.action];
    if (key && toggle.checked) one.setAttribute("aria-keyshortcuts", name(key));
    else one.removeAttribute("aria-keyshortcuts");
  }
}

const isTyping = (element) =>
  element.closest("input:not([type=radio], [type=checkbox]), textarea, select, [contenteditable]");

/** What an action is for: in the part of the page with the focus, if that has keys of its own. */
function find(action) {
  const all = [...document.querySelectorAll(`[data-action="${CSS.escape(action)}"]`)];
  const shown = all.filter((one) => one.checkVisibility() && !one.closest("dialog"));
  const here = document.activeElement?.closest("[data-keys]");
  return shown.find((one) => here?.contains(one)) ?? shown.find((one) => !one.closest("[data-keys]"));
}

function walk(step) {
  const here = rows.indexOf(document.activeElement);
  const next = here < 0 ? 0 : here + step;
  rows[Math.min(Math.max(next, 0), rows.length - 1)]?.focus();
}

function act(action) {
  const target = find(action);
  if (target) {
    target.click();
    // A menu that a key opened is gone through by keys.
    target.closest("details")?.querySelector("input:not([type=radio]), input:checked")?.focus();
  } else if (action === "next") walk(1);
  else if (action === "previous") walk(-1);
  return Boolean(target) || (rows.length > 0 && (action === "next" || action === "previous"));
}

function press(key) {
  const action = Object.keys(keys).find((name) => keys[name] === key);
  if (/^[1-9]$/.test(key) && !action) return act(`candidate-${key}`);
  return action ? act(action) : false;
}

document.addEventListener("keydown", (event) => {
  const menu = event.key === "Escape" && document.querySelector("details.later[open]");
  if (menu) {
    menu.open = false;
    menu.querySelector("summary").focus();
  }
  if ((event.ctrlKey || event.metaKey) && event.key === "k" && toggle.checked) {
    event.preventDefault();
    openPalette();
    return;
  }
  const withModifier = event.ctrlKey || event.metaKey || event.altKey;
  if (withModifier || event.isComposing || event.repeat || isTyping(event.target)) return;
  const key = event.key === "Enter" ? "enter" : event.key.toLowerCase();
  const isHelp = key === keys.keys;
  if (!toggle.checked && !isHelp) return;
  if (palette.open || (dialog.open && !isHelp)) return;
  // Enter belongs to whatever has the focus; only from nowhere does it start the queue.
  if (key === "enter" && event.target !== document.body) return;
  if (press(key)) event.preventDefault();
});

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-swaps], [data-opens]");
  if (!button) return;
  if (button.dataset.swaps) {
    const within = button.closest("form") ?? document;
    const other = within.querySelector(`input[name="${button.dataset.swaps}"]:not(:checked)`);
    if (other) other.checked = true;
  } else if (button.dataset.opens === "palette") openPalette();
  else if (dialog.open) dialog.close();
  else dialog.showModal();
});

/* The palette: every action of the page by its name. */

const search = palette.querySelector("input");
const list = palette.querySelector("ul");

const named = (one) => {
  const copy = one.cloneNode(true);
  for (const key of copy.querySelectorAll("kbd")) key.remove();
  return copy.textContent.trim().replace(/\s+/g, " ");
};

function openPalette() {
  if (palette.open) return;
  if (dialog.open) dialog.close();
  const found = document.querySelectorAll("main [data-action], nav a");
  const shown = [...found].filter(
    (one) =>
      one.checkVisibility() && one.dataset.action !== "palette" && !one.closest("[data-keys]"),
  );
  list.replaceChildren(
    ...shown.map((one) => {
      const button = Object.assign(document.createElement("button"), {
        type: "button",
        textContent: named(one),
      });
      button.addEventListener("click", () => {
        palette.close();
        if (one.dataset.action) act(one.dataset.action);
        else one.click();
      });
      const item = document.createElement("li");
      item.append(button);
      return item;
    }),
  );
  search.value = "";
  palette.showModal();
  search.focus();
}

const offered = () => [...list.children].filter((item) => !item.hidden);

search.addEventListener("input", () => {
  const words = search.value.toLowerCase().split(/\s+/);
  for (const item of list.children) {
    const text = item.textContent.toLowerCase();
    item.hidden = !words.every((word) => text.includes(word));
  }
});

palette.addEventListener("keydown", (event) => {
  const buttons = offered().map((item) => item.firstElementChild);
  const here = buttons.indexOf(document.activeElement);
  if (event.key === "Enter" && event.target === search) buttons[0]?.click();
  else if (event.key === "ArrowDown") buttons[Math.min(here + 1, buttons.length - 1)]?.focus();
  else if (event.key === "ArrowUp") (buttons[here - 1] ?? search).focus();
  else return;
  event.preventDefault();
});

/* Changing keys. */

for (const field of fields) {
  field.addEventListener("keydown", (event) => {
    if (event.key.length !== 1 || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    const key = event.key.toLowerCase();
    const name = field.dataset.keyOf;
    const other = Object.keys(keys).find((one) => keys[one] === key && one !== name);
    const changed = { ...keys, [name]: key };
    if (other) changed[other] = keys[name]; // the two change places: none is left without a key
    localStorage.setItem(CHANGED, JSON.stringify(changed));
    read();
    show();
  });
}

dialog.querySelector("[data-resets]").addEventListener("click", () => {
  localStorage.removeItem(CHANGED);
  read();
  show();
});

toggle.addEventListener("change", () => {
  const { form } = toggle;
  fetch(form.action, { method: "POST", body: new FormData(form), keepalive: true });
  show();
});

document.addEventListener("desk:shown", show);
read();
show();

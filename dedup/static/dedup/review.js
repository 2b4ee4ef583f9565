/* Keys for the review queue: each presses the button, or follows the link, that carries its letter. */

const OFF = "review-keys-off";
const dialog = document.getElementById("keys");
const toggle = document.getElementById("keys-on");
const rows = [...document.querySelectorAll("a[data-row]")];

const isTyping = (element) =>
  element.closest("input:not([type=radio], [type=checkbox]), textarea, select, [contenteditable]");

function swap(name) {
  const other = document.querySelector(`input[name="${name}"]:not(:checked)`);
  if (other) other.checked = true;
}

function walk(step) {
  const here = rows.indexOf(document.activeElement);
  const next = here < 0 ? 0 : here + step;
  rows[Math.min(Math.max(next, 0), rows.length - 1)]?.focus();
}

function press(key) {
  const target = document.querySelector(`[data-key="${CSS.escape(key)}"]`);
  if (target) target.click();
  else if (key === "j") walk(1);
  else if (key === "k") walk(-1);
  return Boolean(target) || (rows.length > 0 && (key === "j" || key === "k"));
}

document.addEventListener("keydown", (event) => {
  const withModifier = event.ctrlKey || event.metaKey || event.altKey;
  if (withModifier || event.isComposing || event.repeat || isTyping(event.target)) return;
  if (!toggle.checked && event.key !== "?") return;
  if (dialog.open && event.key !== "?") return;
  // Enter belongs to whatever has the focus; only from nowhere does it start the queue.
  if (event.key === "Enter" && event.target !== document.body) return;
  if (press(event.key.toLowerCase())) event.preventDefault();
});

for (const button of document.querySelectorAll("[data-swaps], [data-opens]")) button.hidden = false;

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-swaps], [data-opens]");
  if (!button) return;
  if (button.dataset.swaps) swap(button.dataset.swaps);
  else if (dialog.open) dialog.close();
  else dialog.showModal();
});

toggle.checked = localStorage.getItem(OFF) === null;
toggle.addEventListener("change", () => {
  if (toggle.checked) localStorage.removeItem(OFF);
  else localStorage.setItem(OFF, "1");
});

/* The ask page: says when similar questions cannot be looked for, adds what is different to the
   details, and counts that a suggestion was opened. */

const form = document.querySelector("#ask-form");
const status = document.querySelector("#similar-status");
const line = document.querySelector("#id_difference");
const add = form.querySelector("button[data-words]");

for (const failure of ["htmx:sendError", "htmx:responseError", "htmx:timeout"]) {
  document.addEventListener(failure, () => {
    status.textContent = status.dataset.failed;
    document.querySelector("#similar").replaceChildren(); // it was found for an older text
  });
}

const addDifference = () => {
  const said = line.value.trim();
  if (!said) return line.focus();
  const body = form.elements.body;
  const words = add.dataset.words.replace("%(difference)s", () => said);
  body.value = `${body.value.trimEnd()}\n\n${words}`.trimStart();
  line.value = "";
  body.dispatchEvent(new Event("input", { bubbles: true }));
  status.textContent = add.dataset.added;
  add.closest("details").open = false;
  add.closest("details").querySelector("summary").focus(); // what had the focus is folded away
};

add?.addEventListener("click", addDifference);
line?.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || !add || event.isComposing) return;
  event.preventDefault(); // it would send the question
  addDifference();
});

/* That one was opened, not which: once for each page. */
let isNoted = false;

const noteOpened = (event) => {
  if (isNoted || !event.target.closest?.(".similar a, .similar details")) return;
  isNoted = true;
  const token = form.elements.csrfmiddlewaretoken.value;
  const body = new URLSearchParams({ csrfmiddlewaretoken: token });
  fetch(form.dataset.opened, { method: "POST", body, keepalive: true }).catch(() => {
    isNoted = false;
  });
};

for (const opening of ["click", "auxclick", "toggle"]) {
  document.addEventListener(opening, noteOpened, true); // a toggle does not bubble
}

/* Words of the two sides that mean each other: pointing at one lights its partner, a key numbers
   them all. Cards may come later, so whatever is listened to is the document. */

const NUMBERED = "review-words";
const desk = document.getElementById("desk");

const wordAt = (event) => event.target.closest?.("[data-card] [data-word]");

function light(word) {
  for (const one of desk.querySelectorAll(".lit")) one.classList.remove("lit");
  if (!word) return;
  const number = CSS.escape(word.dataset.word);
  const card = word.closest("[data-card]");
  for (const one of card.querySelectorAll(`[data-word="${number}"]`)) one.classList.add("lit");
}

/** Write what is chosen where it shows, also in cards that came later. */
function show() {
  const isOn = localStorage.getItem(NUMBERED) !== null;
  desk.classList.toggle("with-words", isOn);
  for (const button of desk.querySelectorAll("[data-action=words]")) {
    button.setAttribute("aria-pressed", String(isOn));
    button.hidden = false;
  }
}

document.addEventListener("pointerover", (event) => {
  if (event.pointerType !== "touch") light(wordAt(event));
});

document.addEventListener("click", (event) => {
  light(wordAt(event)); // a finger does not hover: it taps, and taps elsewhere to end it
  if (!event.target.closest("[data-action=words]")) return;
  if (localStorage.getItem(NUMBERED) === null) localStorage.setItem(NUMBERED, "1");
  else localStorage.removeItem(NUMBERED);
  show();
});

document.addEventListener("desk:shown", show);
show();

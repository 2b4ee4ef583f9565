/* The review desk without reloads: the next card is there before the decision has arrived.
   Without this script each decision is a form that leads to the next page. */

const desk = document.getElementById("desk");
const toasts = document.getElementById("toasts");
const PART = { "X-Desk": "1" };
const HEARTBEAT = 60_000;
const TOAST = 30_000;
const MOST_TOASTS = 3;
const ahead = [];
let running = 0; // decisions that are being told to the server
let last = ""; // the address of the card that was shown last

const current = () => desk.querySelector("[data-card]");
const token = () => document.querySelector("input[name=csrfmiddlewaretoken]").value;
const known = new Set([current().dataset.card]); // cards that have been here
const underway = new Set(); // cards whose decision has not arrived

function withHeld(data) {
  const held = [current(), ...ahead].filter(Boolean);
  for (const card of held) data.append("held", card.dataset.card);
  for (const id of underway) data.append("without", id);
  return data;
}

/** Keep the cards of an answer for later; return the rest of it. */
function take(text) {
  const answer = new DOMParser().parseFromString(text, "text/html");
  for (const one of answer.querySelectorAll("template[data-ahead-card]")) {
    const card = document.importNode(one.content, true).firstElementChild;
    if (!known.has(card.dataset.card)) ahead.push(card);
    known.add(card.dataset.card);
  }
  return answer;
}

/** A card that came ahead does not know which one stood before it. */
function leadBack(card, address) {
  if (!address || card.querySelector("[data-action=previous]")) return;
  const back = document.getElementById("to-previous").content.cloneNode(true).firstElementChild;
  back.href = address;
  card.querySelector("nav.actions").prepend(back);
}

function show(card) {
  leadBack(card, current()?.dataset.address ?? last);
  desk.replaceChildren(card);
  desk.removeAttribute("aria-busy");
  history.pushState({}, "", card.dataset.address);
  document.dispatchEvent(new Event("desk:shown"));
  scrollTo(0, 0);
  card.querySelector("h1").focus({ preventScroll: true });
}

function goOn() {
  const next = ahead.shift();
  last = current()?.dataset.address ?? last;
  if (next) show(next);
  else {
    desk.replaceChildren(document.getElementById("fetching").content.cloneNode(true));
    desk.setAttribute("aria-busy", "true");
  }
}

function toast(element) {
  toasts.prepend(element);
  while (toasts.children.length > MOST_TOASTS) toasts.lastElementChild.remove();
  document.dispatchEvent(new Event("desk:shown"));
  if (element.dataset.toast !== "kept") setTimeout(() => element.remove(), TOAST);
}

/** Say that a decision was not stored, and lead back to its card. */
function refuse(reason, address) {
  const note = document.getElementById("not-stored").content.cloneNode(true).firstElementChild;
  note.querySelector("[data-reason]").textContent = reason;
  note.querySelector("a").href = address;
  toast(note);
}

/** Go on at once; whoever comes back last, with nothing to show, asks for more or leaves. */
async function decide(form, submitter) {
  running += 1;
  const elsewhere = await deliver(form, submitter);
  if (!current() && ahead.length) goOn();
  if (!current()) await refill().catch(() => {});
  running -= 1;
  if (current() || running) return;
  if (ahead.length) goOn();
  else location.assign(elsewhere ?? desk.dataset.queue);
}

/** Send a decision; give the address to go to where it was not stored. */
async function deliver(form, submitter) {
  const { address, card: id } = current().dataset;
  const data = new FormData(form, submitter);
  underway.add(id);
  goOn();
  let answer;
  let text;
  try {
    answer = await fetch(form.action, {
      method: "POST",
      body: withHeld(data),
      headers: PART,
      keepalive: true,
    });
    text = await answer.text();
  } catch {
    underway.delete(id);
    refuse("", address);
    return address;
  }
  underway.delete(id);
  if (answer.ok && !answer.redirected) {
    const done = take(text).querySelector("[data-toast]");
    if (done) toast(document.importNode(done, true));
    return undefined;
  }
  const refused = new DOMParser().parseFromString(text, "text/html");
  const card = refused.querySelector("[data-card]");
  if (!current() && !ahead.length && card) {
    show(document.importNode(card, true)); // nothing else to look at: it says itself why
  } else {
    refuse(refused.querySelector("[role=alert] strong")?.textContent ?? "", address);
  }
  return address;
}

async function refill() {
  const wanted = withHeld(new URLSearchParams(location.search));
  const answer = await fetch(`${desk.dataset.ahead}?${wanted}`, { headers: PART });
  if (answer.ok && !answer.redirected) take(await answer.text());
}

document.addEventListener("submit", (event) => {
  if (!event.target.matches("form[data-decides]")) return;
  event.preventDefault();
  decide(event.target, event.submitter);
});

document.addEventListener("click", (event) => {
  const link = event.target.closest("a[data-action=next]");
  if (!link || !ahead.length) return;
  event.preventDefault();
  goOn(); // what is passed by stays held until this page is left
});

addEventListener("popstate", () => location.reload());

async function beat() {
  const data = withHeld(new FormData());
  data.append("csrfmiddlewaretoken", token());
  const answer = await fetch(desk.dataset.hold, { method: "POST", body: data, headers: PART });
  if (!answer.ok || answer.redirected) return;
  const presence = document.getElementById("presence");
  presence.outerHTML = await answer.text();
}

addEventListener("pagehide", () => {
  const data = withHeld(new FormData());
  data.append("csrfmiddlewaretoken", token());
  navigator.sendBeacon(desk.dataset.letGo, data);
});

setInterval(() => beat().catch(() => {}), HEARTBEAT);
beat().catch(() => {}); // the page before may have let go of what this one shows
refill().catch(() => {});

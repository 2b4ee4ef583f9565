/* Holds the pairs of a page while it is open, and lets go of them when it is left.
   Without this script they are held for as long as the server gives a page. */

const form = document.querySelector("form[data-hold]");
const HEARTBEAT = 60_000;

function held() {
  const data = new FormData();
  for (const pair of form.querySelectorAll("input[name=flag]")) data.append("held", pair.value);
  data.append("csrfmiddlewaretoken", form.querySelector("[name=csrfmiddlewaretoken]").value);
  return data;
}

async function beat() {
  const answer = await fetch(form.dataset.hold, { method: "POST", body: held() });
  if (!answer.ok || answer.redirected) return;
  document.getElementById("presence").outerHTML = await answer.text();
}

addEventListener("pagehide", () => navigator.sendBeacon(form.dataset.letGo, held()));
setInterval(() => beat().catch(() => {}), HEARTBEAT);
beat().catch(() => {}); // the page before may have let go of what this one shows

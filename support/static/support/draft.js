/* Keeps what somebody has typed in this tab until it is sent, so that a reload loses nothing. */

const KEPT = "input[type=text], input[type=radio]:checked, textarea, select";

for (const form of document.querySelectorAll("form[data-draft]")) {
  const key = `draft:${form.dataset.draft}`;

  const save = () => {
    const fields = [...form.querySelectorAll(KEPT)];
    const typed = Object.fromEntries(fields.map((field) => [field.name, field.value]));
    sessionStorage.setItem(key, JSON.stringify(typed));
  };

  const put = (field, value) => {
    if (field.type === "radio") {
      if (form.hasAttribute("data-bound")) return; // what was sent is shown
      field.checked = field.value === value;
    } else if (!field.value) {
      field.value = value;
      field.dispatchEvent(new Event("input", { bubbles: true }));
    }
  };

  // A page that comes with another title than that of the draft is about something else.
  const isAnother = (typed) => form.elements.title?.value && form.elements.title.value !== typed.title;

  const restore = () => {
    const typed = JSON.parse(sessionStorage.getItem(key) ?? "{}");
    if (isAnother(typed)) return;
    for (const field of form.querySelectorAll(KEPT.replace(":checked", ""))) {
      if (typed[field.name]) put(field, typed[field.name]);
    }
    if (typed.title ?? typed.body) save(); // each of them was saved alone
  };

  // By then htmx listens, and looks for similar questions to what was restored.
  document.addEventListener("DOMContentLoaded", restore);
  form.addEventListener("input", save);
  form.addEventListener("change", save);
  form.addEventListener("submit", () => sessionStorage.removeItem(key));
}

/* After "this solved it": the draft is there until somebody says that they are done with it. */
for (const choice of document.querySelectorAll("[data-draft-of]")) {
  const key = `draft:${choice.dataset.draftOf}`;
  choice.hidden = !sessionStorage.getItem(key);
  choice.querySelector("button").addEventListener("click", () => {
    sessionStorage.removeItem(key);
    choice.textContent = choice.dataset.gone;
  });
}

/* Keeps what somebody has typed in this tab until it is sent, so that a reload loses nothing. */

for (const form of document.querySelectorAll("form[data-draft]")) {
  const key = `draft:${form.dataset.draft}`;
  const fields = [...form.querySelectorAll("input[type=text], textarea, select")];

  const save = () => {
    const typed = Object.fromEntries(fields.map((field) => [field.name, field.value]));
    sessionStorage.setItem(key, JSON.stringify(typed));
  };

  const restore = () => {
    const typed = JSON.parse(sessionStorage.getItem(key) ?? "{}");
    for (const field of fields) {
      if (!field.value && typed[field.name]) {
        field.value = typed[field.name];
        field.dispatchEvent(new Event("input", { bubbles: true }));
      }
    }
  };

  // By then htmx listens, and looks for similar questions to what was restored.
  document.addEventListener("DOMContentLoaded", restore);
  form.addEventListener("input", save);
  form.addEventListener("change", save);
  form.addEventListener("submit", () => sessionStorage.removeItem(key));
}

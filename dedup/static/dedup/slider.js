/* The page of thresholds: the slider and the number beside it are one. What comes of it, htmx
   fetches. */

const range = document.querySelector("#at");
const number = document.querySelector("#number");

range.addEventListener("input", () => (number.value = range.value));
number.addEventListener("input", () => (range.value = number.value));

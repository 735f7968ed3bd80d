// Times in the reader's own zone; copy buttons. The page works without either.
"use strict";
for (const time of document.querySelectorAll("time[datetime]")) {
  const at = new Date(time.dateTime);
  if (isNaN(at)) continue;
  const two = (n) => String(n).padStart(2, "0");
  const fraction = /\.\d+Z$/.test(time.dateTime) ? "." + String(at.getMilliseconds()).padStart(3, "0") : "";
  const seconds = fraction ? ":" + two(at.getSeconds()) + fraction : "";
  time.title = time.dateTime;
  time.textContent = `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ${two(at.getHours())}:${two(at.getMinutes())}${seconds}`;
}
document.addEventListener("click", async (event) => {
  const button = event.target.closest("button[data-copy]");
  if (!button) return;
  const source = document.getElementById(button.dataset.copy);
  const words = button.textContent;
  try {
    await navigator.clipboard.writeText(source.textContent);
    button.textContent = "✓";
  } catch {
    // Without HTTPS or loopback there is no clipboard: select, so that the keyboard can copy.
    getSelection().selectAllChildren(source);
  }
  setTimeout(() => { button.textContent = words; }, 1500);
});

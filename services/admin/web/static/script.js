// Improves what works without it: times in the reader's zone, buttons that copy, pages that refresh themselves.
"use strict";

// "Nov 22" or "22 Nov": English says neither by itself, so the browser's own English is taken.
const locale = [document.documentElement.lang, ...navigator.languages].reverse()
  .find((each) => each.split("-")[0] === document.documentElement.lang.split("-")[0]);

function showTimes(within) {
  for (const time of within.querySelectorAll("time[data-show]")) {
    const at = new Date(time.dateTime);
    if (isNaN(at)) continue;
    const clock = { hour: "2-digit", minute: "2-digit", hourCycle: "h23" };
    const day = { year: "numeric", month: "short", day: "numeric" };
    const parts = {
      clock: { ...clock, second: "2-digit", fractionalSecondDigits: 3 },
      day,
      moment: { ...day, ...clock, timeZoneName: "short" },
    }[time.dataset.show];
    time.textContent = new Intl.DateTimeFormat(locale, parts).format(at);
    time.title = time.dateTime;
  }
}

function say(words) {
  const place = document.getElementById("said");
  place.textContent = "";
  setTimeout(() => { place.textContent = words; }, 50);
}

function offerCopies(within) {
  for (const button of within.querySelectorAll("button[data-copy]")) button.hidden = false;
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest("button[data-copy]");
  if (!button || button.dataset.words) return;
  const source = document.getElementById(button.dataset.copy);
  try {
    await navigator.clipboard.writeText(source.textContent);
  } catch {
    // Without HTTPS or loopback there is no clipboard: select, so that the keyboard can copy.
    getSelection().selectAllChildren(source);
    return;
  }
  button.dataset.words = button.textContent;
  button.textContent = "✓ " + document.body.dataset.copied;
  say(document.body.dataset.copied);
  setTimeout(() => { button.textContent = button.dataset.words; delete button.dataset.words; }, 1600);
});

// What is marked data-live is fetched again while somebody can see it and nobody works in it.
async function refresh() {
  const live = document.querySelector("[data-live]");
  if (!live || document.hidden || live.contains(document.activeElement)) return;
  const answer = await fetch(location.href, { headers: { "X-Live": "1" }, redirect: "error" });
  if (!answer.ok) return;
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").querySelector("[data-live]");
  if (!fresh || live.contains(document.activeElement)) return;
  showTimes(fresh);
  offerCopies(fresh);
  if (fresh.innerHTML !== live.innerHTML) live.replaceWith(fresh);
}
if (document.querySelector("[data-live]") && !location.search) setInterval(() => refresh().catch(() => {}), 15000);

showTimes(document);
offerCopies(document);

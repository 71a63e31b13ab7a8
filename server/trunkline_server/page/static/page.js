// What the page does beyond showing: local times, calls as they end, keys. Without it everything else works.

const MOST_ROWS = 200;
const AGAIN_MS = 3000;

// -- times ------------------------------------------------------------------------------------------------------------

const two = (number) => String(number).padStart(2, "0");

/** Local time, to the second; only the time of day if it is today. */
function local(at) {
  const day = `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
  const time = `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
  return at.toDateString() === new Date().toDateString() ? time : `${day} ${time}`;
}

/** For an axis: the day where the plot is of days, else the time of day. */
function brief(at, wide) {
  const day = at.toLocaleDateString(undefined, { day: "numeric", month: "short" });
  const time = `${two(at.getHours())}:${two(at.getMinutes())}`;
  return wide ? day : time;
}

function tellTimes(root) {
  for (const time of root.querySelectorAll("time[datetime]")) {
    const at = new Date(time.dateTime);
    time.title ||= time.textContent;
    time.textContent = "brief" in time.dataset ? brief(at, time.dataset.brief === "day") : local(at);
  }
  for (const box of root.querySelectorAll("[data-at]")) {
    const title = box.querySelector("title");
    title.textContent = `${local(new Date(box.dataset.at)).slice(0, -3)}  ${title.textContent}`;
  }
}

// -- calls as they end ------------------------------------------------------------------------------------------------

const button = document.getElementById("live");
const rows = document.getElementById("rows");
const told = document.getElementById("live-told");
let events;

function follow() {
  let arrived = 0;
  events = new EventSource(button.dataset.tail);
  const say = (text) => (told.textContent = text);
  events.addEventListener("open", () => say("Following."));
  events.addEventListener("call", (event) => {
    const holder = document.createElement("tbody");
    // Rows of the server's own templates, which escape all that came from outside.
    holder.innerHTML = event.data;
    tellTimes(holder);
    const row = holder.firstElementChild;
    row.classList.add("new");
    rows.prepend(row);
    rows.closest(".card").querySelector(".empty")?.remove();
    while (rows.children.length > MOST_ROWS) rows.lastElementChild.remove();
    arrived += 1;
    say(`Following: ${arrived} new call${arrived === 1 ? "" : "s"}.`);
  });
  events.addEventListener("dropped", (event) => say(`Following; ${event.data} came too fast to show.`));
  // Who was signed in enters a key again.
  events.addEventListener("ended", () => location.reload());
  events.addEventListener("error", () => {
    if (events?.readyState !== EventSource.CLOSED) return;
    say("Calls cannot be followed now; trying again.");
    setTimeout(() => events?.readyState === EventSource.CLOSED && follow(), AGAIN_MS);
  });
}

function toggleLive() {
  const on = button.getAttribute("aria-pressed") !== "true";
  if (on && button.dataset.first) {
    sessionStorage.setItem("live", "1");
    location.assign(button.dataset.first);
    return;
  }
  button.setAttribute("aria-pressed", String(on));
  events?.close();
  events = undefined;
  told.textContent = "";
  if (on) follow();
}

// -- keys -------------------------------------------------------------------------------------------------------------

const help = document.getElementById("help");

function step(by) {
  const links = [...document.querySelectorAll(".calls tbody a")];
  const now = links.indexOf(document.activeElement);
  links[Math.min(Math.max(now + by, 0), links.length - 1)]?.focus();
}

const KEYS = {
  j: () => step(1),
  k: () => step(-1),
  u: () => document.getElementById("up")?.click(),
  l: () => button?.click(),
  "/": () => document.querySelector(".filter input")?.focus(),
  "?": () => help.showModal(),
  gc: () => location.assign("/"),
  gu: () => location.assign("/usage"),
};
let before = "";

addEventListener("keydown", (event) => {
  const typing = event.target.closest?.("input, select, textarea, [contenteditable]");
  if (typing || help.open || event.ctrlKey || event.metaKey || event.altKey) return;
  const action = KEYS[before + event.key] ?? KEYS[event.key];
  before = event.key === "g" ? "g" : "";
  if (action) {
    event.preventDefault();
    action();
  }
});

// -- begin ------------------------------------------------------------------------------------------------------------

tellTimes(document);
for (const hidden of [button, document.getElementById("keys")]) if (hidden) hidden.hidden = false;
button?.addEventListener("click", toggleLive);
document.getElementById("keys")?.addEventListener("click", () => help.showModal());
// The list as it was left, with its filter and page.
const up = document.getElementById("up");
if (up) {
  const list = sessionStorage.getItem("list");
  if (list) up.href = list;
} else if (location.pathname === "/") {
  sessionStorage.setItem("list", location.pathname + location.search);
}
if (button && sessionStorage.getItem("live")) {
  sessionStorage.removeItem("live");
  toggleLive();
}

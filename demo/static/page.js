// The page around the room: its rooms, its theme, its height.
import { recall, remember } from "./me.js";

const ROOMS_REMEMBERED = 12;

const $ = (id) => document.getElementById(id);
const { room } = document.body.dataset;

/* ---- rooms that were opened before ---- */

const listed = () => [...$("rooms").querySelectorAll("a")].map((link) => decodeURIComponent(link.pathname.split("/").pop()));
const given = new Set(listed());
let opened = [];
try {
  opened = JSON.parse(recall("rooms") ?? "[]").filter((name) => typeof name === "string" && name);
} catch {
  // Not ours.
}
for (const name of opened) {
  if (given.has(name)) continue;
  const item = document.createElement("li");
  const link = document.createElement("a");
  link.href = `/r/${encodeURIComponent(name)}`;
  link.textContent = name;
  item.append(link);
  $("rooms").append(item);
}
remember("rooms", JSON.stringify([room, ...opened.filter((name) => name !== room)].slice(0, ROOMS_REMEMBERED)));

/* ---- theme ---- */

const THEMES = { automatic: "light", light: "dark", dark: "automatic" };
let theme = recall("theme") in THEMES ? recall("theme") : "automatic";

function showTheme() {
  $("theme").textContent = `Theme: ${theme}`;
  if (theme === "automatic") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
}
$("theme").addEventListener("click", () => {
  theme = THEMES[theme];
  remember("theme", theme);
  showTheme();
});
showTheme();

/* ---- the room's address ---- */

$("share").addEventListener("click", async () => {
  const address = location.origin + location.pathname;
  try {
    await navigator.clipboard.writeText(address);
    $("share").textContent = "Copied";
    setTimeout(() => ($("share").textContent = "Copy link"), 2000);
  } catch {
    prompt("The address of this room:", address); // the clipboard is for https and localhost only
  }
});

/* ---- height ---- */

// Safari lays its keyboard over the page; this keeps the message box above it.
const view = window.visualViewport;
function fit() {
  if (!view || view.scale > 1.01) return; // zoomed in, which is none of our business
  document.documentElement.style.setProperty("--height", `${view.height}px`);
  window.scrollTo(0, 0);
}
view?.addEventListener("resize", fit);

// The drawer with the rooms is a part of the page where there is room for it.
matchMedia("(min-width: 800px)").addEventListener("change", () => {
  if ($("side").matches(":popover-open")) $("side").hidePopover();
});

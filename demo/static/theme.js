// Runs before the page is painted, so that a chosen theme does not flash in late.
"use strict";
try {
  const theme = localStorage.getItem("chat:theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch {
  // No storage: the system's theme.
}

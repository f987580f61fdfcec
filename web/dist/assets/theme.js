// Before the first paint: the theme and the language that were chosen earlier.
// A classic script, since modules run after the page was drawn.
try {
  const root = document.documentElement;
  const theme = localStorage.getItem("caesarion.theme");
  if (theme === "light" || theme === "dark") root.dataset.theme = theme;
  const language = localStorage.getItem("caesarion.language") || navigator.language;
  root.lang = language.startsWith("de") ? "de" : "en";
} catch {
  // Storage is refused: the system's theme it is.
}

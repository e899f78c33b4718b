// The chosen colours, set before the first paint (a classic script in the head, so that nothing flashes).
(() => {
  const KEY = "dolmen-theme";
  const read = () => {
    try { return localStorage.getItem(KEY) ?? "auto"; } catch { return "auto"; }
  };
  const apply = (choice) => {
    if (choice === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = choice;
  };
  apply(read());
  addEventListener("DOMContentLoaded", () => {
    const choices = document.getElementById("theme");
    const chosen = choices.querySelector(`[value="${CSS.escape(read())}"]`);
    if (chosen) chosen.checked = true;
    choices.addEventListener("change", (event) => {
      apply(event.target.value);
      try { localStorage.setItem(KEY, event.target.value); } catch { /* A private window: the choice lasts for this page. */ }
    });
  });
})();

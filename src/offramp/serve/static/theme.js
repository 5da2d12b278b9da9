// Light, dark, or as the system has it. A plain script in the head, so that no page is ever drawn in the wrong colours.
(() => {
  const THEMES = ["auto", "light", "dark"];

  function remembered() {
    try {
      return localStorage.getItem("offramp-theme");
    } catch {
      return null; // Storage is forbidden: the choice lasts as long as the page.
    }
  }

  function remember(theme) {
    try {
      localStorage.setItem("offramp-theme", theme);
    } catch {
      // As above.
    }
  }

  function apply(theme) {
    document.documentElement.dataset.theme = theme;
  }

  apply(THEMES.includes(remembered()) ? remembered() : "auto");

  addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    const say = () => {
      button.textContent = `Theme: ${document.documentElement.dataset.theme}`;
    };
    button.addEventListener("click", () => {
      const next = THEMES[(THEMES.indexOf(document.documentElement.dataset.theme) + 1) % THEMES.length];
      apply(next);
      remember(next);
      say();
    });
    say();
  });
})();

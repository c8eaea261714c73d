// The theme, set before anything is drawn: a classic script in the head, so that nothing flashes.
(() => {
  const NAME = "palate.theme";
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const chosen = () => localStorage.getItem(NAME) ?? "system";

  function apply() {
    const value = chosen();
    document.documentElement.dataset.theme = value === "system" ? (dark.matches ? "dark" : "light") : value;
    window.dispatchEvent(new Event("themechange"));
  }

  window.palateTheme = {
    chosen,
    choose(value) {
      if (value === "system") localStorage.removeItem(NAME);
      else localStorage.setItem(NAME, value);
      apply();
    },
  };
  dark.addEventListener("change", apply);
  apply();
})();

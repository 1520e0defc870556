// Theme: light, dark, or as the system is; set before the first paint.
"use strict";
(() => {
  const saved = localStorage.getItem("edgeserve-theme");
  if (saved === "light" || saved === "dark") document.documentElement.dataset.theme = saved;
})();

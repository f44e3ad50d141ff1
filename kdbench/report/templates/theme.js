"use strict";
// Before anything is drawn: the theme that was chosen last, and that scripts run.
document.documentElement.classList.add("js");
try {
  const theme = localStorage.getItem("kdbench-theme");
  if (theme) document.documentElement.dataset.theme = theme;
} catch { /* no storage, as some browsers have it for files: the automatic theme */ }

// The tabs, and what all of them share.

import { showAbout } from "./about.js";
import { request } from "./api.js";
import { setUpAudio } from "./audio.js";
import { setUpImage } from "./image.js";
import { setUpPriors } from "./priors.js";

const tabs = [...document.querySelectorAll("[role=tab]")];

function select(tab) {
  for (const each of tabs) {
    const isSelected = each === tab;
    each.ariaSelected = isSelected;
    each.tabIndex = isSelected ? 0 : -1;
    document.getElementById(each.getAttribute("aria-controls")).hidden = !isSelected;
  }
  history.replaceState(null, "", `#${tab.getAttribute("aria-controls")}`);
  window.dispatchEvent(new Event("resize")); // what was hidden had no size
}

for (const [i, tab] of tabs.entries()) {
  tab.addEventListener("click", () => select(tab));
  tab.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const next = event.key === "Home" ? 0 : event.key === "End" ? tabs.length - 1 : i + step;
    const target = tabs[(next + tabs.length) % tabs.length];
    if (!target) return;
    event.preventDefault();
    select(target);
    target.focus();
  });
}

for (const output of document.querySelectorAll("label output[for]")) {
  const input = document.getElementById(output.htmlFor.value);
  const show = () => { output.value = Number(input.value).toFixed(2); };
  input.addEventListener("input", show);
  show();
}

select(tabs.find((tab) => `#${tab.getAttribute("aria-controls")}` === location.hash) ?? tabs[0]);
try {
  const about = await request("/api/models");
  setUpAudio(about);
  setUpImage(about);
  setUpPriors(about);
  showAbout(about);
  document.body.dataset.ready = "true";
} catch (error) {
  const banner = document.getElementById("offline");
  banner.textContent = error.message;
  banner.hidden = false;
}

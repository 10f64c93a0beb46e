-- container-healthcheck 2.1.0: the page's style and script, and the hash of each for the policy that lets
-- the browser take nothing else. Pure.

local _M = { version = "2.1.0" }

_M.style = [[
:root {
  color-scheme: light dark;
  --back: #fff; --panel: #f6f7f8; --text: #1b1f23; --soft: #5c6670; --line: #dfe3e7;
  --bad: #b3261e; --bad-back: #fdecea; --drained: #7a5200; --good: #1a6b3c; --link: #0b57a4;
}
@media (prefers-color-scheme: dark) {
  :root {
    --back: #14171a; --panel: #1c2024; --text: #e4e7ea; --soft: #9aa4ae; --line: #31373d;
    --bad: #ff8a80; --bad-back: #3a1f1d; --drained: #e5b567; --good: #7ccf9b; --link: #8ab8f0;
  }
}
* { box-sizing: border-box; }
[hidden] { display: none !important; }
body {
  margin: 0 auto; max-width: 96rem; padding: 1.25rem; background: var(--back); color: var(--text);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", "PingFang SC", "Microsoft YaHei",
    "Noto Sans CJK SC", sans-serif;
}
a { color: var(--link); }
header { display: flex; gap: .25rem 1.5rem; flex-wrap: wrap; align-items: baseline; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0; }
h1 span + span::before { content: " · "; color: var(--soft); }
h1 .bad { color: var(--bad); }
h1 .drained { color: var(--drained); }
nav { margin-left: auto; }
nav a + a { margin-left: 1rem; }
dl { display: flex; flex-wrap: wrap; gap: .1rem 1.5rem; margin: .5rem 0 .75rem; color: var(--soft); }
dl div { display: flex; gap: .4rem; min-width: 0; }
dt::after { content: ":"; }
dd { margin: 0; color: var(--text); overflow-wrap: anywhere; }
form { display: flex; flex-wrap: wrap; gap: .5rem 1rem; align-items: center; margin: 0 0 1rem; }
input, button { font: inherit; color: inherit; }
input[type="search"], button {
  background: var(--panel); border: 1px solid var(--line); border-radius: 4px; padding: .2rem .6rem;
}
input[type="search"] { width: 16rem; max-width: 60vw; }
.notice {
  margin: 0 0 1rem; padding: .6rem .9rem; border-left: 4px solid var(--bad);
  background: var(--bad-back); overflow-wrap: anywhere;
}
#silence { position: sticky; top: 0; z-index: 1; }
#fleet { overflow-x: auto; }
table { width: 100%; border-collapse: collapse; }
th {
  text-align: left; font-weight: 500; color: var(--soft); padding: .3rem .6rem;
  border-bottom: 1px solid var(--line); vertical-align: bottom; white-space: nowrap;
}
th small { display: block; font-weight: 400; }
td { padding: .4rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top; }
.state small { display: inline; font-weight: 400; }
td > small { display: block; max-width: 16rem; overflow-wrap: anywhere; }
th.app {
  position: sticky; left: 0; background: var(--back); color: var(--text); font-weight: 600;
  padding-top: .4rem; vertical-align: top; max-width: 20rem; white-space: normal; overflow-wrap: anywhere;
}
th.app .nowhere { color: var(--bad); }
th.bad { color: var(--bad); }
td.bad { background: var(--bad-back); }
small, .soft, time { color: var(--soft); }
.state, time { white-space: nowrap; }
.state i {
  display: inline-block; width: .6em; height: .6em; margin-right: .45em; border-radius: 50%;
  background: currentColor;
}
.state.bad { color: var(--bad); font-weight: 600; }
.state.bad i { border-radius: 0; }
.state.drained, .state.unknown { color: var(--drained); }
.state.drained i { background: none; border: 2px solid currentColor; }
.state.unknown i { background: none; border: 2px dashed currentColor; }
.state.good { color: var(--good); }
footer { margin-top: 1.5rem; color: var(--soft); font-size: .9rem; }
@media (max-width: 44rem) {
  body { padding: .9rem; }
  thead { display: none; }
  table, tbody, tr, th.app { display: block; width: 100%; }
  tr { padding: .5rem .25rem; border-bottom: 1px solid var(--line); }
  th.app { position: static; max-width: none; padding: .05rem .35rem; border: 0; }
  td { display: grid; grid-template-columns: 1fr auto auto; gap: 0 .6rem; padding: .05rem .35rem; border: 0; }
  td::before { content: attr(data-label); color: var(--soft); overflow-wrap: anywhere; }
  td > small { grid-column: 1 / -1; max-width: none; }
  td.absent { display: none; }
  nav { margin-left: 0; }
}
]]

_M.script = [[
"use strict";
(() => {
  const EVERY = 2, PATIENCE = 10;  // seconds
  const silence = document.getElementById("silence"), form = document.querySelector("form");
  const text = form.elements.app_code, only = form.elements.trouble;
  const units = document.body.dataset.units.split(",");
  // The gateway's clock: that of the browser may be another.
  let now = Number(document.body.dataset.now), heard = performance.now();

  const pause = (seconds) => new Promise((done) => setTimeout(done, seconds * 1000));
  const shown = () => new Promise((done) => {
    if (!document.hidden) return done();
    document.addEventListener("visibilitychange", done, { once: true });
  });
  const age = (seconds) => {
    let left = Math.max(seconds, 0);
    for (const [index, size] of [60, 60, 24].entries()) {
      if (left < size) return Math.floor(left) + " " + units[index];
      left /= size;
    }
    return Math.floor(left) + " " + units[3];
  };
  const tick = () => {
    const at = now + (performance.now() - heard) / 1000;
    for (const each of document.querySelectorAll("time[data-at]")) {
      const said = age(at - Number(each.dataset.at));
      if (each.textContent !== said) each.textContent = said;
    }
  };
  const filter = () => {
    const wanted = text.value.trim().toLowerCase();
    let left = 0;
    const rows = document.querySelectorAll("tr[data-app]");
    for (const row of rows) {
      row.hidden = !row.dataset.app.includes(wanted) || (only.checked && !row.dataset.trouble);
      left += !row.hidden;
    }
    const none = document.getElementById("none");
    if (none) none.hidden = left > 0 || (rows.length === 0 && !wanted && !only.checked);
  };
  const remember = () => {
    const url = new URL(location.href), wanted = text.value.trim();
    if (wanted) url.searchParams.set("app_code", wanted); else url.searchParams.delete("app_code");
    if (only.checked) url.searchParams.set("trouble", "1"); else url.searchParams.delete("trouble");
    history.replaceState(null, "", url);
    const other = document.getElementById("language");
    if (!other) return;
    const link = new URL(other.href);
    for (const name of ["app_code", "trouble"]) {
      const value = url.searchParams.get(name);
      if (value) link.searchParams.set(name, value); else link.searchParams.delete(name);
    }
    other.href = link.search;
  };
  const change = () => { filter(); remember(); };
  // The whole fleet is asked for: the filters work here.
  const whole = () => {
    const url = new URL(location.href);
    url.search = "";
    url.searchParams.set("format", "html");
    url.searchParams.set("lang", document.body.dataset.lang);
    return url;
  };
  const take = (html) => {
    const page = new DOMParser().parseFromString(html, "text/html");
    if (!page.getElementById("fleet")) throw new Error("another page");
    const focus = document.activeElement && document.activeElement.getAttribute("href");
    const left = document.getElementById("fleet").scrollLeft;
    // All but the filters, which somebody may be typing in.
    for (const id of ["head", "facts", "notices", "fleet", "foot"]) {
      document.getElementById(id).replaceWith(document.importNode(page.getElementById(id), true));
    }
    document.getElementById("fleet").scrollLeft = left;
    document.title = page.title;
    now = Number(page.body.dataset.now);
    heard = performance.now();
    filter();
    remember();
    if (focus) for (const each of document.links) {
      if (each.getAttribute("href") === focus) { each.focus({ preventScroll: true }); break; }
    }
  };
  const ask = async () => {
    const limit = new AbortController();
    const timer = setTimeout(() => limit.abort(), PATIENCE * 1000);
    try {
      const answer = await fetch(whole(), { cache: "no-store", signal: limit.signal });
      if (!answer.ok) throw new Error(answer.status);
      take(await answer.text());
    } finally {
      clearTimeout(timer);
    }
  };
  const follow = async () => {
    let heardAt = new Date(), failures = 0;
    for (;;) {
      await shown();
      try {
        await ask();
        heardAt = new Date();
        failures = 0;
        silence.hidden = true;
      } catch {
        failures += 1;
        silence.querySelector("span").textContent = heardAt.toLocaleTimeString();
        if (failures > 1) silence.hidden = false;
      }
      tick();
      await pause(EVERY);
    }
  };
  form.querySelector("button").hidden = true;
  form.addEventListener("submit", (event) => { event.preventDefault(); change(); });
  text.addEventListener("input", change);
  only.addEventListener("change", change);
  setInterval(tick, 1000);
  follow();
})();
]]

-- Lua has no SHA-256 of its own. A test says what they have to be.
_M.style_hash = "sha256-WEBPVRTa5HspnVdijsgK6kXHJ3dJ2+mbrK9BQWatTEw="
_M.script_hash = "sha256-+MbsAvZ3KZD493u6q3Esso6Iq+/83qNSUZ+0alr75rI="

return _M

// What the page does beyond plain links and forms: it asks for its changing part again and again, says times as the
// clock here has them, and listens to some keys. Without it everything can be reached all the same.
"use strict";
(() => {
  const FIRST = 1000, LAST = 15000, GROWTH = 1.4, BEAT = 1200, IDLE = 30 * 60 * 1000;
  const trouble = document.getElementById("trouble"), live = document.getElementById("live");
  let pause = FIRST, due = 0, tag = null, timer = null, asking = false, lastInput = Date.now(), lostSince = null;
  const root = document.querySelector(".brand").href;
  const main = () => document.getElementById("main");

  // Times

  const clock = (date) => {
    const two = (n) => String(n).padStart(2, "0");
    const time = `${two(date.getHours())}:${two(date.getMinutes())}`;
    const isToday = date.toDateString() === new Date().toDateString();
    return isToday ? `${time}:${two(date.getSeconds())}`
      : `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())} ${time}`;
  };
  const localise = (root) => {
    for (const time of root.querySelectorAll("time[datetime]")) {
      const date = new Date(time.dateTime);
      if (isNaN(date)) continue;
      const text = clock(date);
      time.textContent = "minute" in time.dataset && text[2] === ":" ? text.slice(0, 5) : text;
      time.title = date.toString();
    }
  };

  // Looking again

  const morph = (text) => {
    const fresh = new DOMParser().parseFromString(text, "text/html").getElementById("main");
    if (!fresh) return;
    localise(fresh);
    const atEnd = [...document.querySelectorAll("pre[data-follow]")]
      .filter((pre) => pre.scrollTop + pre.clientHeight >= pre.scrollHeight - 4).map((pre) => pre.id);
    Idiomorph.morph(main(), fresh, {
      morphStyle: "outerHTML",
      ignoreActiveValue: true,
      callbacks: {
        // What a reader has opened or typed stays.
        beforeAttributeUpdated: (name, node) => !(name === "open" && node.tagName === "DETAILS"),
        beforeNodeMorphed: (node) => !(node.tagName === "INPUT" && node.value !== node.defaultValue),
      },
    });
    for (const id of atEnd) {
      const pre = document.getElementById(id);
      if (pre) pre.scrollTop = pre.scrollHeight;
    }
  };
  const schedule = (ms) => { due = Date.now() + ms; wait(); };
  const wait = () => {
    clearTimeout(timer);
    const isLive = main().dataset.live === "yes" && !document.hidden;
    timer = isLive ? setTimeout(beat, Math.max(0, Math.min(BEAT, due - Date.now()))) : null;
  };
  const isAway = () => lostSince !== null || main().querySelector(".banner[role=alert]") !== null;
  // However seldom it looks: that the database is away, or back, it learns from a few bytes.
  const beat = async () => {
    if (asking) return;
    if (Date.now() >= due || Date.now() - lastInput > IDLE) { look(); return; }
    asking = true;
    let isThere = false;
    try {
      isThere = (await fetch(`${root}alive`, { signal: AbortSignal.timeout(10000), redirect: "error" })).ok;
    } catch { /* nobody is there */ }
    asking = false;
    if (isThere === isAway()) look(); else wait();
  };
  const say = (text) => {
    trouble.hidden = !text;
    if (trouble.textContent !== text) trouble.textContent = text;
    main().classList.toggle("old", Boolean(text) || isAway());
  };
  const look = async () => {
    if (asking) return;
    if (Date.now() - lastInput > IDLE) {
      live.textContent = "Looking has stopped, as nobody has touched this page for half an hour. Any key goes on.";
      return;
    }
    asking = true;
    try {
      const headers = { "X-Fragment": "1" };
      if (tag) headers["If-None-Match"] = tag;
      const signal = AbortSignal.timeout(10000);
      const answer = await fetch(location.href, { headers, signal, cache: "no-store", redirect: "error" });
      if (answer.status === 401) { say("This page is locked: open the address that workerbee dashboard has printed."); return; }
      if (answer.status === 304) {
        pause = Math.min(LAST, pause * GROWTH);
      } else {
        const text = await answer.text();
        if (!text.includes("<main")) throw new Error(`status ${answer.status}`);
        tag = answer.headers.get("ETag");
        morph(text);
        pause = answer.ok ? FIRST : Math.min(LAST, pause * GROWTH);
      }
      lostSince = null;
      say("");
    } catch {
      lostSince = lostSince || new Date();
      say(`The page's own server hasn't answered since ${clock(lostSince)}; what stands here was so before.`);
      pause = Math.min(LAST, pause * GROWTH);
    } finally {
      asking = false;
    }
    schedule(pause);
  };
  const wake = () => {
    const slept = Date.now() - lastInput > IDLE;
    lastInput = Date.now();
    if (slept) { live.textContent = ""; pause = FIRST; schedule(0); }
  };

  // Keys

  const step = (by) => {
    const links = [...document.querySelectorAll("[data-list] li > a:first-child, [data-list] h2 a, [data-list] td:first-child a")];
    const at = links.indexOf(document.activeElement);
    const next = links[Math.max(0, Math.min(links.length - 1, at < 0 ? 0 : at + by))];
    if (next) { next.focus(); next.scrollIntoView({ block: "nearest" }); }
  };
  document.addEventListener("keydown", (event) => {
    wake();
    const isTyping = event.target.closest("input, select, textarea");
    if (isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "j") step(1);
    else if (event.key === "k") step(-1);
    else if (event.key === "/") {
      const find = document.querySelector("[data-find]");
      if (find) { find.focus(); event.preventDefault(); }
    } else {
      const link = document.querySelector(`[data-key="${CSS.escape(event.key)}"]`);
      if (link) link.click();
    }
  });
  for (const name of ["pointerdown", "pointermove", "wheel", "touchstart"]) {
    document.addEventListener(name, wake, { passive: true });
  }
  document.addEventListener("visibilitychange", () => { pause = FIRST; schedule(0); });
  localise(document);
  schedule(FIRST);
})();

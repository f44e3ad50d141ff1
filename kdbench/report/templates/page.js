"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const byId = id => document.getElementById(id);
  const live = byId("live");
  const say = words => { live.textContent = words; };

  // The theme: automatic unless chosen.
  const theme = byId("theme");
  theme.value = document.documentElement.dataset.theme ?? "";
  theme.addEventListener("change", () => {
    if (theme.value) document.documentElement.dataset.theme = theme.value;
    else delete document.documentElement.dataset.theme;
    try {
      localStorage.setItem("kdbench-theme", theme.value);
    } catch { /* not kept: the choice holds for this page */ }
  });

  // Sorting: best or first, the other way round, as it was.
  const collator = new Intl.Collator("en", { numeric: true, sensitivity: "base" });
  const asWritten = new WeakMap();

  function nextOrder(head) {
    const up = !head.classList.contains("number") || head.dataset.better === "lower";
    const [first, second] = up ? ["ascending", "descending"] : ["descending", "ascending"];
    const now = head.getAttribute("aria-sort");
    return now === null ? first : now === first ? second : null;
  }

  function compare(place, numeric, sign) {
    const text = row => row.cells[place].dataset.value ?? row.cells[place].textContent;
    const value = numeric ? row => text(row) === "" ? NaN : Number(text(row)) : text;
    const missing = numeric ? Number.isNaN : found => found === "";
    const values = new Map();
    const known = row => {
      if (!values.has(row)) values.set(row, value(row));
      return values.get(row);
    };
    return (a, b) => {
      const x = known(a), y = known(b);
      if (missing(x) || missing(y)) return missing(x) - missing(y);
      return sign * (numeric ? x - y : collator.compare(x, y));
    };
  }

  function sort(button) {
    const head = button.closest("th"), body = head.closest("table").tBodies[0];
    if (!asWritten.has(body)) asWritten.set(body, [...body.rows]);
    const order = nextOrder(head), rows = [...asWritten.get(body)];
    for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
    if (order) {
      head.setAttribute("aria-sort", order);
      const sign = order === "ascending" ? 1 : -1;
      rows.sort(compare(head.cellIndex, head.classList.contains("number"), sign));
    }
    body.append(...rows);
    const by = order ? `Sorted by ${button.textContent}, ${order}` : "In the first order";
    say(`${by}.`);
  }

  document.addEventListener("click", event => {
    const button = event.target.closest("thead button");
    if (button) sort(button);
  });

  // Filtering: by strategy everywhere, by any word in one table or among the cards.
  const strategies = byId("strategies-filter");
  const lists = all("[data-of]").map(place => ({
    items: [...(place.rows ?? place.children)],
    field: document.querySelector(`[data-filters="${place.dataset.of}"]`),
    count: place.closest("section").querySelector(".tools .count"),
    noun: place.rows ? "rows" : "cards",
  }));
  const terms = field => field
    ? field.value.toLowerCase().split(",").map(term => term.trim()).filter(Boolean)
    : [];
  const has = (text, wanted) =>
    !wanted.length || wanted.some(term => text.toLowerCase().includes(term));

  function narrow(list, named) {
    const wanted = terms(list.field);
    let shown = 0, hidden = 0;
    for (const item of list.items) {
      const keep = item.classList.contains("reference")
        || (has(item.textContent, wanted)
          && (item.dataset.name === undefined || has(item.dataset.name, named)));
      item.hidden = !keep;
      if (keep) shown += 1; else hidden += 1;
    }
    const words = `${shown} of ${shown + hidden} ${list.noun}`;
    if (list.count) list.count.textContent = wanted.length || hidden ? words : "";
    return { shown, hidden, words };
  }

  function narrowAll() {
    const named = terms(strategies);
    const found = lists
      .filter(list => list.items[0]?.dataset.name !== undefined)
      .map(list => narrow(list, named));
    const shown = found.reduce((sum, one) => sum + one.shown, 0);
    const hidden = found.reduce((sum, one) => sum + one.hidden, 0);
    const words = `${shown} of ${shown + hidden} rows in ${found.length} tables`;
    byId("strategies-count").textContent = named.length ? words : "";
    say(named.length ? words : "All rows");
  }

  function whenWritten(field, then) {
    let waiting = 0;
    field.addEventListener("input", () => {
      clearTimeout(waiting);
      waiting = setTimeout(then, 120);
    });
    field.addEventListener("keydown", event => {
      if (event.key !== "Escape" || !field.value) return;
      event.preventDefault();
      field.value = "";
      clearTimeout(waiting);
      then();
    });
  }

  whenWritten(strategies, narrowAll);
  for (const list of lists) {
    if (list.field) {
      whenWritten(list.field, () => say(narrow(list, terms(strategies)).words));
    }
  }
  if (strategies.value) narrowAll();

  // Cards: short until wanted. They come open, for readers without scripts.
  const cards = all(".card");
  const toggle = byId("all-cards");
  for (const card of all("details")) card.open = false;

  function reveal(id) {
    const card = byId(id);
    if (!card?.matches(".card")) return;
    card.hidden = false;
    card.open = true;
    card.scrollIntoView();
    card.querySelector("summary").focus({ preventScroll: true });
  }
  const aim = () => reveal(decodeURIComponent(location.hash.slice(1)));
  addEventListener("hashchange", aim);
  document.addEventListener("click", event => {
    const link = event.target.closest("a[href^='#strategy']");
    if (link?.hash === location.hash) reveal(link.hash.slice(1));
  });
  toggle?.addEventListener("click", () => {
    const open = toggle.getAttribute("aria-pressed") !== "true";
    toggle.setAttribute("aria-pressed", open);
    toggle.textContent = open ? "Close all" : "Open all";
    for (const card of cards) card.open = open;
  });
  aim();

  // Print: everything open, then as it was.
  let closed = [];
  addEventListener("beforeprint", () => {
    closed = all("details:not([open])");
    for (const one of closed) one.open = true;
  });
  addEventListener("afterprint", () => {
    for (const one of closed) one.open = false;
  });

  // A table that fits needs no box to scroll in: its headings then stay in sight.
  const watcher = new ResizeObserver(entries => {
    for (const { target: box } of entries) {
      const fits = box.firstElementChild.offsetWidth <= box.clientWidth;
      box.classList.toggle("fits", fits);
      if (fits) box.removeAttribute("tabindex");
      else box.tabIndex = 0;
    }
  });
  for (const box of all(".box:has(> table)")) watcher.observe(box);

  // Plots: the words of a mark, by pointer, touch or arrow keys.
  const tip = byId("tip");
  const REACH = { mouse: 6, pen: 10, touch: 16 };
  let shownMark = null, byKeys = false;

  function hide() {
    byKeys = false;
    shownMark?.classList.remove("on");
    shownMark?.closest("svg").classList.remove("pointing");
    shownMark = null;
    tip.hidden = true;
  }

  function show(mark, x, y) {
    if (mark !== shownMark) {
      hide();
      shownMark = mark;
      mark.classList.add("on");
      mark.closest("svg").classList.add("pointing");
      tip.textContent = mark.dataset.tip;
      tip.hidden = false;
    }
    const { width, height } = tip.getBoundingClientRect();
    const left = Math.min(Math.max(8, x + 14), innerWidth - width - 8);
    const above = y - height - 12;
    tip.style.left = `${left}px`;
    tip.style.top = `${above < 4 ? y + 18 : above}px`;
  }

  // The mark at a place or within reach of it: lines thinner than a pixel are hard to hit.
  function markNear(x, y, reach) {
    for (let d = 0; d <= reach; d += 0.5) {
      for (const [i, j] of [[d, 0], [-d, 0], [0, d], [0, -d]]) {
        const found = document.elementFromPoint(x + i, y + j)?.closest("svg.plot [data-tip]");
        if (found) return found;
      }
    }
    return null;
  }

  function point(event) {
    if (!event.target.closest?.("svg.plot")) return hide();
    const mark = markNear(event.clientX, event.clientY, REACH[event.pointerType] ?? 6);
    return mark ? show(mark, event.clientX, event.clientY) : hide();
  }
  document.addEventListener("pointermove", point);
  document.addEventListener("pointerdown", point);
  addEventListener("scroll", () => {
    if (byKeys) beside(shownMark);
    else hide();
  }, { passive: true, capture: true });

  // Left and right go by the marks' horizontal places, up and down by the vertical ones.
  const STEPS = { ArrowLeft: ["x", -1], ArrowRight: ["x", 1], ArrowUp: ["y", -1], ArrowDown: ["y", 1], Home: ["x", -Infinity], End: ["x", Infinity] };
  const middle = mark => {
    const box = mark.getBoundingClientRect();
    return { x: box.x + box.width / 2, y: box.y + box.height / 2 };
  };

  function beside(mark) {
    const { x, y } = middle(mark);
    show(mark, x, y);
    byKeys = true;
  }

  function step(svg, axis, by) {
    const other = axis === "x" ? "y" : "x";
    const marks = all("[data-tip]", svg).map(mark => ({ mark, at: middle(mark) }));
    marks.sort((a, b) => a.at[axis] - b.at[axis] || a.at[other] - b.at[other]);
    const now = marks.findIndex(({ mark }) => mark === shownMark);
    const next = now < 0 ? 0 : Math.min(Math.max(now + by, 0), marks.length - 1);
    const { mark } = marks[next];
    mark.scrollIntoView({ block: "nearest", inline: "nearest" });
    beside(mark);
    say(mark.dataset.tip);
  }

  for (const svg of all("svg.plot:has([data-tip])")) {
    svg.tabIndex = 0;
    svg.setAttribute("role", "application");
    svg.setAttribute("aria-roledescription", "plot");
    svg.setAttribute("aria-label", `${svg.getAttribute("aria-label")} Arrow keys go from mark to mark.`);
    svg.addEventListener("focus", () => {
      if (svg.matches(":focus-visible")) step(svg, "y", 0);
    });
    svg.addEventListener("blur", hide);
    svg.addEventListener("keydown", event => {
      if (event.key === "Escape") hide();
      if (!(event.key in STEPS)) return;
      event.preventDefault();
      step(svg, ...STEPS[event.key]);
    });
  }
})();

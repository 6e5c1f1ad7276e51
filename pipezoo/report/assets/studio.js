// The page on which an order is edited: what is chosen and dragged changes `orders`, and the clock plays them at once.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("orders").textContent), form = document.getElementById("studio").elements;
  const board = document.getElementById("board"), verdict = document.getElementById("verdict"), race = document.getElementById("race");
  const SVG = "http://www.w3.org/2000/svg", ROW = 30, LEFT = 56, TOP = 6, LEAST = 900;
  const OPS = ["F", "B", "I", "W"];
  let orders = [], chosen = null, past = [], edited = false, drag = null; // chosen: {rank, place}

  function unpack(packed) {
    const text = atob(packed.actions), actions = [];
    for (let i = 0; i < text.length; i += 2) {
      const code = text.charCodeAt(i) | (text.charCodeAt(i + 1) << 8);
      actions.push({ op: code >> 10, stage: (code >> 5) & 31, microbatch: code & 31 });
    }
    return packed.offsets.slice(1).map((to, rank) => actions.slice(packed.offsets[rank], to));
  }
  const key = (name) => `${name},${form.ranks.value},${form.microbatches.value}`;
  const stagesOf = (all) => Math.max(...all.flat().map((action) => action.stage)) + 1;

  // A stage takes its share of a rank: with two stages on a rank, each takes half. Costs that are told are multiplied.
  function costsOf(all) {
    const stages = stagesOf(all), share = all.length / stages, value = (name) => Number(form[name].value);
    if (data.cost) return multiplied(data.cost, stages, [value("F"), NaN, value("I"), value("W")], value("hop"), value("last"));
    const each = [value("F"), value("I") + value("W"), value("I"), value("W")].map((time) => time * share);
    const seconds = Array.from({ length: stages }, (_, stage) => each.map((time) => (stage === stages - 1 ? time * value("last") : time)));
    const keeps = new Array(stages).fill(share), frees = new Array(stages).fill(share * value("frees"));
    return { seconds, p2p: new Array(Math.max(0, stages - 1)).fill(value("hop")), keeps, frees };
  }

  function multiplied(cost, stages, [onF, , onI, onW], onHop, onLast) {
    const told = cost.seconds.length, same = told === stages, share = told / stages;
    const mean = (values) => values.reduce((a, b) => a + b, 0) / values.length;
    const spread = (values) => (same ? values : new Array(stages).fill(share === 1 ? mean(values) : mean(values) * share));
    const column = (op) => spread(cost.seconds.map((row) => row[op] ?? NaN));
    const [forward, whole, input, weight] = [0, 1, 2, 3].map(column);
    const seconds = forward.map((F, stage) => {
      const each = [F * onF, onI === 1 && onW === 1 ? whole[stage] : input[stage] * onI + weight[stage] * onW, input[stage] * onI, weight[stage] * onW];
      return stage === stages - 1 ? each.map((time) => time * onLast) : each;
    });
    const hops = same ? cost.p2p : new Array(Math.max(0, stages - 1)).fill(cost.p2p.length ? mean(cost.p2p) : 0);
    return { seconds, p2p: hops.map((hop) => hop * onHop), keeps: spread(cost.keeps), frees: spread(cost.frees) };
  }

  function load() {
    const packed = data.orders[key(form.schedule.value)];
    orders = packed ? unpack(packed) : [];
    [chosen, past, edited] = [null, [], false];
    show();
  }
  function change(next) {
    past.push(orders);
    orders = next;
    edited = true;
    show();
  }

  // ---- what can be done to an order
  function moved(rank, from, to) {
    const order = [...orders[rank]], [action] = order.splice(from, 1);
    order.splice(to, 0, action);
    return orders.map((each, at) => (at === rank ? order : each));
  }
  function shift(by) {
    if (!chosen) return;
    const { rank, place } = chosen, to = place + by;
    if (to < 0 || to >= orders[rank].length) return;
    chosen = { rank, place: to };
    change(moved(rank, place, to));
  }
  // B becomes I and W right after it; a half becomes B in the place of I.
  function split() {
    if (!chosen) return;
    const { rank, place } = chosen, action = orders[rank][place], order = [...orders[rank]];
    const same = (other) => other.stage === action.stage && other.microbatch === action.microbatch;
    if (action.op === clock.F) return;
    if (action.op === clock.B) order.splice(place, 1, { ...action, op: clock.I }, { ...action, op: clock.W });
    else {
      const at = order.findIndex((other) => same(other) && other.op === clock.I);
      order[at] = { ...action, op: clock.B };
      order.splice(order.findIndex((other) => same(other) && other.op === clock.W), 1);
      chosen = { rank, place: order.findIndex((other) => same(other) && other.op === clock.B) };
    }
    change(orders.map((each, at) => (at === rank ? order : each)));
  }
  function undo() {
    if (!past.length) return;
    orders = past.pop();
    edited = past.length > 0;
    chosen = null;
    show();
  }

  // ---- the picture
  const round = (value) => Number(value.toPrecision(6)).toString();
  const percent = (value) => (100 * value).toFixed(1) + " %";
  const seconds = data.cost?.unit === "s";
  function timeText(value) {
    if (!seconds) return `${round(value)} units`;
    return value >= 1 ? `${round(value)} s` : value >= 1e-3 ? `${round(value * 1e3)} ms` : `${round(value * 1e6)} us`;
  }
  const memoryText = (value) => (seconds ? `${round(value / 1024)} KiB` : round(value));
  function element(name, attributes, text) {
    const made = document.createElementNS(SVG, name);
    for (const [at, value] of Object.entries(attributes)) made.setAttribute(at, value);
    if (text !== undefined) made.textContent = text;
    return made;
  }
  function show() {
    let played = orders.length ? clock.play(orders, costsOf(orders)) : { error: "this schedule does not exist for these numbers" };
    if (!played.error && !Number.isFinite(played.makespan)) played = { error: "these costs do not know all of its actions" };
    verdict.className = played.error ? "verdict bad" : "verdict good";
    verdict.textContent = played.error ? `error: ${played.error}`
      : `makespan ${timeText(played.makespan)}, bubble ${percent(played.bubble)} of the makespan, ${percent(played.spanBubble)} of the span, memory ${memoryText(Math.max(...played.peaks))}`;
    Object.assign(verdict.dataset, played.error ? { makespan: "", bubble: "" } : { makespan: played.makespan, bubble: played.bubble });
    document.getElementById("csv").textContent = clock.toCsv(orders);
    drawBoard(played);
    drawRace(played);
  }
  function drawBoard(played) {
    const longest = Math.max(1, ...orders.map((order) => order.length));
    const width = Math.max(LEAST, played.error ? longest * 26 : 0, longest * 20), scale = (width - LEFT - 12) / (played.error ? longest : played.makespan);
    board.setAttribute("viewBox", `0 0 ${width} ${orders.length * ROW + 2 * TOP}`);
    board.setAttribute("width", width);
    board.replaceChildren();
    const wrong = played.error?.match(/\d+[FBIW]\d+/g) ?? [];
    let i = 0;
    orders.forEach((order, rank) => {
      board.append(element("text", { class: "rank", x: LEFT - 8, y: TOP + rank * ROW + 18 }, `rank ${rank}`));
      order.forEach((action, place) => {
        const from = played.error ? place : played.start[i], to = played.error ? place + 1 : played.end[i], x = LEFT + from * scale;
        const is = chosen && chosen.rank === rank && chosen.place === place;
        const group = element("g", { class: "action" + (wrong.includes(clock.name(action)) ? " wrong" : "") + (is ? " is" : ""), tabindex: is ? 0 : -1, role: "button",
          "aria-label": `${clock.name(action)} of rank ${rank}, place ${place + 1}`, "aria-pressed": is ? "true" : "false" });
        const wide = Math.max(1, (to - from) * scale - 1);
        group.append(element("rect", { class: OPS[action.op], x, y: TOP + rank * ROW, width: wide, height: ROW - 6 }));
        if (wide > 17) group.append(element("text", { class: "name " + OPS[action.op], x: x + wide / 2, y: TOP + rank * ROW + 16 }, clock.name(action)));
        Object.assign(group.dataset, { rank, place });
        board.append(group);
        i += 1;
      });
    });
    if (chosen) board.querySelector(".is")?.focus({ preventScroll: true });
    else board.querySelector(".action")?.setAttribute("tabindex", 0);
  }
  function drawRace(played) {
    const rows = data.names.filter((name) => data.orders[key(name)]).map((name) => {
      const all = unpack(data.orders[key(name)]);
      return { name, ...clock.play(all, costsOf(all)) };
    }).filter((row) => Number.isFinite(row.makespan)); // an op that nobody measured has no time
    if (edited && !played.error) rows.push({ name: "yours", ...played });
    rows.sort((a, b) => a.makespan - b.makespan || Math.max(...a.peaks) - Math.max(...b.peaks));
    race.replaceChildren(...rows.map((row) => {
      const line = document.createElement("tr"), cells = [timeText(row.makespan), percent(row.bubble), percent(row.spanBubble), memoryText(Math.max(...row.peaks))];
      const head = document.createElement("th"), choose = document.createElement("button");
      head.scope = "row";
      choose.type = "button";
      choose.textContent = row.name;
      choose.disabled = row.name === "yours";
      choose.addEventListener("click", () => { form.schedule.value = row.name; load(); });
      head.append(choose);
      line.className = row.name === "yours" ? "yours" : "";
      line.append(head, ...cells.map((text) => Object.assign(document.createElement("td"), { className: "number", textContent: text })));
      return line;
    }));
  }

  // ---- pointer and keys
  const at = (event) => event.target.closest?.(".action");
  board.addEventListener("pointerdown", (event) => {
    const group = at(event);
    if (!group) return;
    chosen = { rank: Number(group.dataset.rank), place: Number(group.dataset.place) };
    drag = { ...chosen, before: orders, x: event.clientX, moved: false };
    board.setPointerCapture(event.pointerId);
    show();
  });
  board.addEventListener("pointermove", (event) => {
    if (!drag || Math.abs(event.clientX - drag.x) < 4) return;
    drag.moved = true;
    const boxes = [...board.querySelectorAll(`[data-rank="${drag.rank}"] rect`)].map((box) => box.getBoundingClientRect());
    const others = boxes.filter((_, place) => place !== chosen.place);
    const to = others.filter((box) => (box.left + box.right) / 2 < event.clientX).length;
    if (to === chosen.place) return;
    orders = moved(drag.rank, chosen.place, to);
    chosen = { rank: drag.rank, place: to };
    edited = true;
    show();
  });
  board.addEventListener("pointerup", () => {
    if (drag?.moved && orders !== drag.before) past.push(drag.before);
    drag = null;
  });
  board.addEventListener("pointercancel", () => { drag = null; });
  board.addEventListener("focusin", (event) => {
    const group = at(event);
    if (group && !chosen) chosen = { rank: Number(group.dataset.rank), place: Number(group.dataset.place) };
  });
  board.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (step && event.altKey) { if (step[1]) shift(step[1]); }
    else if (step) walk(...step);
    else if (event.key === "s") split();
    else if (event.key === "u") undo();
    else return;
    event.preventDefault();
  });
  function walk(down, along) {
    if (!chosen) return;
    const rank = Math.max(0, Math.min(orders.length - 1, chosen.rank + down));
    chosen = { rank, place: Math.max(0, Math.min(orders[rank].length - 1, chosen.place + along)) };
    show();
  }

  const acts = { left: () => shift(-1), right: () => shift(1), split, undo, reset: load, csv: download };
  for (const button of document.querySelectorAll(".studio-tools [data-act]")) button.addEventListener("click", () => acts[button.dataset.act]());
  function download() {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([clock.toCsv(orders)], { type: "text/csv" }));
    link.download = "order.csv";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }

  function options(select, values, chosenValue) {
    select.append(...values.map((value) => new Option(value, value, value === chosenValue, value === chosenValue)));
  }
  options(form.schedule, data.names, data.cost ? data.names[0] : "1f1b");
  options(form.ranks, data.ranks, data.cost ? data.ranks[0] : 4);
  options(form.microbatches, data.microbatches, data.cost ? data.microbatches[0] : 8);
  if (data.cost) {
    form.hop.value = 1;
    form.frees.disabled = true;
    for (const name of ["F", "I", "W", "hop"]) form[name].parentNode.firstChild.textContent += "times ";
  }
  for (const name of ["schedule", "ranks", "microbatches"]) form[name].addEventListener("change", load);
  for (const name of ["F", "I", "W", "hop", "last", "frees"]) {
    const beside = form[name].nextElementSibling, say = () => { beside.textContent = form[name].value; };
    form[name].addEventListener("input", () => { say(); show(); });
    say();
  }
  document.getElementById("studio").addEventListener("submit", (event) => event.preventDefault());
  load();
})();

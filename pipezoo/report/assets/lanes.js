// Timelines on one canvas and one time axis: a lane per rank, and below, what each rank holds for the backward.
//
//   data --unpack--> arrays by rank, in order of time        (once)
//   view [from, to] --binary search--> the visible spans of each lane
//     as wide as a pixel or more: a box, with its name where there is room
//     narrower: their time is summed by pixel column, and a column gets the colour of the op that is owed most of it;
//     all columns of a lane are one image
//
// So a frame costs one pass over the visible spans, and never more boxes than fit side by side on the screen.
"use strict";
(() => {
  const root = document.getElementById("lanes");
  if (!root) return;
  const data = JSON.parse(document.getElementById("data").textContent);
  const canvas = root.querySelector("canvas"), context = canvas.getContext("2d");
  const tip = root.querySelector(".tip"), shown = root.querySelector("output");
  const memoryBox = root.querySelector("[data-act=memory]");
  const OPS = ["F", "B", "I", "W", "SEND_F", "RECV_F", "SEND_B", "RECV_B", "UNSHARD", "RESHARD", "REDUCE_GRAD"];
  const MEANING = { F: "forward", B: "backward", I: "input gradient", W: "weight gradient" };
  const KINDS = { u1: Uint8Array, u2: Uint16Array, u4: Uint32Array };
  const FONT = "system-ui, 'DejaVu Sans', sans-serif", IDLE = 4, TITLE = 24, AXIS = 28;

  function unpack(packed) {
    const text = atob(packed.data), bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
    return new KINDS[packed.type](bytes.buffer);
  }
  const timelines = data.timelines.map((packed) => {
    const line = { ...packed, stage: unpack(packed.stage), microbatch: unpack(packed.microbatch), op: unpack(packed.op) };
    const start = unpack(packed.start), length = unpack(packed.length); // whole ticks, so that neighbours meet exactly
    line.start = Float64Array.from(start, (ticks) => ticks * packed.tick);
    line.end = Float64Array.from(length, (ticks, i) => (start[i] + ticks) * packed.tick);
    line.busy = line.end.reduce((sum, end, i) => sum + end - line.start[i], 0);
    return line;
  });
  const longest = Math.max(...timelines.map((line) => line.makespan)) || 1;
  const held = timelines.map(heldOverTime);
  const most = Math.max(1e-300, ...held.map((line) => line.most));

  // For each rank, from `times[i]` on it holds `level[i]`: F adds what its stage keeps, I, W and B give it back.
  function heldOverTime(line) {
    const { activation_bytes: keeps, frees } = line;
    const lanes = [];
    let highest = 0;
    for (let lane = 0; lane + 1 < line.offsets.length; lane++) {
      const changes = [];
      for (let i = line.offsets[lane]; i < line.offsets[lane + 1]; i++) {
        const all = keeps[line.stage[i]] ?? 1, part = frees[line.stage[i]] ?? 0;
        const change = [all, -all, -part, part - all][line.op[i]];
        if (change) changes.push([line.op[i] === 0 ? line.start[i] : line.end[i], change]);
      }
      changes.sort((a, b) => a[0] - b[0]);
      const times = new Float64Array(changes.length), level = new Float64Array(changes.length);
      let now = 0;
      changes.forEach(([time, change], i) => {
        now += change;
        times[i] = time;
        level[i] = now;
        highest = Math.max(highest, now);
      });
      lanes.push({ times, level });
    }
    return { lanes, most: highest };
  }

  const strip = document.createElement("canvas");
  let view = { from: 0, to: longest }, mouse = null, lit = null, queued = false;
  memoryBox.checked = timelines.reduce((sum, line) => sum + line.ranks.length, 0) <= 16;

  function firstAbove(array, value, low, high) { // the first index in low..high whose element is > value
    while (low < high) {
      const middle = (low + high) >> 1;
      if (array[middle] > value) high = middle; else low = middle + 1;
    }
    return low;
  }
  function round(value) { return Number(value.toPrecision(4)).toString(); }
  function timeText(value) {
    if (data.unit !== "s") return round(value) + " units";
    const size = Math.abs(value) * 1.00005; // 0.99999 ms reads 1 ms, not 1000 us
    return size >= 1 ? round(value) + " s" : size >= 1e-3 ? round(value * 1e3) + " ms" : round(value * 1e6) + " us";
  }
  function heldText(value) {
    if (data.held !== "bytes") return round(value) + " " + data.held;
    for (const name of ["B", "KiB", "MiB", "GiB"]) {
      if (value < 1024) return round(value) + " " + name;
      value /= 1024;
    }
    return round(value) + " TiB";
  }
  function nameOf(line, i) {
    const microbatch = line.microbatch[i] ? line.microbatch[i] - 1 : "";
    return `${line.stage[i]}${OPS[line.op[i]] ?? "?"}${microbatch}`;
  }

  // Where everything stands: one entry per lane, from top to bottom, in CSS pixels.
  function plan(width) {
    const ranks = timelines.reduce((sum, line) => sum + line.ranks.length, 0);
    const rows = ranks * (memoryBox.checked ? 2 : 1);
    const height = Math.max(7, Math.min(26, 620 / rows));
    const digits = String(Math.max(...timelines.flatMap((line) => line.ranks.slice(-1)), 0)).length;
    const left = width < 600 ? 14 + 8 * digits : 52 + 8 * digits;
    const entries = [];
    let y = 6;
    const add = (index, kind, title) => {
      entries.push({ title, y });
      y += TITLE;
      timelines[index].ranks.forEach((rank, lane) => {
        entries.push({ index, kind, lane, rank, y, height });
        y += height;
      });
      y += 8;
    };
    const narrow = width < 600;
    timelines.forEach((line, index) => {
      const bubbles = narrow ? `bubble ${line.bubble[0]} %` : `bubble ${line.bubble[0]} % of the makespan, ${line.bubble[1]} % of the span`;
      add(index, "spans", `${line.name}, ${timeText(line.makespan)}, ${bubbles}`);
    });
    if (memoryBox.checked) timelines.forEach((line, index) =>
      add(index, "held", `${line.name}: held for the backward, ${narrow ? "" : "at most "}${heldText(held[index].most)}`));
    return { entries, left, plot: width - left - 14, height: y + AXIS, axis: y };
  }

  function colours() {
    const style = getComputedStyle(document.documentElement);
    const of = (name) => style.getPropertyValue("--" + name).trim();
    return { ops: [of("F"), of("B"), of("I"), of("W")], inks: ["#fff", "#fff", "#000", "#000"], other: of("other"),
      ink: of("ink"), faint: of("faint"), line: of("line"), soft: of("soft"), link: of("link") };
  }

  function draw() {
    queued = false;
    const began = performance.now(), ratio = window.devicePixelRatio || 1, width = root.clientWidth;
    const places = plan(width), paint = colours();
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(places.height * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(places.height * ratio);
      canvas.style.height = places.height + "px";
    }
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, places.height);
    context.textBaseline = "middle";
    const boxes = new Map(), labels = [];
    for (const entry of places.entries) {
      if (entry.title) {
        text(entry.title, 10, entry.y + TITLE / 2, `13px ${FONT}`, paint.ink, "left");
        continue;
      }
      context.fillStyle = paint.soft;
      context.fillRect(places.left, entry.y, places.plot, entry.height - gapOf(entry));
      if (entry.kind === "spans") placeSpans(entry, places, paint, boxes, labels);
      else drawHeld(entry, places, paint);
    }
    let count = 0;
    for (const [colour, list] of boxes) {
      context.fillStyle = colour;
      for (let i = 0; i < list.length; i += 4) context.fillRect(list[i], list[i + 1], list[i + 2], list[i + 3]);
      count += list.length / 4;
    }
    for (const label of labels) text(...label);
    drawNames(places, paint);
    drawAxis(places, paint);
    if (lit) drawLit(places, paint);
    shown.textContent = view.to - view.from < longest ? `${timeText(view.from)} to ${timeText(view.to)}` : "";
    canvas.dataset.boxes = count;
    canvas.dataset.labels = labels.length;
    canvas.dataset.milliseconds = (performance.now() - began).toFixed(2);
  }
  function gapOf(entry) { return entry.height > 12 ? 2 : entry.height > 8 ? 1 : 0.5; }
  function text(words, x, y, font, colour, align) {
    context.font = font;
    context.fillStyle = colour;
    context.textAlign = align;
    context.fillText(words, x, y);
  }

  function placeSpans(entry, places, paint, boxes, labels) {
    const line = timelines[entry.index], { left, plot } = places;
    const high = line.offsets[entry.lane + 1], perTime = plot / (view.to - view.from);
    const tall = entry.height - gapOf(entry), size = Math.min(12, tall * 0.62);
    const put = (code, x, wide) => {
      const colour = paint.ops[code] ?? paint.other;
      if (!boxes.has(colour)) boxes.set(colour, []);
      boxes.get(colour).push(x, entry.y, wide, tall);
    };
    const common = (line.busy / line.op.length) * perTime; // one way of naming for the whole timeline
    const short = nameOf(line, high - 1).length * size * 0.62 > common * 0.85;
    let columns = null;
    for (let i = firstAbove(line.end, view.from, line.offsets[entry.lane], high); i < high; i++) {
      if (line.start[i] >= view.to) break;
      const from = Math.max(0, (line.start[i] - view.from) * perTime), to = Math.min(plot, (line.end[i] - view.from) * perTime);
      const wide = to - from, code = Math.min(line.op[i], IDLE);
      if (wide < 1.5) {
        columns ??= new Float32Array(IDLE * (Math.ceil(plot) + 2));
        const column = Math.floor(from), first = Math.min(wide, column + 1 - from);
        if (code < IDLE) {
          columns[column * IDLE + code] += first;
          columns[(column + 1) * IDLE + code] += wide - first;
        }
        continue;
      }
      put(code, left + from, wide - Math.min(0.8, wide / 4));
      if (size >= 6 && wide > 8) {
        const full = nameOf(line, i), names = [full, full.replace(/^\d+/, ""), OPS[line.op[i]] ?? "?"].slice(short ? 1 : 0);
        const fits = names.find((name) => name.length * size * 0.62 < wide - 3);
        if (fits) labels.push([fits, left + (from + to) / 2, entry.y + tall / 2 + 0.5, `${size}px ${FONT}`, paint.inks[code] ?? "#fff", "center"]);
      }
    }
    if (columns) drawColumns(columns, Math.ceil(plot), left, entry.y, tall, paint);
  }

  // One pixel per column, stretched to the lane's height. Each op keeps its share of the pixels: what a column leaves
  // out is owed to the next.
  function drawColumns(columns, count, left, y, tall, paint) {
    const pixels = new ImageData(count, 1), owed = [0, 0, 0, 0, 0];
    for (let column = 0; column < count; column++) {
      let idle = 1, chosen = -1;
      for (let code = 0; code < IDLE; code++) idle -= columns[column * IDLE + code];
      if (idle > 0.999) continue;
      for (let code = 0; code <= IDLE; code++) {
        const share = code === IDLE ? idle : columns[column * IDLE + code];
        if (share < 0.001) continue;
        owed[code] += share;
        if (chosen < 0 || owed[code] > owed[chosen]) chosen = code;
      }
      owed[chosen] -= 1;
      if (chosen === IDLE) continue;
      const colour = parseInt(paint.ops[chosen].slice(1), 16);
      pixels.data.set([colour >> 16, (colour >> 8) & 255, colour & 255, 255], column * 4);
    }
    strip.width = count;
    strip.height = 1;
    strip.getContext("2d").putImageData(pixels, 0, 0);
    context.imageSmoothingEnabled = false;
    context.drawImage(strip, left, y, count, tall);
  }

  function drawHeld(entry, places, paint) {
    const { times, level } = held[entry.index].lanes[entry.lane], { left, plot } = places;
    const tall = entry.height - gapOf(entry), perTime = plot / (view.to - view.from), bottom = entry.y + tall;
    const xOf = (i) => (times[i] - view.from) * perTime;
    context.fillStyle = paint.faint;
    for (let x = 0, i = firstAbove(times, view.from, 0, times.length) - 1; x < plot;) {
      let next = i + 1, top = i < 0 ? 0 : level[i];
      while (next < times.length && xOf(next) < x + 1) top = Math.max(top, level[next++]); // the most within this pixel
      const to = Math.min(plot, next > i + 1 ? x + 1 : next < times.length ? xOf(next) : plot);
      const from = Math.floor(left + x), high = (top / most) * tall;
      context.fillRect(from, bottom - high, Math.ceil(left + to) - from, high);
      x = to;
      i = next - 1;
    }
  }

  function drawNames(places, paint) {
    let free = -1;
    for (const entry of places.entries) {
      if (entry.title) free = -1;
      if (entry.title || entry.y < free) continue;
      const name = places.left > 50 ? `rank ${entry.rank}` : String(entry.rank);
      text(name, places.left - 8, entry.y + entry.height / 2, `${Math.min(12, Math.max(10, entry.height * 0.8))}px ${FONT}`, paint.faint, "right");
      free = entry.y + 12.5;
    }
  }

  function drawAxis(places, paint) {
    const span = view.to - view.from, target = span / Math.max(2, Math.floor(places.plot / 75));
    const power = 10 ** Math.floor(Math.log10(target));
    const step = [1, 2, 5, 10].map((digit) => digit * power).find((size) => size >= target * 0.999999);
    const unit = data.unit !== "s" ? [1, "units"] : view.to >= 1 ? [1, "s"] : view.to >= 1e-3 ? [1e-3, "ms"] : [1e-6, "us"];
    const decimals = Math.max(0, Math.min(12, -Math.floor(Math.log10(step / unit[0]) + 1e-9)));
    context.fillStyle = paint.faint;
    context.fillRect(places.left, places.axis, places.plot, 1);
    for (let k = Math.ceil(view.from / step - 1e-9); k * step <= view.to * (1 + 1e-12); k++) {
      const x = places.left + ((k * step - view.from) / span) * places.plot;
      context.fillStyle = paint.faint;
      context.fillRect(x, places.axis, 1, 5);
      const last = (k + 1) * step > view.to * (1 + 1e-12), label = ((k * step) / unit[0]).toFixed(decimals) + (last ? " " + unit[1] : "");
      text(label, Math.min(x, places.left + places.plot - 14), places.axis + 15, `12px ${FONT}`, paint.faint, last ? "right" : "center");
    }
  }

  function drawLit(places, paint) {
    const perTime = places.plot / (view.to - view.from);
    context.strokeStyle = paint.ink;
    context.lineWidth = 2;
    for (const entry of places.entries) {
      if (entry.kind !== "spans") continue;
      const i = find(entry.index, entry.lane, lit);
      if (i < 0) continue;
      const line = timelines[entry.index];
      const from = Math.max(0, (line.start[i] - view.from) * perTime), to = Math.min(places.plot, (line.end[i] - view.from) * perTime);
      if (to > 0 && from < places.plot) context.strokeRect(places.left + from, entry.y, Math.max(2, to - from), entry.height - gapOf(entry));
    }
  }

  // The same action in a lane of another timeline, or -1.
  function find(index, lane, wanted) {
    const line = timelines[index];
    for (let i = line.offsets[lane]; i < line.offsets[lane + 1]; i++) {
      if (line.op[i] === wanted.op && line.stage[i] === wanted.stage && line.microbatch[i] === wanted.microbatch) return i;
    }
    return -1;
  }

  function hover() {
    const places = plan(root.clientWidth);
    const entry = mouse && places.entries.find(({ title, y, height }) => !title && mouse.y >= y && mouse.y < y + height);
    const before = lit;
    lit = null;
    if (!entry || mouse.x < places.left || mouse.x > places.left + places.plot) tip.hidden = true;
    else {
      const time = view.from + ((mouse.x - places.left) / places.plot) * (view.to - view.from);
      tip.textContent = entry.kind === "spans" ? spanText(entry, time) : heldAt(entry, time);
      tip.hidden = false;
      const beside = mouse.x + 14 + tip.offsetWidth < root.clientWidth ? mouse.x + 14 : Math.max(4, mouse.x - 14 - tip.offsetWidth);
      tip.style.left = beside + "px";
      tip.style.top = canvas.offsetTop + Math.min(mouse.y + 14, places.height - tip.offsetHeight - 4) + "px";
    }
    if (lit !== before) queue();
  }
  function spanText(entry, time) {
    const line = timelines[entry.index], low = line.offsets[entry.lane], high = line.offsets[entry.lane + 1];
    const i = firstAbove(line.end, time, low, high);
    if (i >= high || line.start[i] > time) {
      const from = i > low ? line.end[i - 1] : 0, to = i < high ? line.start[i] : longest;
      const around = [i > low && `after ${nameOf(line, i - 1)}`, i < high && `before ${nameOf(line, i)}`].filter(Boolean);
      return `rank ${entry.rank} idle for ${timeText(to - from)}\n${around.join(", ")}`;
    }
    const op = OPS[line.op[i]] ?? "?", microbatch = line.microbatch[i] ? `, microbatch ${line.microbatch[i] - 1}` : "";
    lit = { op: line.op[i], stage: line.stage[i], microbatch: line.microbatch[i] };
    const rows = [`${nameOf(line, i)}: ${MEANING[op] ?? op} of stage ${line.stage[i]}${microbatch}, rank ${entry.rank}`];
    rows.push(`${timeText(line.start[i])} to ${timeText(line.end[i])}`);
    timelines.forEach((other, index) => {
      const lane = other.ranks.indexOf(entry.rank), j = lane < 0 ? -1 : find(index, lane, lit);
      if (j >= 0) rows.push(`${other.name}: takes ${timeText(other.end[j] - other.start[j])}`);
    });
    return rows.join("\n");
  }
  function heldAt(entry, time) {
    const { times, level } = held[entry.index].lanes[entry.lane], i = firstAbove(times, time, 0, times.length) - 1;
    return `rank ${entry.rank} holds ${heldText(i < 0 ? 0 : level[i])} at ${timeText(time)}`;
  }

  function queue() {
    if (!queued) requestAnimationFrame(draw);
    queued = true;
  }
  function show(from, to) {
    const span = Math.min(longest, Math.max(longest * 1e-7, to - from));
    const start = Math.min(Math.max(0, from), longest - span);
    view = { from: start, to: start + span };
    queue();
  }
  function zoom(factor, at) {
    show(at - (at - view.from) * factor, at + (view.to - at) * factor);
  }
  function timeAt(x) {
    const places = plan(root.clientWidth);
    return view.from + ((x - places.left) / places.plot) * (view.to - view.from);
  }
  function move(pixels) {
    const shift = (pixels / plan(root.clientWidth).plot) * (view.to - view.from);
    show(view.from + shift, view.to + shift);
  }

  const pointers = new Map();
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, event.offsetX);
  });
  canvas.addEventListener("pointermove", (event) => {
    mouse = { x: event.offsetX, y: event.offsetY };
    if (pointers.size === 1 && pointers.has(event.pointerId)) move(pointers.get(event.pointerId) - event.offsetX);
    if (pointers.size === 2 && pointers.has(event.pointerId)) {
      const fixed = [...pointers].find(([id]) => id !== event.pointerId)[1];
      const was = Math.abs(pointers.get(event.pointerId) - fixed), is = Math.abs(event.offsetX - fixed);
      if (was > 8 && is > 8) zoom(was / is, timeAt(fixed));
    }
    if (pointers.has(event.pointerId)) pointers.set(event.pointerId, event.offsetX);
    hover();
  });
  for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, (event) => pointers.delete(event.pointerId));
  canvas.addEventListener("pointerleave", () => { mouse = null; hover(); });
  canvas.addEventListener("dblclick", () => show(0, longest));
  canvas.addEventListener("wheel", (event) => {
    if (event.ctrlKey || event.metaKey) zoom(Math.exp(Math.max(-60, Math.min(60, event.deltaY)) * 0.01), timeAt(event.offsetX));
    else if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) move(event.deltaX || event.deltaY);
    else return;
    event.preventDefault();
  }, { passive: false });
  const middle = () => (view.from + view.to) / 2, acts = {
    in: () => zoom(0.5, middle()), out: () => zoom(2, middle()), all: () => show(0, longest), memory: queue,
    "+": () => acts.in(), "=": () => acts.in(), "-": () => acts.out(), 0: () => acts.all(),
    ArrowLeft: () => move(-80), ArrowRight: () => move(80),
  };
  canvas.addEventListener("keydown", (event) => {
    if (!Object.hasOwn(acts, event.key) || event.ctrlKey || event.metaKey || event.altKey) return;
    acts[event.key]();
    event.preventDefault();
  });
  for (const tool of root.querySelectorAll("[data-act]")) {
    tool.addEventListener(tool.type === "checkbox" ? "change" : "click", () => acts[tool.dataset.act]());
  }
  new ResizeObserver(queue).observe(root);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", queue);
  draw();
})();

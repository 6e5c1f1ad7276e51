// Timelines on one canvas and one time axis: a lane per rank, and below, what each rank holds for the backward.
//
//   data --unpack--> arrays by rank, in order of time        (once)
//   view [from, to] --binary search--> the visible spans of each lane
//     as wide as a pixel or more: a box, with its name where there is room
//     narrower: their time is summed by pixel column, and a column gets the colour of the op that is owed most of it;
//     all columns of a lane are one image
//   a chosen span or idle stretch --waits.js--> the chain of actions behind it, lit in all lanes
//
// So a frame costs one pass over the visible spans, and never more boxes than fit side by side on the screen.
"use strict";
(() => {
  const root = document.getElementById("lanes");
  if (!root) return;
  const data = JSON.parse(document.getElementById("data").textContent);
  const canvas = root.querySelector("canvas"), context = canvas.getContext("2d");
  const tip = root.querySelector(".tip"), shown = root.querySelector("output");
  const memoryBox = root.querySelector("[data-act=memory]"), scroller = root.querySelector(".scroller");
  const pathBox = root.querySelector("[data-act=path]"), messagesBox = root.querySelector("[data-act=messages]");
  const told = root.querySelector(".told");
  const OPS = ["F", "B", "I", "W", "SEND_F", "RECV_F", "SEND_B", "RECV_B", "UNSHARD", "RESHARD", "REDUCE_GRAD"];
  const MEANING = { F: "forward", B: "backward", I: "input gradient", W: "weight gradient", REDUCE_GRAD: "gradients of replicas added up", UNSHARD: "parameters gathered", RESHARD: "parameters freed" };
  const KINDS = { u1: Uint8Array, u2: Uint16Array, u4: Uint32Array };
  const FONT = "system-ui, 'DejaVu Sans', sans-serif", IDLE = 4, TITLE = 24, AXIS = 28, FOOT = "rgba(0, 0, 0, 0.5)";
  const NAMED = 13, WIDE = 22, TALLEST = 12000, MOST_LINES = 1000, SHOWN_LEGS = 4; // pixels; lines and legs that are shown

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
    waits.prepare(line);
    line.phases = line.ranks.map((_, lane) => waits.phases(line, lane));
    line.shares = line.ranks.map((_, lane) => {
      let busy = 0;
      for (let i = line.offsets[lane]; i < line.offsets[lane + 1]; i++) busy += line.end[i] - line.start[i];
      return line.makespan ? Math.min(1, busy / line.makespan) : 0;
    });
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
      lanes.push({ times, level, most: level.reduce((a, b) => Math.max(a, b), 0) });
    }
    return { lanes, most: highest };
  }

  const strip = document.createElement("canvas");
  let view = { from: 0, to: longest }, mouse = null, lit = null, queued = false;
  let chosen = null, lighted = null, marked = null; // {index, lane, i, idle}; the chain behind it; {from, to} of a stretch
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
    const digits = String(Math.max(...timelines.flatMap((line) => line.ranks.slice(-1)), 0)).length;
    const left = width < 600 ? 14 + 8 * digits : 52 + 8 * digits, right = width < 600 ? 14 : 112;
    const spans = timelines.reduce((sum, line) => sum + line.op.length, 0) / Math.max(1, ranks);
    const near = (width - left - right) / (spans * (view.to - view.from) / longest) > WIDE;
    const least = near && rows * NAMED < TALLEST ? NAMED : 7; // near enough for names: lanes grow, and the box scrolls
    const height = Math.max(least, Math.min(26, 620 / rows));
    const entries = [];
    let y = 6;
    const add = (index, kind, title) => {
      entries.push({ title, y, heads: kind });
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
    return { entries, left, right, plot: width - left - right, height: y + AXIS, axis: y };
  }

  function colours() {
    const style = getComputedStyle(document.documentElement);
    const of = (name) => style.getPropertyValue("--" + name).trim();
    return { ops: [of("F"), of("B"), of("I"), of("W")], inks: ["#fff", "#fff", "#000", "#000"], other: of("other"),
      ink: of("ink"), faint: of("faint"), line: of("line"), soft: of("soft"), link: of("link"), path: of("bad"), chosen: of("ink") };
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
    const boxes = new Map(), feet = [], labels = [];
    for (const entry of places.entries) {
      if (entry.title) {
        text(entry.title, 10, entry.y + TITLE / 2, `13px ${FONT}`, paint.ink, "left");
        if (places.right > 60 && entry.heads === "spans") text("busy, peak", width - 8, entry.y + TITLE / 2, `12px ${FONT}`, paint.faint, "right");
        continue;
      }
      context.fillStyle = paint.soft;
      context.fillRect(places.left, entry.y, places.plot, entry.height - gapOf(entry));
      if (entry.kind === "spans") placeSpans(entry, places, paint, boxes, feet, labels);
      else drawHeld(entry, places, paint);
    }
    let count = 0;
    for (const [colour, list] of boxes) {
      context.fillStyle = colour;
      for (let i = 0; i < list.length; i += 4) context.fillRect(list[i], list[i + 1], list[i + 2], list[i + 3]);
      count += list.length / 4;
    }
    context.fillStyle = FOOT;
    for (let i = 0; i < feet.length; i += 4) context.fillRect(feet[i], feet[i + 1], feet[i + 2], feet[i + 3]);
    for (const label of labels) text(...label);
    drawNames(places, paint);
    drawFigures(places, paint, width);
    drawPhases(places, paint);
    drawAxis(places, paint);
    if (messagesBox.checked) drawMessages(places, paint);
    if (pathBox.checked) timelines.forEach((line, index) => drawChain(index, criticalPath(line), places, paint.path));
    if (lighted) drawChain(chosen.index, lighted, places, paint.chosen);
    if (chosen) drawChosen(places, paint);
    if (marked) drawMarked(places, paint);
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

  function placeSpans(entry, places, paint, boxes, feet, labels) {
    const line = timelines[entry.index], { left, plot } = places;
    const high = line.offsets[entry.lane + 1], perTime = plot / (view.to - view.from);
    const tall = entry.height - gapOf(entry), size = Math.min(12, tall * 0.62);
    const chunks = line.chunks[entry.lane], several = chunks > 1;
    const box = (colour, x, y, wide, high) => {
      if (!boxes.has(colour)) boxes.set(colour, []);
      boxes.get(colour).push(x, y, wide, high);
    };
    const put = (code, x, wide, chunk) => {
      box(paint.ops[code] ?? paint.other, x, entry.y, wide, tall);
      const foot = several ? (0.3 * tall * chunk) / (chunks - 1) : 0; // the later a stage of the rank, the higher
      if (foot >= 1) feet.push(x, entry.y + tall - foot, wide, foot);
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
      put(code, left + from, wide - Math.min(0.8, wide / 4), line.chunk[i]);
      if (size >= 6 && wide > 8) {
        const full = nameOf(line, i), op = OPS[line.op[i]] ?? "?";
        const names = several ? [full, `${line.stage[i]}${op}`] : [full, full.replace(/^\d+/, ""), op].slice(short ? 1 : 0);
        const fits = names.find((name) => name.length * size * 0.62 < wide - 3) ?? (several && full.length * 5.6 < wide - 2 ? full : null);
        const font = fits && Math.min(size, Math.max(9, (wide - 3) / (fits.length * 0.62)));
        if (fits) labels.push([fits, left + (from + to) / 2, entry.y + tall / 2 + 0.5, `${font}px ${FONT}`, paint.inks[code] ?? "#fff", "center"]);
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

  function drawFigures(places, paint, width) {
    if (places.right < 60) return;
    let free = -1;
    for (const entry of places.entries) {
      if (entry.title) free = -1;
      if (entry.title || entry.kind !== "spans" || entry.y < free) continue;
      const words = `${Math.round(100 * timelines[entry.index].shares[entry.lane])} %, ${heldText(held[entry.index].lanes[entry.lane].most)}`;
      text(words.replace("stage inputs", "inputs").replace("rank-microbatches", "rank-mb"), width - 8, entry.y + entry.height / 2, `11px ${FONT}`, paint.faint, "right");
      free = entry.y + 12.5;
    }
  }

  // Where the warm-up of a lane ends and where its cool-down begins.
  function drawPhases(places, paint) {
    context.fillStyle = paint.ink;
    for (const entry of places.entries) {
      const phases = entry.kind === "spans" && entry.height > 9 && timelines[entry.index].phases[entry.lane];
      if (!phases) continue;
      for (const time of [phases.warm, phases.cool]) {
        const x = xAt(time, places);
        if (x >= places.left && x <= places.left + places.plot) context.fillRect(x - 1, entry.y - 1, 2, entry.height);
      }
    }
  }
  function xAt(time, places) { return places.left + ((time - view.from) / (view.to - view.from)) * places.plot; }
  function clipped(x, places) { return Math.max(places.left, Math.min(places.left + places.plot, x)); }

  function criticalPath(line) {
    if (!line.path) {
      let last = 0;
      for (let i = 1; i < line.end.length; i++) if (line.end[i] > line.end[last]) last = i;
      line.path = line.op.length ? waits.chain(line, last) : [];
    }
    return line.path;
  }

  // A frame around each span of a chain, and a line from each to the one that waited for it.
  function drawChain(index, found, places, colour) {
    const line = timelines[index], rows = places.entries.filter((entry) => entry.index === index && entry.kind === "spans");
    context.strokeStyle = colour;
    context.lineWidth = 2;
    context.beginPath();
    found.forEach((i, n) => {
      const row = rows[line.lane[i]];
      if (!row) return;
      const tall = row.height - gapOf(row), from = clipped(xAt(line.start[i], places), places), to = clipped(xAt(line.end[i], places), places);
      if (to > from) context.rect(from, row.y + 1, Math.max(1, to - from), tall - 2);
      const next = found[n - 1], other = next === undefined ? null : rows[line.lane[next]];
      if (!other || line.end[i] > view.to || line.start[next] < view.from) return;
      context.moveTo(to, row.y + tall / 2);
      context.lineTo(clipped(xAt(line.start[next], places), places), other.y + tall / 2);
    });
    context.stroke();
  }

  function drawMessages(places, paint) {
    context.strokeStyle = paint.ink;
    context.lineWidth = 1;
    context.beginPath();
    let drawn = 0;
    timelines.forEach((line, index) => {
      const rows = places.entries.filter((entry) => entry.index === index && entry.kind === "spans");
      for (let i = 0; i < line.op.length && drawn < MOST_LINES; i++) {
        const source = line.source[i];
        if (source < 0 || line.lane[source] === line.lane[i] || line.start[i] < view.from || line.end[source] > view.to) continue;
        const from = rows[line.lane[source]], to = rows[line.lane[i]];
        context.moveTo(clipped(xAt(line.end[source], places), places), from.y + from.height / 2);
        context.lineTo(clipped(xAt(line.start[i], places), places), to.y + to.height / 2);
        drawn += 1;
      }
    });
    context.stroke();
    canvas.dataset.messages = drawn;
  }

  function edgesOf({ index, lane, i, idle }) {
    const line = timelines[index];
    if (!idle) return [line.start[i], line.end[i]];
    if (i >= line.offsets[lane + 1]) return [line.end[i - 1], line.makespan];
    return [waits.stretch(line, i).free, line.start[i]];
  }

  function drawChosen(places, paint) {
    const row = places.entries.find((entry) => entry.kind === "spans" && entry.index === chosen.index && entry.lane === chosen.lane);
    const [from, to] = edgesOf(chosen).map((time) => clipped(xAt(time, places), places));
    context.strokeStyle = paint.link;
    context.lineWidth = 3;
    context.strokeRect(from, row.y, Math.max(2, to - from), row.height - gapOf(row));
  }

  function drawMarked(places, paint) {
    const [from, to] = [marked.from, marked.to].map((time) => clipped(xAt(time, places), places));
    context.strokeStyle = paint.link;
    context.lineWidth = 2;
    context.strokeRect(from, 2, to - from, places.axis - 2);
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
      tip.style.top = canvas.offsetTop - scroller.scrollTop + Math.min(mouse.y + 14, places.height - tip.offsetHeight - 4) + "px";
    }
    if (lit !== before) queue();
  }
  function spanText(entry, time) {
    const line = timelines[entry.index], low = line.offsets[entry.lane], high = line.offsets[entry.lane + 1];
    const i = firstAbove(line.end, time, low, high);
    if (i >= high || line.start[i] > time) {
      const from = i > low ? line.end[i - 1] : 0, to = i < high ? line.start[i] : line.makespan;
      if (i >= high) return `rank ${entry.rank} is idle for ${timeText(to - from)}\nits step is done after ${nameOf(line, i - 1)}`;
      return idleText(line, i).join("\n");
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

  // "rank 0 waits 12 ms before 0I3: 11 ms until 1I3 of rank 1 ended, 1 ms until it began"
  function idleText(line, i) {
    const { length, source, until, after } = waits.stretch(line, i), rank = line.ranks[line.lane[i]], name = nameOf(line, i);
    if (source < 0 || until <= 0) return [`rank ${rank} begins ${name} ${timeText(length)} late`, "its input was there"];
    const parts = [`${timeText(until)} until ${nameOf(line, source)} of rank ${line.ranks[line.lane[source]]} ended`];
    if (after > length * 1e-6) parts.push(`${timeText(after)} for the message and to begin`);
    return [`rank ${rank} waits ${timeText(length)} before ${name}`, parts.join(", ")];
  }

  // What stands behind a chosen span or stretch, in words.
  function chainText({ index, lane, i, idle }) {
    const line = timelines[index], rank = line.ranks[lane];
    if (idle && i >= line.offsets[lane + 1]) return `${line.name}: rank ${rank} is done, the others go on for ${timeText(line.makespan - line.end[i - 1])}.`;
    const parts = waits.legs(line, waits.chain(line, i)).reverse(), rows = [];
    if (idle) rows.push(`${line.name}: ${idleText(line, i).join(": ")}.`);
    else rows.push(`${line.name}: ${nameOf(line, i)} of rank ${rank}, ${timeText(line.start[i])} to ${timeText(line.end[i])}.`);
    const said = parts.slice(idle ? 1 : 0, SHOWN_LEGS + 1).map(({ lane: at, first, last, length }) =>
      `${nameOf(line, last)} (rank ${line.ranks[at]}${length > 1 ? `, ${length} actions from ${nameOf(line, first)} on` : ""})`);
    if (parts.length > SHOWN_LEGS + 1) said.push(`... back to ${nameOf(line, parts[parts.length - 1].first)}`);
    if (said.length) rows.push(`Behind it: ${said.join(", which waited for ")}.`);
    return rows.join(" ");
  }

  function choose(next) {
    chosen = next;
    marked = null;
    const ends = chosen && !(chosen.idle && chosen.i >= timelines[chosen.index].offsets[chosen.lane + 1]);
    lighted = ends ? waits.chain(timelines[chosen.index], chosen.i) : null;
    told.textContent = chosen ? chainText(chosen) : "";
    canvas.dataset.chain = lighted ? lighted.length : 0;
    if (chosen) {
      const [from, to] = edgesOf(chosen), span = view.to - view.from;
      if (to < view.from || from > view.to) show((from + to) / 2 - span / 2, (from + to) / 2 + span / 2);
    }
    queue();
  }
  function chooseAt(x, y) {
    const places = plan(root.clientWidth), entry = places.entries.find((row) => row.kind === "spans" && y >= row.y && y < row.y + row.height);
    if (!entry || x < places.left || x > places.left + places.plot) return choose(null);
    choose(spanAt(entry.index, entry.lane, timeAt(x)));
  }
  function spanAt(index, lane, time) {
    const line = timelines[index], high = line.offsets[lane + 1], i = firstAbove(line.end, time, line.offsets[lane], high);
    return { index, lane, i, idle: i >= high || line.start[i] > time };
  }
  // One action or idle stretch to the left or right, or the lane above or below.
  function walk(sideways, down) {
    const { index, lane, i, idle } = chosen, line = timelines[index];
    if (down) {
      const lanes = timelines.flatMap((each, at) => each.ranks.map((_, row) => [at, row]));
      const here = lanes.findIndex(([at, row]) => at === index && row === lane), there = lanes[here + down];
      if (there) choose(spanAt(...there, Math.min(edgesOf(chosen)[0] + 1e-12, timelines[there[0]].makespan)));
      return;
    }
    const low = line.offsets[lane], high = line.offsets[lane + 1];
    const isIdle = (at) => at < high && waits.stretch(line, at).length > line.makespan * 1e-6;
    if (sideways > 0) {
      if (idle && i < high) choose({ index, lane, i, idle: false });
      else if (i + 1 < high) choose({ index, lane, i: i + 1, idle: isIdle(i + 1) });
    } else if (!idle && isIdle(i)) choose({ index, lane, i, idle: true });
    else if (i > low) choose({ index, lane, i: i - 1, idle: false });
  }

  // Sums of a stretch of time, by op and for each timeline.
  function markedText() {
    const rows = [`${timeText(marked.from)} to ${timeText(marked.to)}, ${timeText(marked.to - marked.from)}.`];
    for (const line of timelines) {
      const sums = {}, byRank = line.ranks.map(() => 0);
      for (let i = 0; i < line.op.length; i++) {
        const inside = Math.min(line.end[i], marked.to) - Math.max(line.start[i], marked.from), op = OPS[line.op[i]] ?? "?";
        if (inside <= 0) continue;
        sums[op] = (sums[op] ?? 0) + inside;
        byRank[line.lane[i]] += inside;
      }
      const length = marked.to - marked.from, idle = byRank.map((busy) => Math.max(0, 1 - busy / length));
      const ops = Object.entries(sums).map(([op, sum]) => `${op} ${timeText(sum)}`).join(", ") || "nothing runs";
      const ranks = line.ranks.length <= 16 ? line.ranks.map((rank, at) => `${rank}: ${Math.round(100 * idle[at])} %`).join(", ")
        : `${Math.round(100 * Math.min(...idle))} to ${Math.round(100 * Math.max(...idle))} %`;
      rows.push(`${line.name}: ${ops}; idle by rank ${ranks}.`);
    }
    return rows.join(" ");
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
  let pressed = null; // where the pointer went down, and whether it has stayed there
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, event.offsetX);
    pressed = { x: event.offsetX, y: event.offsetY, marks: event.shiftKey, still: pointers.size === 1 };
  });
  canvas.addEventListener("pointermove", (event) => {
    mouse = { x: event.offsetX, y: event.offsetY };
    if (pressed && Math.hypot(event.offsetX - pressed.x, event.offsetY - pressed.y) > 5) pressed.still = false;
    if (pressed?.marks && pointers.has(event.pointerId)) {
      const [from, to] = [timeAt(pressed.x), timeAt(event.offsetX)].sort((a, b) => a - b);
      marked = { from: Math.max(0, from), to: Math.min(longest, to) };
      told.textContent = markedText();
      queue();
      return;
    }
    if (pointers.size === 1 && pointers.has(event.pointerId) && !pressed?.still) move(pointers.get(event.pointerId) - event.offsetX);
    if (pointers.size === 2 && pointers.has(event.pointerId)) {
      const fixed = [...pointers].find(([id]) => id !== event.pointerId)[1];
      const was = Math.abs(pointers.get(event.pointerId) - fixed), is = Math.abs(event.offsetX - fixed);
      if (was > 8 && is > 8) zoom(was / is, timeAt(fixed));
    }
    if (pointers.has(event.pointerId)) pointers.set(event.pointerId, event.offsetX);
    hover();
  });
  canvas.addEventListener("pointerup", (event) => {
    if (pressed?.still && !pressed.marks && pointers.size === 1) chooseAt(event.offsetX, event.offsetY);
    pointers.delete(event.pointerId);
    pressed = null;
  });
  canvas.addEventListener("pointercancel", (event) => { pointers.delete(event.pointerId); pressed = null; });
  canvas.addEventListener("pointerleave", () => { mouse = null; hover(); });
  canvas.addEventListener("dblclick", () => show(0, longest));
  canvas.addEventListener("wheel", (event) => {
    if (event.ctrlKey || event.metaKey) zoom(Math.exp(Math.max(-60, Math.min(60, event.deltaY)) * 0.01), timeAt(event.offsetX));
    else if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) move(event.deltaX || event.deltaY);
    else return;
    event.preventDefault();
  }, { passive: false });
  const middle = () => (view.from + view.to) / 2, acts = {
    in: () => zoom(0.5, middle()), out: () => zoom(2, middle()), all: () => show(0, longest), memory: queue, path: queue, messages: queue,
    "+": () => acts.in(), "=": () => acts.in(), "-": () => acts.out(), 0: () => acts.all(), w: () => acts.in(), s: () => acts.out(),
    a: () => move(-80), d: () => move(80),
    ArrowLeft: () => (chosen ? walk(-1, 0) : move(-80)), ArrowRight: () => (chosen ? walk(1, 0) : move(80)),
    ArrowUp: () => chosen && walk(0, -1), ArrowDown: () => chosen && walk(0, 1),
    Enter: () => choose(chosen ?? spanAt(0, 0, view.from)), Escape: () => choose(null),
    c: () => { pathBox.checked = !pathBox.checked; queue(); }, m: () => { messagesBox.checked = !messagesBox.checked; queue(); },
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
  for (const [name, onPaper] of [["beforeprint", true], ["afterprint", false]]) {
    addEventListener(name, () => { document.documentElement.classList.toggle("paper", onPaper); draw(); });
  }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", queue);
  draw();
})();

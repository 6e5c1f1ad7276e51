// Who waits for whom: what the input of an action is, and the chain of actions behind an idle stretch.
//
//   rank 0 |0F0|0F1|....idle....|0B0|     0B0 needs the gradient of 1B0: rank 0 is idle until 1B0 ended and its message came
//   rank 1     |1F0|--1B0--|1F1|          1B0 ran right after 1F0, which waited for 0F0: the chain 0F0 > 1F0 > 1B0 > 0B0
"use strict";
const waits = (() => {
  const FORWARD = 0, BACKWARD = 1, WEIGHT = 2, KINDS = [FORWARD, BACKWARD, BACKWARD, WEIGHT]; // of F, B, I, W
  const LONGEST = 10000; // actions of a chain

  const key = (kind, stage, microbatch) => `${kind},${stage},${microbatch}`;

  // Adds to a timeline: the lane of every span, its input (or -1), and its stage's place among those of its rank.
  function prepare(line) {
    const size = line.op.length, at = new Map();
    line.lane = new Uint16Array(size);
    line.chunk = new Uint8Array(size);
    line.chunks = [];
    let stages = 0;
    for (let lane = 0; lane + 1 < line.offsets.length; lane++) {
      const own = [...new Set(line.stage.subarray(line.offsets[lane], line.offsets[lane + 1]))].sort((a, b) => a - b);
      line.chunks.push(own.length);
      for (let i = line.offsets[lane]; i < line.offsets[lane + 1]; i++) {
        line.lane[i] = lane;
        line.chunk[i] = own.indexOf(line.stage[i]);
        stages = Math.max(stages, line.stage[i] + 1);
        if (line.op[i] < KINDS.length) at.set(key(KINDS[line.op[i]], line.stage[i], line.microbatch[i]), i);
      }
    }
    line.source = new Int32Array(size).fill(-1);
    for (let i = 0; i < size; i++) {
      const kind = KINDS[line.op[i]], stage = line.stage[i], microbatch = line.microbatch[i];
      let from;
      if (kind === FORWARD && stage > 0) from = key(FORWARD, stage - 1, microbatch);
      if (kind === BACKWARD) from = stage + 1 < stages ? key(BACKWARD, stage + 1, microbatch) : key(FORWARD, stage, microbatch);
      if (kind === WEIGHT) from = key(BACKWARD, stage, microbatch);
      line.source[i] = at.get(from) ?? -1;
    }
  }

  const before = (line, i) => (i > line.offsets[line.lane[i]] ? i - 1 : -1);

  // The stretch before span i: its length, and how much of it went by until the input was made, and after that.
  function stretch(line, i) {
    const last = before(line, i), free = last < 0 ? 0 : line.end[last], source = line.source[i];
    const crosses = source >= 0 && line.lane[source] !== line.lane[i];
    const made = crosses ? Math.min(line.start[i], Math.max(free, line.end[source])) : free;
    return { free, length: Math.max(0, line.start[i] - free), source: crosses ? source : -1, until: made - free, after: line.start[i] - made };
  }

  // The span that span i waited for longest: its input, or the one before it on its rank; -1 at the beginning.
  function held(line, i) {
    const last = before(line, i), source = line.source[i];
    if (source < 0) return last;
    if (last < 0) return source;
    return line.lane[source] !== line.lane[i] && line.end[source] > line.end[last] ? source : last;
  }

  // From span i back to the beginning, span i first.
  function chain(line, i) {
    const found = [];
    while (i >= 0 && found.length < LONGEST) {
      found.push(i);
      const next = held(line, i);
      if (next === i || found.length > line.op.length) break;
      i = next;
    }
    return found;
  }

  // A chain rank by rank: [{lane, first, last, length}], from the beginning on.
  function legs(line, found) {
    const parts = [];
    for (const i of [...found].reverse()) {
      const part = parts[parts.length - 1];
      if (part && part.lane === line.lane[i]) Object.assign(part, { last: i, length: part.length + 1 });
      else parts.push({ lane: line.lane[i], first: i, last: i, length: 1 });
    }
    return parts;
  }

  // Until its first backward a rank warms up, after its last forward it cools down: both times, of one lane.
  function phases(line, lane) {
    let warm = -1, cool = -1;
    for (let i = line.offsets[lane]; i < line.offsets[lane + 1]; i++) {
      if (KINDS[line.op[i]] === BACKWARD && warm < 0) warm = line.start[i];
      if (KINDS[line.op[i]] === FORWARD) cool = line.end[i];
    }
    return warm < 0 || cool < 0 ? null : { warm, cool };
  }

  return { prepare, stretch, chain, legs, phases };
})();

// The clock of the simulator (pipezoo/simulator/simulate.py), for orders that are edited in a page: the same sums in the
// same order, so the same numbers to the last bit.
//
//   orders [[{op, stage, microbatch}]] by rank, costs --> when each action runs, or the sentence that says why it cannot
//
// An action starts when its rank is free and its input has arrived.
"use strict";
const clock = (() => {
  const F = 0, B = 1, I = 2, W = 3, NAMES = ["F", "B", "I", "W"];

  const name = ({ op, stage, microbatch }) => `${stage}${NAMES[op]}${microbatch}`;
  const cell = (stage, microbatch) => stage * 65536 + microbatch;

  // Where everything is: each action with its rank and place, the input of each, and the stage's rank.
  function table(orders) {
    const all = [], forward = new Map(), back = new Map(), weight = new Map(), rankOf = [];
    orders.forEach((order, rank) => order.forEach((action, place) => {
      const i = all.length;
      all.push({ ...action, rank, place });
      ({ [F]: forward, [B]: back, [I]: back, [W]: weight })[action.op].set(cell(action.stage, action.microbatch), i);
      rankOf[action.stage] = rank;
    }));
    const source = all.map(({ op, stage, microbatch }) =>
      (op === F ? forward.get(cell(stage - 1, microbatch)) : op === W ? undefined : back.get(cell(stage + 1, microbatch))) ?? -1);
    return { all, forward, back, weight, rankOf, source };
  }

  const fault = (action, why) => `rank ${action.rank}: ${name(action)} ${why}`;

  // Why an order of all actions is none, in the words of pipezoo/schedule/validation.py; "" where it is one.
  function localFault({ all, forward, back, weight }) {
    for (const [sooner, later] of [[forward, back], [back, weight]]) {
      const cells = [...later.keys()].sort((a, b) => a - b);
      for (const at of cells) {
        const first = sooner.get(at), second = later.get(at);
        if (second < first) return fault(all[second], `comes before ${name(all[first])}, which it needs`);
      }
    }
    return "";
  }

  function deadlock({ all, source }, heads) {
    let rank = heads.findIndex((head) => head >= 0);
    const path = [];
    while (!path.includes(rank)) {
      path.push(rank);
      rank = all[source[heads[rank]]].rank;
    }
    let circle = path.slice(path.indexOf(rank));
    const turn = circle.indexOf(Math.min(...circle));
    circle = [...circle.slice(turn), ...circle.slice(0, turn)];
    if (circle.length === 1) return fault(all[heads[circle[0]]], `comes before ${name(all[source[heads[circle[0]]]])}, which it waits for`);
    const told = circle.slice(0, 6).map((at) => {
      const needs = source[heads[at]], other = all[needs].rank;
      return `rank ${at} waits at ${name(all[heads[at]])} for ${name(all[needs])}, which rank ${other} has behind ${name(all[heads[other]])}`;
    });
    const more = circle.length > told.length ? `; ... ${circle.length} ranks in a circle` : "";
    return `the order deadlocks: ${told.join("; ")}${more}`;
  }

  // numpy's sum of fewer than 128 numbers.
  function sum(values) {
    if (values.length < 8) return values.reduce((a, b) => a + b, 0);
    const r = values.slice(0, 8);
    let i = 8;
    for (; i + 8 <= values.length; i += 8) for (let k = 0; k < 8; k++) r[k] += values[i + k];
    let all = r[0] + r[1] + (r[2] + r[3]) + (r[4] + r[5] + (r[6] + r[7]));
    for (; i < values.length; i++) all += values[i];
    return all;
  }

  // costs: seconds[stage][op], p2p[stage] (from a stage to the next, where their ranks differ), keeps[stage], frees[stage]
  function play(orders, costs) {
    const found = table(orders), { all, source, rankOf } = found, why = localFault(found);
    if (why) return { error: why };
    const offsets = [0];
    for (const order of orders) offsets.push(offsets[offsets.length - 1] + order.length);
    const start = new Array(all.length), end = new Array(all.length);
    const heads = offsets.slice(0, -1), free = orders.map(() => 0);
    for (let moved = true; moved;) {
      moved = false;
      for (let rank = 0; rank < orders.length; rank++) {
        let i = heads[rank];
        for (; i < offsets[rank + 1]; i++) {
          const from = source[i];
          let now = free[rank];
          if (from >= 0) {
            if (end[from] === undefined) break;
            const boundary = Math.min(all[i].stage, all[from].stage);
            const lag = rankOf[boundary] === rankOf[boundary + 1] ? 0 : costs.p2p[boundary];
            now = Math.max(now, end[from] + lag);
          }
          start[i] = now;
          free[rank] = end[i] = now + costs.seconds[all[i].stage][all[i].op];
          moved = true;
        }
        heads[rank] = i;
      }
    }
    const stuck = heads.map((head, rank) => (head < offsets[rank + 1] ? head : -1));
    if (stuck.some((head) => head >= 0)) return { error: deadlock(found, stuck) };
    return { all, source, start, end, offsets, ...measures(found, start, end, offsets, costs) };
  }

  function measures({ all }, start, end, offsets, costs) {
    const ranks = offsets.length - 1, first = start.reduce((a, b) => Math.min(a, b), Infinity), last = end.reduce((a, b) => Math.max(a, b), 0);
    const busy = [], own = [], peaks = [];
    let held = 0;
    for (let rank = 0; rank < ranks; rank++) {
      let work = 0, peak = -Infinity;
      for (let i = offsets[rank]; i < offsets[rank + 1]; i++) {
        const { op, stage } = all[i], keeps = costs.keeps[stage], frees = costs.frees[stage];
        const added = op === F ? keeps : 0, freed = [0, keeps, frees, keeps - frees][op];
        work += end[i] - start[i];
        held += added - freed;
        peak = Math.max(peak, held + freed);
      }
      busy.push(work);
      peaks.push(peak);
      own.push(end[offsets[rank + 1] - 1] - start[offsets[rank]]);
    }
    const share = (length) => (length > 0 ? Math.max(0, 1 - sum(busy) / (ranks * length)) : 0);
    const makespan = last - first;
    return { makespan, bubble: share(makespan), spanBubble: share(Math.max(...own)), peaks };
  }

  // A row per rank and a cell per action, as schedule=csv reads it.
  const toCsv = (orders) => orders.map((order) => order.map(name).join(",")).join("\n") + "\n";

  return { play, name, toCsv, F, B, I, W };
})();

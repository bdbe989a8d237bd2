// The recorded generation: docs/trace-format.md describes the data. Nothing here draws.

const NOTHING = { length: 0, computed: 0, cached: 0, drawn: 0, ends: false, isOver: false };

class Trace {
  /** `data`: a whole trace; or, of a server that runs, one to which steps are still to be added. */
  constructor(data) {
    this.data = data;
    this.blockSize = data.memory.block_size;
    this.steps = [];
    this.progress = []; // for each step: sequence -> where it stands at the end of the step
    for (const step of data.steps) this.append(step);
    if (data.end) this.append({ ...data.end, step: null, chunks: [], choices: [] });
  }

  /** One more step. */
  append(step) {
    const before = this.progress.at(-1) ?? new Map();
    const after = new Map();
    for (const { id, prompt_length } of this.data.sequences) {
      const old = before.get(id) ?? NOTHING;
      after.set(id, advanced(step, id, prompt_length, old));
    }
    this.steps.push(step);
    this.progress.push(after);
  }

  /** Forgets the oldest steps of a server that runs, and returns how many. */
  keep(most) {
    const excess = Math.max(0, this.steps.length - most);
    this.steps.splice(0, excess);
    this.progress.splice(0, excess);
    return excess;
  }

  step(index) {
    return this.steps[index];
  }

  /** Where a sequence stands at the end of a step: see `advanced`. */
  progressOf(index, id) {
    return this.progress[index]?.get(id) ?? NOTHING;
  }

  sequence(id) {
    return this.data.sequences.find((sequence) => sequence.id === id);
  }

  textOf(token) {
    return this.data.texts[token] ?? '';
  }

  /** The text at a position of a sequence; "" if a server that runs tells no more of the sequence. */
  textAt(id, position) {
    return this.textOf(this.sequence(id)?.tokens[position]);
  }

  chunkOf(index, id) {
    return this.step(index)?.chunks.find((chunk) => chunk.sequence === id);
  }

  /** What was drawn for a sequence in a step: several tokens where drafts were accepted. */
  choicesOf(index, id) {
    return this.step(index)?.choices.filter((choice) => choice.sequence === id) ?? [];
  }

  /** The blocks of a sequence on the device, in the order of its positions. */
  tableOf(index, id) {
    return this.step(index)?.tables[id] ?? [];
  }

  /** The same for a sequence that is swapped out: blocks of the host. */
  hostTableOf(index, id) {
    return this.step(index)?.host_tables[id] ?? [];
  }

  /** Where a position lies; undefined where the sequence has no block for it. */
  placeOf(index, id, position) {
    const entry = Math.floor(position / this.blockSize);
    const block = this.tableOf(index, id)[entry];
    if (block === undefined) return undefined;
    const offset = position % this.blockSize;
    return { entry, block, offset, slot: block * this.blockSize + offset };
  }

  /** block -> the sequences whose tables name it, each with the entry of its table. */
  holdersAt(index, tables = this.step(index)?.tables ?? {}) {
    const holders = new Map();
    for (const [id, table] of Object.entries(tables)) {
      table.forEach((block, entry) => {
        if (!holders.has(block)) holders.set(block, []);
        holders.get(block).push({ sequence: Number(id), entry });
      });
    }
    return holders;
  }

  /** The blocks in which a step writes keys and values. */
  writtenAt(index) {
    const slots = this.step(index)?.chunks.flatMap((chunk) => chunk.slots) ?? [];
    return new Set(slots.map((slot) => Math.floor(slot / this.blockSize)));
  }
}

/** Where a sequence stands after a step. `length`: tokens known, 0 before it has arrived; `computed`: tokens whose keys
 *  and values are in memory; `cached`: how many of those were there when it was admitted; `drawn`: tokens that came in
 *  this step; `ends`: true if it finished in this step; `isOver`: true if it finished in an earlier one. */
function advanced(step, id, promptLength, old) {
  let { length, computed, cached } = old;
  const events = step.events.filter((each) => each.sequence === id);
  for (const event of events) {
    if (event.kind === 'arrived') length = promptLength;
    if (event.kind === 'preempted' && event.way === 'recompute') computed = cached = 0;
    if (event.kind === 'admitted') {
      computed = event.computed;
      if (event.source !== 'host') cached = computed;
    }
  }
  const isThere = step.running.includes(id) || step.waiting.includes(id);
  if (!length && isThere) length = promptLength; // it came before the recording began
  const now = { length, computed, cached, drawn: 0 };
  const chunk = step.chunks.find((each) => each.sequence === id);
  if (chunk) Object.assign(now, computedBy(chunk, step, length));
  return { ...now, ends: events.some(({ kind }) => kind === 'finished'), isOver: old.ends || old.isOver };
}

/** What a step makes of a sequence by its chunk. */
function computedBy(chunk, step, length) {
  const choices = step.choices.filter((choice) => choice.sequence === chunk.sequence && choice.token !== null);
  const last = choices.at(-1);
  if (!last) return { length, computed: chunk.start + chunk.count };
  return { length: last.position + 1, computed: last.position, drawn: choices.length };
}

/** base64 -> Uint8Array */
const bytesOf = (base64) => Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));

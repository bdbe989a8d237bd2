// Panel "Blocks": the blocks of each tier by state, the block tables, and one block with its slots.

const TIERS = ['device', 'host'];
const MOST_BLOCKS = 1024; // squares of one tier that are drawn

class MemoryPanel {
  constructor(trace, element) {
    this.trace = trace;
    this.body = element.querySelector('.body');
    this.tiers = TIERS.map((name) => new Tier(trace, name));
    this.tables = make('div', { className: 'tables' });
    this.place = make('p', { className: 'place', id: 'place' });
    this.slots = make('ol', { className: 'slots', 'aria-label': 'Slots of the block' });
    this.body.append(...this.tiers.map((tier) => tier.element), this.tables, this.place, this.slots);
  }

  draw(view) {
    for (const tier of this.tiers) tier.draw(view);
    this.drawTables(view);
    this.drawPlace(view);
  }

  drawTables(view) {
    const { tables = {}, host_tables: hostTables = {} } = this.trace.step(view.step) ?? {};
    const rows = [tables, hostTables].flatMap((each, tier) =>
      Object.entries(each).map(([id, blocks]) => this.tableRow(TIERS[tier], Number(id), blocks, view)));
    this.tables.replaceChildren(...rows);
  }

  /** One block table. */
  tableRow(tier, id, blocks, view) {
    const row = make('div', { className: 'table' }, sequenceName(id));
    Object.assign(row.dataset, { sequence: id, tier, blocks: blocks.join(',') });
    row.append(make('span', { className: 'label', textContent: tier === 'host' ? 'on the host' : '' }));
    row.append(...blocks.map((block, entry) => this.tableCell(id, block, entry, view)));
    return row;
  }

  tableCell(id, block, entry, view) {
    const first = entry * this.trace.blockSize;
    const last = first + this.trace.blockSize - 1;
    const cell = smallButton(`cell ${colourOf(id)}`, block, () => view.set({ sequence: id, chosen: first }));
    cell.title = `entry ${entry}: block ${block}, positions ${first} to ${last}`;
    cell.setAttribute('aria-pressed', id === view.sequence && first <= view.position && view.position <= last);
    return cell;
  }

  drawPlace(view) {
    const { sequence, position } = view;
    const place = this.trace.placeOf(view.step, sequence, position);
    const size = this.trace.blockSize;
    this.slots.hidden = !place;
    if (!place) {
      this.place.textContent = `Position ${position} of sequence ${sequence} has no block on the device in this step.`;
      return;
    }
    const { entry, block, offset, slot } = place;
    this.place.textContent = `Position ${position} of sequence ${sequence} is in entry ${entry} of its table `
      + `(${position} // ${size}): block ${block}, slot ${block} × ${size} + ${offset} = ${slot}.`;
    Object.assign(this.place.dataset, { block, slot });
    this.slots.replaceChildren(...this.slotCells(view, entry, offset));
  }

  /** The tokens whose keys and values lie in one block. */
  slotCells(view, entry, selected) {
    const { computed } = this.trace.progressOf(view.step, view.sequence);
    return Array.from({ length: this.trace.blockSize }, (_, offset) => {
      const position = entry * this.trace.blockSize + offset;
      const isFilled = position < computed;
      const text = isFilled ? visible(this.trace.textAt(view.sequence, position)) : '\u00a0';
      const className = isFilled ? colourOf(view.sequence) : 'empty';
      const cell = make('li', { textContent: text, dir: 'auto', className });
      cell.classList.toggle('selected', offset === selected);
      return cell;
    });
  }
}

/** The blocks of the device or of the host as squares. */
class Tier {
  constructor(trace, name) {
    this.trace = trace;
    this.name = name;
    this.total = trace.data.memory[`${name}_blocks`] ?? 0;
    this.counts = make('p', { className: 'counts' });
    this.grid = make('div', { className: 'grid', 'data-tier': name });
    const title = make('h3', { textContent: `Blocks of the ${name}` });
    this.element = make('section', { className: 'tier' }, title, this.counts, this.grid);
    this.element.hidden = !this.total;
    this.cells = [];
  }

  draw(view) {
    const step = this.trace.step(view.step);
    const isDevice = this.name === 'device';
    const holders = this.trace.holdersAt(view.step, isDevice ? step?.tables : step?.host_tables);
    const written = isDevice ? this.trace.writtenAt(view.step) : new Set();
    const selected = isDevice ? this.trace.placeOf(view.step, view.sequence, view.position)?.block : undefined;
    const references = new Map((step?.[this.name] ?? []).map(([block, number]) => [block, number]));
    this.grow(Math.max(...references.keys(), 0) + 1);
    this.cells.forEach((cell, block) => {
      this.drawCell(cell, references.get(block), holders.get(block) ?? []);
      cell.classList.toggle('written', written.has(block));
      cell.classList.toggle('selected', block === selected);
    });
    this.drawCounts([...references.values()]);
  }

  grow(least) {
    const wanted = Math.min(this.total, MOST_BLOCKS, Math.max(least, this.cells.length, 32));
    while (this.cells.length < wanted) {
      const cell = make('i', { 'data-block': this.cells.length });
      this.cells.push(this.grid.appendChild(cell));
    }
  }

  /** `references`: undefined for a free block, 0 for a cached one. */
  drawCell(cell, references, holders) {
    const state = stateOf(references);
    cell.className = `block ${state}`;
    if (holders.length) cell.classList.add(colourOf(holders[0].sequence));
    cell.textContent = references || '';
    Object.assign(cell.dataset, { state, references: references ?? 0 });
    const names = holders.map(({ sequence, entry }) => `entry ${entry} of sequence ${sequence}`).join(', ');
    cell.title = `block ${cell.dataset.block}: ${state}${names && `, ${names}`}`;
  }

  drawCounts(references) {
    const held = references.filter((each) => each > 0).length;
    const cached = references.length - held;
    const free = this.total - references.length;
    Object.assign(this.counts.dataset, { held, cached, free });
    const drawn = this.cells.length < this.total ? `; the first ${count(this.cells.length)} are drawn` : '';
    this.counts.textContent = `${count(held)} held · ${count(cached)} cached · ${count(free)} free${drawn}`;
  }
}

function stateOf(references) {
  if (references === undefined) return 'free';
  return references > 0 ? 'held' : 'cached';
}

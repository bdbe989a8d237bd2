// Panel "Tokens": the text of every sequence, token by token, with what the step does to each.

class TextPanel {
  constructor(trace, element) {
    this.trace = trace;
    this.body = element.querySelector('.body');
    this.rows = new Map(); // sequence -> its row
  }

  draw(view) {
    for (const [id, row] of this.rows) if (!this.trace.sequence(id)) this.forget(id, row);
    for (const sequence of this.trace.data.sequences) this.rowOf(sequence, view).draw(view, sequence);
  }

  /** A server that runs tells no more of old sequences. */
  forget(id, row) {
    row.element.remove();
    this.rows.delete(id);
  }

  rowOf(sequence, view) {
    if (!this.rows.has(sequence.id)) {
      const row = new SequenceRow(this.trace, sequence, view);
      this.rows.set(sequence.id, row);
      this.body.append(row.element);
    }
    return this.rows.get(sequence.id);
  }
}

/** One sequence: its name and state, and a chip per token. */
class SequenceRow {
  constructor(trace, sequence, view) {
    this.trace = trace;
    this.sequence = sequence;
    this.chips = [];
    this.state = make('span', { className: 'state' });
    this.drafts = make('span', { className: 'drafts' });
    this.tokens = make('div', { className: 'tokens' }, this.drafts);
    this.tokens.addEventListener('click', (event) => {
      const chip = event.target.closest('.chip[data-position]');
      if (chip) view.choose(sequence.id, Number(chip.dataset.position));
    });
    const name = make('button', { type: 'button', className: `name ${colourOf(sequence.id)}` });
    name.textContent = `sequence ${sequence.id}`;
    name.addEventListener('click', () => view.set({ sequence: sequence.id, chosen: null }));
    const title = make('h3', {}, name, this.state);
    this.element = make('section', { className: 'sequence', 'data-sequence': sequence.id }, title, this.tokens);
  }

  draw(view, sequence) {
    this.sequence = sequence;
    const { length } = this.trace.progressOf(view.step, this.sequence.id);
    const isSelected = view.sequence === this.sequence.id;
    this.element.classList.toggle('selected', isSelected);
    this.state.textContent = this.stateText(view.step);
    this.element.dataset.length = length;
    const position = isSelected ? view.position : null;
    const stateOf = this.tokenStates(view.step);
    const most = Math.max(length, this.chips.length);
    for (let at = 0; at < most; at++) this.drawChip(at, at < length ? stateOf(at) : 'hidden', at === position);
    this.drawDrafts(view.step);
    const newest = length - 1;
    if (isSelected && length) this.reveal(Math.min(view.chosen ?? newest, newest));
  }

  /** Touches a chip only where it changes: several long texts have thousands of them. */
  drawChip(at, state, isMarked) {
    const chip = (this.chips[at] ??= { element: this.newChip(at) });
    if (chip.state === state && chip.isMarked === isMarked) return;
    Object.assign(chip, { state, isMarked });
    chip.element.hidden = state === 'hidden';
    chip.element.className = `chip ${state}`;
    chip.element.classList.toggle('generated', at >= this.sequence.prompt_length);
    chip.element.dataset.state = state;
    chip.element.setAttribute('aria-pressed', isMarked);
  }

  newChip(at) {
    const token = this.sequence.tokens[at];
    const chip = smallButton('chip', visible(this.trace.textOf(token)));
    chip.title = `token ${token}, position ${at}`;
    Object.assign(chip.dataset, { position: at, token });
    this.tokens.insertBefore(chip, this.drafts);
    return chip;
  }

  reveal(at) {
    reveal(this.element.parentElement, this.chips[at].element);
  }

  /** The proposed tokens that were computed in this step and did not come. */
  drawDrafts(index) {
    const { drawn } = this.trace.progressOf(index, this.sequence.id);
    const drafts = this.trace.chunkOf(index, this.sequence.id)?.drafts ?? [];
    const rejected = drafts.slice(Math.max(0, drawn - 1)).map((token) => visible(this.trace.textOf(token)));
    this.drafts.replaceChildren(...rejected.map((text) =>
      make('s', { className: 'chip rejected', textContent: text, title: 'proposed, not accepted' })));
  }

  /** -> a function from a position to its state in this step. */
  tokenStates(index) {
    const id = this.sequence.id;
    const { length, computed, cached, drawn, isOver } = this.trace.progressOf(index, id);
    const chunk = this.trace.chunkOf(index, id);
    if (isOver) return () => 'released';
    return (position) => {
      if (position >= length - drawn) return 'drawn';
      if (chunk && position >= chunk.start && position < chunk.start + chunk.count) return 'now';
      if (position < cached) return 'cached';
      return position < computed ? 'computed' : 'pending';
    };
  }

  /** What is told beside the name of the sequence. */
  stateText(index) {
    const { id, request, finish_reason: reason } = this.sequence;
    const { length, computed, isOver } = this.trace.progressOf(index, id);
    if (!length) return 'not submitted yet';
    const tokens = `request ${request} · ${plural(length, 'token')}`;
    if (isOver) return `${tokens} · finished: ${reason}`;
    return `${tokens}, ${count(computed)} in memory · ${this.stateWord(this.trace.step(index))}`;
  }

  /** What the sequence does in a step. */
  stateWord(step) {
    const { id } = this.sequence;
    if (step.waiting.includes(id)) return step.host_tables[id] ? 'waiting, swapped out' : 'waiting';
    return step.chunks.some((chunk) => chunk.sequence === id) ? 'computed in this step' : 'running';
  }
}

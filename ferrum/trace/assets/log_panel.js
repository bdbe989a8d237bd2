// Panel "Scheduler": the queue, and what happened so far.

const MOST_LINES = 60;

class LogPanel {
  constructor(trace, element) {
    this.trace = trace;
    this.queues = make('dl', { className: 'queues' });
    this.log = make('ol', { className: 'log', 'aria-label': 'Events' });
    element.querySelector('.body').append(this.queues, this.log);
  }

  draw(view) {
    const step = this.trace.step(view.step);
    this.queues.replaceChildren(...queue('running', step?.running ?? []), ...queue('waiting', step?.waiting ?? []));
    const lines = [];
    for (let index = view.step; this.trace.step(index) && lines.length < MOST_LINES; index--) {
      lines.push(...this.linesOf(index, index === view.step, view));
    }
    this.log.replaceChildren(...lines);
  }

  /** The events of one step. Tokens that came are told by the panels above. */
  linesOf(index, isNow, view) {
    const step = this.trace.step(index);
    return step.events.filter((event) => event.kind !== 'sampled').map((event) => {
      const name = make('button', { type: 'button', className: 'quiet', textContent: nameOf(step) });
      name.addEventListener('click', () => view.set({ step: index }));
      const line = make('li', { 'data-kind': event.kind, 'data-step': step.step }, name, ...sentence(event));
      line.classList.toggle('now', isNow);
      return line;
    });
  }
}

const nameOf = (step) => (step.step === null ? 'end' : `step ${step.step}`);

function queue(name, sequences) {
  const chips = sequences.length ? sequences.map(sequenceName) : ['none'];
  const members = make('dd', { 'data-queue': name, 'data-sequences': sequences.join(',') }, ...chips);
  return [make('dt', { textContent: name }), members];
}

const SOURCES = {
  nothing: () => 'admitted: all of its tokens have to be computed',
  prefix: (computed) => `admitted: ${plural(computed, 'token')} found in the prefix cache`,
  sibling: (computed) => `admitted: shares ${plural(computed, 'token')} with another continuation of its prompt`,
  host: (computed) => `swapped in: ${plural(computed, 'token')} from the host`,
};

const WAYS = {
  recompute: 'preempted: its blocks are given back, and its tokens are computed again later',
  swap: 'preempted: its blocks are swapped out to the host',
};

const SENTENCES = {
  arrived: () => 'is submitted, and waits',
  admitted: ({ source, computed }) => SOURCES[source](computed),
  preempted: ({ way }) => WAYS[way],
  copied: ({ index, block, source }) => `copy on write: entry ${index} was ${original(source)}, now block ${block}`,
  finished: ({ reason }) => `finished: ${reason}`,
  evicted: ({ blocks }) => `evicted from the prefix cache: ${named(blocks)}`,
  demoted: ({ blocks }) => `cached on the host: ${named(blocks)}`,
  dropped: ({ blocks }) => `evicted from the host: ${named(blocks)}`,
  promoted: ({ blocks }) => `brought back from the host: ${named(blocks)}`,
};

const original = (block) => (block === null ? 'a shared block' : `block ${block}`);
const named = (blocks) => `block${blocks.length === 1 ? '' : 's'} ${blocks.join(', ')}`;

/** An event in words. A kind that this page does not know is shown as it is. */
function sentence(event) {
  const words = SENTENCES[event.kind]?.(event) ?? JSON.stringify(event);
  return event.sequence === undefined ? [words] : [sequenceName(event.sequence), ` ${words}`];
}

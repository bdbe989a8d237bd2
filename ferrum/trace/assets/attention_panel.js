// Panel "Attention": the weights of one head over the context, and which heads read from one token.

class AttentionPanel {
  constructor(trace, element) {
    this.trace = trace;
    this.body = element.querySelector('.body');
    this.layers = make('select', { id: 'layer' });
    this.heads = make('select', { id: 'head' });
    this.about = make('p', { className: 'counts', id: 'attention-about' });
    this.map = make('div', { className: 'map', role: 'img' });
    this.context = make('div', { className: 'context' });
    const choices = [make('label', {}, 'Layer ', this.layers), make('label', {}, 'Head ', this.heads)];
    this.body.append(make('div', { className: 'controls' }, ...choices, this.about));
    const caption = make('figcaption', { className: 'counts' }, 'All heads: the weight of the marked token.');
    const figure = make('figure', {}, this.map, caption);
    this.body.append(make('div', { className: 'split' }, this.context, figure));
  }

  draw(view) {
    const weights = attentionOf(this.trace, view);
    this.body.classList.toggle('absent', !weights);
    if (!weights) {
      this.about.textContent = this.trace.data.live
        ? 'Attention is not recorded while a server runs: ferrum-ref trace records it.'
        : 'No attention is recorded for this sequence in this step.';
      this.context.replaceChildren();
      this.map.replaceChildren();
      return;
    }
    if (!weights.layers.includes(view.layer)) view.layer = weights.layers[0];
    fill(this.layers, weights.layers, view.layer, (layer) => view.set({ layer }));
    fill(this.heads, [...Array(weights.heads).keys()], view.head, (head) => view.set({ head }));
    this.drawContext(view, weights);
    this.drawMap(view, weights);
  }

  drawContext(view, weights) {
    const row = weights.row(view.layer, view.head);
    const largest = Math.max(...row, 1 / 255);
    this.context.replaceChildren(...row.map((weight, position) => this.column(view, position, weight, largest)));
    const reach = `from position ${weights.query} to ${plural(row.length, 'token')}`;
    this.about.textContent = `${reach}; the tallest bar is ${percent(largest)}`;
  }

  /** A token of the context with its weight as a bar above it. */
  column(view, position, weight, largest) {
    const text = visible(this.trace.textAt(view.sequence, position));
    const choose = () => view.choose(view.sequence, position);
    const column = smallButton(`column ${colourOf(view.sequence)}`, '', choose);
    column.append(styled(make('i'), { weight: weight / largest }), make('span', { textContent: text, dir: 'auto' }));
    column.title = `position ${position}: ${percent(weight)}`;
    column.setAttribute('aria-pressed', position === view.position);
    Object.assign(column.dataset, { position, weight });
    return column;
  }

  /** Every head as a square: how much it reads from the token that is looked at. */
  drawMap(view, weights) {
    const at = Math.min(view.position, weights.query);
    const cells = [];
    for (const layer of weights.layers) {
      for (let head = 0; head < weights.heads; head++) {
        const weight = weights.row(layer, head)[at];
        const cell = styled(make('i', { title: `layer ${layer}, head ${head}: ${percent(weight)}` }), { weight });
        cell.classList.toggle('selected', layer === view.layer && head === view.head);
        cell.addEventListener('click', () => view.set({ layer, head }));
        cells.push(cell);
      }
    }
    styled(this.map, { heads: weights.heads }).replaceChildren(...cells);
    this.map.setAttribute('aria-label', `How much each head reads from position ${at}`);
  }
}

/** The weights of all heads for the query from which a sequence got its token; null where none are recorded. */
function attentionOf(trace, view) {
  const choice = shownChoice(trace, view);
  if (!choice?.attention) return null;
  const { layers, heads, context, weights } = choice.attention;
  const bytes = (choice.bytes ??= bytesOf(weights));
  const row = (layer, head) => {
    const start = (layers.indexOf(layer) * heads + head) * context;
    return Array.from(bytes.subarray(start, start + context), (byte) => byte / 255);
  };
  return { layers, heads, context, query: choice.position - 1, row };
}

/** The numbers as options of a select, one of them selected. */
function fill(select, numbers, selected, choose) {
  if (select.options.length !== numbers.length) {
    select.replaceChildren(...numbers.map((each) => make('option', { value: each, textContent: each })));
  }
  select.value = selected;
  select.onchange = () => choose(Number(select.value));
}

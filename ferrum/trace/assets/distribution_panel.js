// Panel "Next token": the distribution after each processor and filter, and the draw.

const SHOWN_TOKENS = 8; // of a stage

class DistributionPanel {
  constructor(trace, element) {
    this.trace = trace;
    this.body = element.querySelector('.body');
    this.about = make('p', { className: 'counts', id: 'choice' });
    this.stages = make('ol', { className: 'stages' });
    this.line = make('div', { className: 'line' });
    this.draws = make('p', { className: 'counts', id: 'draw' });
    this.body.append(this.about, this.stages, this.line, this.draws);
  }

  draw(view) {
    const choice = shownChoice(this.trace, view);
    for (const part of [this.stages, this.line, this.draws]) part.hidden = !choice?.stages?.length;
    if (!choice) {
      this.about.textContent = `Sequence ${view.sequence} gets no token in this step.`;
      return;
    }
    this.drawToken(view.sequence, choice);
    if (!choice.stages?.length) {
      this.about.append(this.trace.data.live ? ' · Distributions are recorded where the box above is ticked.' : '');
      return;
    }
    this.stages.replaceChildren(...choice.stages.map((stage) => this.stageCard(stage, choice.token)));
    this.drawLine(choice);
  }

  drawToken(sequence, { position, token }) {
    const text = make('b', { textContent: visible(this.trace.textOf(token)), dir: 'auto' });
    this.about.replaceChildren(sequenceName(sequence), ` position ${position}: `, text, ` (token ${token})`);
    Object.assign(this.about.dataset, { position, token });
  }

  drawLine(choice) {
    this.line.hidden = choice.greedy;
    if (choice.greedy) {
      for (const name of ['unit', 'low', 'high']) delete this.draws.dataset[name];
      this.draws.textContent = 'Temperature 0: the largest logit wins, and no random number is used.';
      return;
    }
    const [low, high] = choice.interval;
    const segments = this.segments(choice).map((segment) => this.segment(segment));
    this.line.replaceChildren(...segments, this.needle(choice.unit));
    const interval = `from ${low.toFixed(4)} to ${high.toFixed(4)}`;
    this.draws.textContent = `The random number ${choice.unit.toFixed(4)} is in the interval of this token on the `
      + `cumulative line: ${interval}.`;
    Object.assign(this.draws.dataset, { unit: choice.unit, low, high });
  }

  /** The cumulative distribution, in the order of token ids, where the last stage names all tokens that are left; else
   *  the interval of the drawn token alone. */
  segments(choice) {
    const last = choice.stages.at(-1);
    if (last.left > last.top.length) {
      return [{ token: choice.token, low: choice.interval[0], high: choice.interval[1], isDrawn: true }];
    }
    let low = 0;
    return last.top.toSorted(([a], [b]) => a - b).map(([token, , p]) => {
      const segment = { token, low, high: Math.min(1, low + p), isDrawn: token === choice.token };
      low += p;
      return segment;
    });
  }

  segment({ token, low, high, isDrawn }) {
    const text = visible(this.trace.textOf(token));
    const element = make('span', { textContent: text, dir: 'auto' });
    element.title = `${text} ${low.toFixed(4)} to ${high.toFixed(4)}`;
    element.classList.toggle('drawn', isDrawn);
    return styled(element, { low, high });
  }

  needle(unit) {
    return styled(make('i', { className: 'needle', title: `random number ${unit}` }), { low: unit });
  }

  /** One stage: its name, how many tokens it leaves, the most probable of them. */
  stageCard({ name, left, top }, drawn) {
    const card = make('li', { className: 'stage', 'data-name': name, 'data-left': left });
    const rows = top.slice(0, SHOWN_TOKENS).map(([token, logit, p]) => this.tokenRow(token, logit, p, token === drawn));
    card.append(make('h3', { textContent: name }));
    card.append(make('p', { className: 'counts', textContent: `${plural(left, 'token')} left` }));
    card.append(make('ol', {}, ...rows));
    return card;
  }

  tokenRow(token, logit, p, isDrawn) {
    const text = make('span', { textContent: visible(this.trace.textOf(token)), dir: 'auto' });
    const share = make('span', { textContent: percent(p) });
    const row = make('li', { title: `token ${token}, logit ${logit}` }, text, share);
    row.classList.toggle('drawn', isDrawn);
    return styled(row, { p });
  }
}

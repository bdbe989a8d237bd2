// Panel "Launches": the calls of a step with their times, a line per layer.

const CALL_COLOURS = 6;

class LaunchesPanel {
  constructor(trace, element) {
    this.trace = trace;
    this.total = make('p', { className: 'counts', id: 'launch-total' });
    this.names = make('ul', { className: 'calls', 'aria-label': 'Time of each kind of call' });
    this.layers = make('ol', { className: 'layers', start: 0 });
    element.querySelector('.body').append(this.total, this.names, this.layers);
  }

  draw(view) {
    const launches = this.trace.step(view.step)?.launches;
    for (const part of [this.names, this.layers]) part.hidden = !launches;
    if (!launches) {
      this.total.textContent = this.trace.data.live
        ? 'Times of calls are not recorded while a server runs: ferrum-ref trace records them.'
        : 'No calls are recorded for this step.';
      return;
    }
    const total = sum(launches);
    const kernels = launches.reduce((number, [, , , each]) => number + each.length, 0);
    const calls = plural(launches.length, 'call') + (kernels ? ` with ${plural(kernels, 'kernel')}` : '');
    this.total.textContent = `${calls}, ${time(total)} in all`;
    this.total.dataset.total = total;
    this.drawNames(launches, total);
    this.drawLayers(launches);
  }

  /** The kinds of calls, the slowest first, as a table and as the legend of the lines below. */
  drawNames(launches, total) {
    const kinds = Map.groupBy(launches, ([name]) => name);
    this.colours = new Map([...kinds.keys()].map((name, number) => [name, `c${number % CALL_COLOURS}`]));
    const rows = [...kinds].map(([name, calls]) => ({ name, calls: calls.length, us: sum(calls) }));
    rows.sort((a, b) => b.us - a.us);
    this.names.replaceChildren(...rows.map((row) => this.kind(row, total)));
  }

  kind({ name, calls, us }, total) {
    const row = make('li', { 'data-name': name, 'data-us': us });
    row.append(make('i', { className: this.colours.get(name) }), make('b', { textContent: name }));
    row.append(` ${calls} × · ${time(us)} · ${percent(us / total)}`);
    return row;
  }

  /** A line for what comes before the layers, for each layer, and for what comes after. */
  drawLayers(launches) {
    const lines = linesOf(launches);
    const longest = Math.max(...lines.map(({ calls }) => sum(calls)));
    this.layers.replaceChildren(...lines.map(({ label, calls }) => this.line(label, calls, longest)));
  }

  line(label, calls, longest) {
    const line = make('li', { 'data-us': sum(calls) }, make('span', { textContent: label }));
    line.append(make('div', {}, ...calls.map((call) => this.bar(call, longest))));
    line.append(make('span', { textContent: time(sum(calls)) }));
    return line;
  }

  bar([name, , us, kernels], longest) {
    const inside = kernels.map(([kernel, each]) => `\n  ${kernel} ${time(each)}`).join('');
    const bar = make('i', { className: this.colours.get(name), title: `${name} ${time(us)}${inside}` });
    return styled(bar, { part: us / longest });
  }
}

const sum = (launches) => launches.reduce((total, [, , us]) => total + us, 0);

/** Neighbouring calls of the same layer together. */
function linesOf(launches) {
  const lines = [];
  for (const launch of launches) {
    const layer = launch[1];
    if (!lines.length || lines.at(-1).layer !== layer) {
      const outside = lines.length ? 'head' : 'embedding';
      lines.push({ layer, label: layer === null ? outside : `layer ${layer}`, calls: [] });
    }
    lines.at(-1).calls.push(launch);
  }
  return lines;
}

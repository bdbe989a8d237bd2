// The start: one view, the panels that draw it, and the player; with a server that runs, the steps that come.

/** Light or dark: the system's choice until the button is used. */
function setUpTheme() {
  const root = document.documentElement;
  const preferred = matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light';
  const isDark = () => (root.dataset.theme ?? preferred) === 'dark';
  const label = () => { $('theme').textContent = isDark() ? 'Light' : 'Dark'; };
  $('theme').addEventListener('click', () => {
    root.dataset.theme = isDark() ? 'light' : 'dark';
    label();
  });
  label();
}

/** The facts of the model and its memory, in one line. */
function facts({ model, memory, limits }) {
  const size = model.layers && `${plural(model.layers, 'layer')} of ${plural(model.heads, 'head')}`;
  const budget = `at most ${plural(limits.max_num_batched_tokens, 'token')} a step`;
  const policies = [`scheduler ${memory.scheduler}`, memory.eviction && `eviction ${memory.eviction}`];
  const blocks = `blocks of ${plural(memory.block_size, 'token')}`;
  return [model.name, model.backend, model.dtype, size, blocks, budget, ...policies].filter(Boolean).join(' · ');
}

function notice(sentences) {
  $('notice').hidden = !sentences.length;
  $('notice').replaceChildren(...sentences.map((sentence) => make('p', { textContent: sentence })));
}

/** Draws a trace, and returns the view of it. */
function show(data) {
  const trace = new Trace(data);
  const view = new View(trace);
  const panels = {
    text: TextPanel, memory: MemoryPanel, attention: AttentionPanel, distribution: DistributionPanel,
    launches: LaunchesPanel, log: LogPanel,
  };
  view.panels = Object.entries(panels).map(([id, Panel]) => new Panel(trace, $(id)));
  view.player = new Player(trace, view);
  view.panels.push(view.player);
  $('model').textContent = facts(data);
  notice(data.left_out ?? []);
  view.draw();
  return view;
}

setUpTheme();
const recorded = JSON.parse($('trace').textContent);
if (recorded.live) follow(recorded.live);
else window.view = show(recorded);

// The player: which step is looked at, by buttons, slider and keys, and the sentence that tells what the step does.

class Player {
  constructor(trace, view) {
    this.trace = trace;
    this.view = view;
    this.timer = null;
    const steps = {
      first: () => this.go(0),
      back: () => this.go(view.step - 1),
      forward: () => this.go(view.step + 1),
      last: () => this.go(Infinity),
    };
    for (const [id, act] of Object.entries(steps)) $(id).addEventListener('click', act);
    $('play').addEventListener('click', () => this.toggle());
    $('slider').addEventListener('input', () => this.go(Number($('slider').value)));
    $('speed').addEventListener('change', () => this.timer && this.play());
    document.addEventListener('keydown', (event) => this.key(event, steps));
  }

  get isAtEnd() {
    return this.view.step >= this.trace.steps.length - 1;
  }

  /** A step that the reader asks for: the player stops there. */
  go(step) {
    this.pause();
    this.view.set({ step });
  }

  toggle() {
    if (this.timer) this.pause();
    else this.play();
  }

  /** Plays on; from the beginning where the end is reached. */
  play() {
    this.pause();
    if (this.isAtEnd) this.view.set({ step: 0 });
    this.timer = setInterval(() => this.tick(), 1000 / Number($('speed').value));
    $('play').textContent = 'Pause';
  }

  tick() {
    this.view.set({ step: this.view.step + 1 });
    if (this.isAtEnd) this.pause();
  }

  pause() {
    clearInterval(this.timer);
    this.timer = null;
    $('play').textContent = 'Play';
  }

  /** Keys act everywhere but in controls that use them. */
  key(event, steps) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches('select, input')) return;
    const { step, position, sequence } = this.view;
    const acts = {
      ArrowLeft: steps.back, ArrowRight: steps.forward, Home: steps.first, End: steps.last,
      ' ': () => this.toggle(),
      ',': () => this.view.set({ chosen: Math.max(0, position - 1) }),
      '.': () => this.view.set({ chosen: Math.min(position + 1, this.trace.progressOf(step, sequence).length - 1) }),
      Escape: () => this.view.set({ chosen: null }),
    };
    const act = acts[event.key];
    if (!act || (event.key === ' ' && event.target.matches('button'))) return; // a space presses a button
    event.preventDefault();
    act();
  }

  draw({ step }) {
    const shown = this.trace.step(step);
    const most = this.trace.steps.length - 1;
    Object.assign($('slider'), { max: Math.max(0, most), value: step });
    $('slider').disabled = most < 0;
    $('step').value = shown ? `${nameOf(shown)} (${step + 1} of ${most + 1})` : 'no steps';
    $('step').dataset.step = shown?.step ?? (shown ? 'end' : 'none');
    $('slider').setAttribute('aria-valuetext', $('step').value);
    $('story').textContent = shown ? story(shown) : 'No step is recorded yet.';
  }
}

/** What a step does, in one sentence. */
function story(step) {
  if (step.step === null) return 'The end: all blocks are given back; those whose content is known stay cached.';
  const tokens = step.chunks.reduce((number, chunk) => number + chunk.count + chunk.drafts.length, 0);
  const sequences = plural(step.chunks.length, 'sequence');
  const drawn = step.choices.filter((choice) => choice.token !== null).length;
  const result = drawn ? `draws ${plural(drawn, 'token')}` : 'draws no token, because no prompt is at its end';
  return `The model computes ${plural(tokens, 'token')} of ${sequences} in ${time(step.seconds * 1e6)}, and ${result}.`;
}

// What the reader looks at: one step, one sequence, one token, one head. Panels draw it anew when it changes.

class View {
  constructor(trace) {
    this.trace = trace;
    this.panels = [];
    this.step = 0; // index in trace.steps
    this.sequence = trace.data.sequences[0]?.id ?? 0;
    this.chosen = null; // a position of the sequence that the reader chose; null: the view follows the last one
    this.layer = 0;
    this.head = 0;
  }

  /** Changes some of what is looked at, and draws. */
  set(changes) {
    Object.assign(this, changes);
    this.step = Math.max(0, Math.min(this.step, this.trace.steps.length - 1));
    if (this.chosen === null) this.leaveFinished();
    this.draw();
  }

  /** Looks at a sequence that runs, where the one that was looked at has finished. */
  leaveFinished() {
    const { isOver } = this.trace.progressOf(this.step, this.sequence);
    const [running] = this.trace.step(this.step)?.running ?? [];
    if (isOver && running !== undefined) this.sequence = running;
  }

  draw() {
    for (const panel of this.panels) panel.draw(this);
  }

  /** Chooses a token; choosing it again lets the view follow the newest one. */
  choose(sequence, position) {
    const again = sequence === this.sequence && position === this.chosen;
    this.set({ sequence, chosen: again ? null : position });
  }

  /** The position that is looked at: the chosen one, or the last that is computed by the end of this step. */
  get position() {
    return this.chosen ?? Math.max(0, this.trace.progressOf(this.step, this.sequence).computed - 1);
  }
}

/** The choice that is looked at. With accepted drafts a step has several for one sequence: the reader may have chosen
 *  the position of one. */
function shownChoice(trace, view) {
  const choices = trace.choicesOf(view.step, view.sequence);
  return choices.find((choice) => choice.position === view.chosen) ?? choices[0];
}

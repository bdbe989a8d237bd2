'use strict';

// Elements and numbers: what every panel uses to draw.

const $ = (id) => document.getElementById(id);

/** An element with properties (attributes where a name has a dash) and children, which may be texts. */
function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes('-')) element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children);
  return element;
}

/** A button that is no stop of the Tab key: there are many of its kind, and other keys reach what it does. */
function smallButton(className, text, act) {
  const element = make('button', { type: 'button', tabIndex: -1, className, textContent: text, dir: 'auto' });
  if (act) element.addEventListener('click', act);
  return element;
}

/** Sets CSS variables. The policy of the page forbids style attributes, and allows this. */
function styled(element, variables) {
  for (const [name, value] of Object.entries(variables)) element.style.setProperty(`--${name}`, value);
  return element;
}

const SEQUENCE_COLOURS = 8;

/** The class that gives a sequence its colour, the same one in every panel. */
const colourOf = (sequence) => `s${sequence % SEQUENCE_COLOURS}`;

const sequenceName = (sequence) =>
  make('span', { className: `name ${colourOf(sequence)}`, textContent: `sequence ${sequence}` });

const LONGEST_CHIP = 40; // UTF-16 units of a token's text that a chip shows

/** A token's text with its spaces and line ends made visible, and shortened. */
function visible(text) {
  if (text === '') return '∅';
  const short = text.length > LONGEST_CHIP ? `${text.slice(0, LONGEST_CHIP)}…` : text;
  return short.replaceAll(' ', '·').replaceAll('\n', '↵').replaceAll('\t', '⇥').replaceAll('\r', '␍');
}

const count = (number) => number.toLocaleString('en');
const plural = (number, noun) => `${count(number)} ${noun}${number === 1 ? '' : 's'}`;

/** A probability in per cent. */
function percent(p) {
  if (p > 0 && p < 0.0001) return '<0.01%';
  return `${(100 * p).toFixed(p >= 0.1 || p === 0 ? 1 : 2)}%`;
}

/** A time that is given in microseconds, in the unit that suits it. */
function time(us) {
  if (us >= 1e6) return `${(us / 1e6).toFixed(2)} s`;
  return us >= 1000 ? `${(us / 1000).toFixed(2)} ms` : `${us.toFixed(1)} µs`;
}

/** Scrolls a container, and not the page, until an element in it is seen. */
function reveal(container, element) {
  const outer = container.getBoundingClientRect();
  const inner = element.getBoundingClientRect();
  if (inner.top < outer.top) container.scrollTop -= outer.top - inner.top + 8;
  if (inner.bottom > outer.bottom) container.scrollTop += inner.bottom - outer.bottom + 8;
}

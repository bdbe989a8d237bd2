// A server that runs: the newest steps, asked for again and again while the page is seen.

const MOST_LIVE_STEPS = 256;

/** Fetches the steps of a recording after a number. Asks for a key where one is needed; null where it is not given. */
async function fetchSteps(url, recording, after) {
  const key = sessionStorage.getItem('ferrum.key');
  const asked = new URLSearchParams({ recording, after, distributions: $('distributions').checked });
  const response = await fetch(`${url}?${asked}`, { headers: key ? { authorization: `Bearer ${key}` } : {} });
  if (response.status === 401) return (await askForKey()) ? fetchSteps(url, recording, after) : null;
  if (!response.ok) throw new Error((await response.json()).error.message);
  return response.json();
}

/** Waits until the reader gives a key, which is kept for this tab alone. -> false if the reader gives none. */
async function askForKey() {
  const dialog = $('key-dialog');
  dialog.returnValue = '';
  dialog.showModal();
  await happened(dialog, 'close');
  if (dialog.returnValue === 'use') sessionStorage.setItem('ferrum.key', $('key').value);
  $('key').value = '';
  return dialog.returnValue === 'use';
}

const happened = (target, name) => new Promise((resolve) => target.addEventListener(name, resolve, { once: true }));

/** Adds what came since the last time. A reader who looks at the newest step sees the new one. */
function extend(view, data) {
  const { trace } = view;
  const isAtNewest = view.player.isAtEnd && !view.player.timer;
  Object.assign(trace.data, { sequences: data.sequences, requests: data.requests });
  Object.assign(trace.data.texts, data.texts);
  for (const step of data.steps) trace.append(step);
  const forgotten = trace.keep(MOST_LIVE_STEPS);
  const step = isAtNewest ? trace.steps.length - 1 : view.step - forgotten;
  const isThere = trace.sequence(view.sequence) !== undefined;
  view.set(isThere ? { step } : { step, chosen: null, sequence: data.steps.at(-1).running[0] });
}

/** Shows a server's steps until the page is closed. `live`: where they are, and how often to ask. */
async function follow({ url, every_ms: everyMs }) {
  let view = null;
  let recording = null;
  let after = 0;
  $('live').hidden = false;
  for (;;) {
    try {
      const data = await fetchSteps(url, recording, after);
      if (data === null) return notice(['The server asks for a key: reload the page to give one.']);
      if (view !== null && data.recording !== recording) location.reload(); // the server began anew
      if (data.recording !== null) {
        recording = data.recording;
        after = data.steps.at(-1)?.step ?? after;
        if (view === null) window.view = view = show({ ...data, live: true });
        else if (data.steps.length) extend(view, data);
      }
      notice([]);
    } catch (error) {
      notice([error.message]);
    }
    await new Promise((resolve) => setTimeout(resolve, everyMs));
    while (document.hidden) await happened(document, 'visibilitychange');
  }
}

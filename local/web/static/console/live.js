// One stream of server-sent events carries every view that the page shows. It is closed while the
// page is hidden, so that a tab in the background costs nothing.

let source = null, wanted = [], listener = null;

/** Follow these views; `listen(index, data)` gets each when it has changed, `listen(-1)` a lost line. */
export function follow(views, listen) {
  const same = source && views.length === wanted.length && views.every((view, i) => view === wanted[i]);
  wanted = views;
  listener = listen;
  if (!same) connect();
}

function connect() {
  source?.close();
  source = null;
  if (document.hidden || !wanted.length) return;
  const query = wanted.map((view) => `view=${encodeURIComponent(view)}`).join("&");
  const opened = new EventSource(`/_console/stream?${query}`);
  source = opened;
  wanted.forEach((_, i) => opened.addEventListener(`view${i}`, (event) => {
    if (opened === source) listener(i, JSON.parse(event.data));
  }));
  opened.onerror = () => {
    if (opened !== source) return;
    listener(-1);
    // The browser retries a broken line, and gives up after an answer that is not a stream.
    if (opened.readyState === EventSource.CLOSED) setTimeout(() => { if (opened === source) connect(); }, 2000);
  };
}

document.addEventListener("visibilitychange", connect);

"use strict";
// Shows a job as its stream tells it, until it is over.

const RETRY_MILLISECONDS = 5000;
const job = document.getElementById("job");

function show(now) {
  for (const name of ["state", "result", "finished_at"]) {
    document.getElementById(name).textContent = now[name] ?? "";
  }
}

function watch() {
  const stream = new EventSource(job.dataset.events);
  stream.onmessage = (event) => {
    const now = JSON.parse(event.data);
    show(now);
    if (now.state === "done" || now.state === "failed") {
      stream.close();
    }
  };
  // The browser opens a stream that broke off again by itself, but not one that was answered by an error.
  stream.onerror = () => {
    if (stream.readyState === EventSource.CLOSED) {
      setTimeout(watch, RETRY_MILLISECONDS);
    }
  };
}

watch();

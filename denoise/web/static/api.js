// Jobs over HTTP: send one, report its state until it ends, and fetch its files.

const POLL_MS = 200;

export class JobError extends Error {}

/** Send a request and return its JSON; an error of the server becomes a JobError of its one line. */
export async function request(url, options = {}) {
  let response;
  try {
    response = await fetch(url, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new JobError("The server does not answer. Start it again with: denoise web.");
  }
  if (response.status === 204) return null;
  const row = await response.json().catch(() => ({ error: `The server answered ${response.status}.` }));
  if (!response.ok) throw new JobError(row.error);
  return row;
}

export function toQuery(values) {
  const filled = Object.entries(values).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  return new URLSearchParams(filled).toString();
}

const unfinished = new Set(); // jobs that leave with the page

window.addEventListener("pagehide", () => {
  for (const id of unfinished) fetch(`/api/jobs/${id}`, { method: "DELETE", keepalive: true });
});

/**
 * Run a job to its end.
 *
 * @param path path of the endpoint.
 * @param query options.
 * @param body File, Blob or null.
 * @param report called with {state, fraction, ahead}.
 * @param signal AbortSignal that cancels it.
 * @returns {facts, files}: files are Blobs with a `name` by their words.
 */
export async function runJob(path, query, body, report, signal) {
  report({ state: "uploading", fraction: 0 });
  const started = await request(`${path}?${toQuery(query)}`, {
    method: "POST", body, signal, headers: { "content-type": "application/octet-stream" },
  });
  const url = `/api/jobs/${started.id}`;
  unfinished.add(started.id);
  try {
    let row = started;
    while (row.state === "queued" || row.state === "running") {
      report(row);
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
      signal.throwIfAborted();
      row = await request(url);
    }
    if (row.state !== "done") throw new JobError(row.error ?? "Cancelled.");
    const files = {};
    for (const [word, file] of Object.entries(row.files)) {
      const response = await fetch(file.url, { signal });
      if (!response.ok) throw new JobError(`${file.name} could not be fetched. Try again.`);
      files[word] = Object.assign(await response.blob(), { filename: file.name });
    }
    return { facts: row.facts, files }; // the server has removed what was fetched
  } catch (error) {
    request(url, { method: "DELETE", keepalive: true }).catch(() => {}); // gone already if an hour has passed
    throw error;
  } finally {
    unfinished.delete(started.id); // on leaving the page, too, if it was asking for the state at that moment
  }
}

export function stateText({ state, fraction, ahead }) {
  if (state === "queued") return ahead ? `Waiting, ${ahead} ahead` : "Waiting";
  if (state === "uploading") return "Sending";
  return fraction > 0 ? `Working, ${Math.round(100 * fraction)} %` : "Working";
}

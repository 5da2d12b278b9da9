// Talking to the server: requests with the key, streams as they come, errors as sentences.

/** Something a person can act on. `status` is 0 where there was no answer. */
export class ApiError extends Error {
  constructor(message, { status = 0, hint = "" } = {}) {
    super(message);
    this.status = status;
    this.hint = hint;
  }
}

/** Server-sent events out of text that comes in pieces: the `data` of each. Comments and other fields are left out. */
export class EventReader {
  #rest = "";

  push(text) {
    const events = (this.#rest + text).split(/\r?\n\r?\n/);
    this.#rest = events.pop();
    return events.map(data).filter((found) => found !== null);
  }
}

function data(event) {
  const lines = event.split(/\r?\n/).filter((line) => line.startsWith("data:"));
  return lines.length ? lines.map((line) => line.slice(5).replace(/^ /, "")).join("\n") : null;
}

/** The error that the body of an answer tells of: OpenAI's form, or whatever it is. */
export function errorOf(status, body, retryAfter = null) {
  const told = body?.error;
  let message = typeof told === "string" ? told : told?.message;
  message ||= `The server answered with status ${status}.`;
  let hint = told?.hint ?? "";
  if (status === 401) hint ||= "Enter the key under “API key” at the top of the page.";
  if (status === 429) hint ||= `The server is busy. Try again ${retryAfter ? `in ${retryAfter} s` : "in a while"}.`;
  return new ApiError(message, { status, hint });
}

export class Api {
  /** Kept in memory only. */
  key = "";

  /** The answer to a GET, as JSON or as text. */
  async get(path, { text = false, signal } = {}) {
    const answer = await this.#fetch(path, { signal });
    return (text ? answer.text() : answer.json()).catch(brokenOff);
  }

  /** The answer to a POST that is not streamed. */
  async post(path, body, signal) {
    return (await this.#fetch(path, this.#posted(body, signal))).json();
  }

  /** The chunks of a streamed answer. Throws if the stream ends before `[DONE]`. */
  async *stream(path, body, signal) {
    const answer = await this.#fetch(path, this.#posted(body, signal));
    const reader = new EventReader();
    for await (const text of pieces(answer.body)) {
      for (const event of reader.push(text)) {
        if (event === "[DONE]") return;
        const chunk = JSON.parse(event);
        if (chunk.error) throw errorOf(answer.status, chunk);
        yield chunk;
      }
    }
    throw new ApiError("The connection ended before the output did.", { hint: "Send it again." });
  }

  #posted(body, signal) {
    return { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), signal };
  }

  async #fetch(path, options) {
    const headers = { ...options.headers, ...(this.key && { Authorization: `Bearer ${this.key}` }) };
    let answer;
    try {
      answer = await fetch(path, { ...options, headers, cache: "no-store" });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ApiError("The server does not answer.", { hint: "Is it running? Try again in a while." });
    }
    if (answer.ok) return answer;
    const body = await answer.json().catch(() => null);
    throw errorOf(answer.status, body, answer.headers.get("Retry-After"));
  }
}

function brokenOff(error) {
  if (error.name === "AbortError") throw error;
  throw new ApiError("The connection broke off.", { hint: "Send it again." });
}

/** The text of a body, in pieces of whole characters. */
async function* pieces(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      yield value;
    }
  } catch (error) {
    brokenOff(error);
  } finally {
    reader.cancel().catch(() => {});
  }
}

// Which piece of the text belongs to which token. Text comes in whole characters and may be held back for stop strings,
// so a token may come before its text, and a character may take several tokens.

const BROKEN = "\ufffd";

export class Aligner {
  #text = "";
  #tokens = [];

  /** New text and new tokens; returns what is settled: `{text, tokens}` in order. */
  push(text, tokens) {
    this.#text += text;
    this.#tokens.push(...tokens);
    const settled = [];
    for (let next = this.#next(); next; next = this.#next()) settled.push(next);
    return settled;
  }

  /** At the end: what is left, text and tokens that have none. */
  flush() {
    const rest = { text: this.#text, tokens: this.#tokens };
    this.#text = "";
    this.#tokens = [];
    return rest.text || rest.tokens.length ? [rest] : [];
  }

  #next() {
    if (!this.#text || !this.#tokens.length) return null;
    const said = this.#tokens[0].token;
    if (said && this.#text.startsWith(said)) return this.#take(1, said.length);
    if (said.startsWith(this.#text)) return null; // The rest is held back.
    const whole = this.#tokens.findIndex(({ token }, i) => i && token && !token.includes(BROKEN));
    const count = whole < 0 ? this.#tokens.length : whole;
    // A broken character has some text; a special token may have none.
    const from = said.includes(BROKEN) ? 1 : 0;
    const end = whole < 0 ? -1 : this.#text.indexOf(this.#tokens[whole].token, from);
    return this.#take(count, end < 0 ? this.#text.length : end);
  }

  #take(tokens, length) {
    const taken = { text: this.#text.slice(0, length), tokens: this.#tokens.splice(0, tokens) };
    this.#text = this.#text.slice(length);
    return taken;
  }
}

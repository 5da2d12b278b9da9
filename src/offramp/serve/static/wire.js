// The server's wire form: requests out of what was asked, and what a chunk of an answer says.

/**
 * Where a request goes and its body. `asked` has `chat`, `prompt` or `messages`, `sampling` (OpenAI's fields)
 * and `runnersUp`; `exit` is the exit field.
 */
export function request(asked, exit) {
  const { chat, prompt, messages, sampling, runnersUp } = asked;
  const text = chat ? { messages } : { prompt };
  const likely = chat ? { logprobs: true, top_logprobs: 2 } : { logprobs: 2 };
  return {
    path: chat ? "v1/chat/completions" : "v1/completions",
    body: {
      ...text,
      ...sampling,
      ...(runnersUp && likely),
      exit,
      stream: true,
      stream_options: { include_usage: true },
    },
  };
}

/** What a chunk has: new text, new tokens with their trace, and at the end why and the account of layers. */
export function readChunk(chunk) {
  const choice = chunk.choices?.[0];
  const likely = likelihoods(choice?.logprobs);
  return {
    text: choice?.delta?.content ?? choice?.text ?? "",
    tokens: (choice?.exit_trace ?? []).map((entry, i) => ({ ...entry, ...likely[i] })),
    finish: choice?.finish_reason ?? null,
    exit: chunk.exit ?? null,
    usage: chunk.usage ?? null,
  };
}

/** For each token its own `logprob` and the most likely other one, `runnerUp`; of chats and of completions. */
function likelihoods(logprobs) {
  if (logprobs?.content) {
    return logprobs.content.map(({ token, logprob, top_logprobs: top = [] }) => {
      return { logprob, runnerUp: top.find((one) => one.token !== token) };
    });
  }
  return (logprobs?.tokens ?? []).map((token, i) => {
    const other = Object.entries(logprobs.top_logprobs?.[i] ?? {}).find(([name]) => name !== token);
    return { logprob: logprobs.token_logprobs[i], runnerUp: other && { token: other[0], logprob: other[1] } };
  });
}

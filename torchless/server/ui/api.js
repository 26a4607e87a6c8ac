// The server's API: models, and answers as they come.

import { settings } from "./settings.js";

/** An error that the server tells, or that keeps it from answering. `status` is 0 without an answer. */
export class ServerError extends Error {
  constructor(message, status = 0) {
    super(message);
    this.status = status;
  }
}

/** Fetches something from the server, with the key if there is one. Throws ServerError. */
export async function ask(path, options = {}) {
  const headers = { ...options.headers };
  if (settings.apiKey) headers.Authorization = `Bearer ${settings.apiKey}`;
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServerError("The server cannot be reached. Is it still running?");
  }
  if (!response.ok) throw new ServerError(await reason(response), response.status);
  return response;
}

async function reason(response) {
  const text = await response.text();
  try {
    const content = JSON.parse(text);
    const told = content.error?.message ?? content.error ?? content.detail ?? content.message;
    if (typeof told === "string") return told;
  } catch {
    // no JSON
  }
  return text.slice(0, 300) || `the server answered with status ${response.status}`;
}

/** The models that are served: objects with an id and, once loaded, a context_length. */
export async function listModels() {
  const response = await ask("/v1/models");
  return (await response.json()).data;
}

/**
 * Streams an answer. Calls `onPiece(kind, text)` for pieces of "reasoning" and "text".
 *
 * Returns {finishReason, usage, tokensPerSecond, firstTokenMs}.
 */
export async function streamAnswer({ model, messages, parameters, signal, onPiece }) {
  const askedAt = performance.now();
  const body = { ...parameters, messages, stream: true, stream_options: { include_usage: true } };
  if (model) body.model = model;
  const response = await ask("/v1/chat/completions", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
    signal,
  });
  const result = { finishReason: null, usage: null, tokensPerSecond: 0, firstTokenMs: 0 };
  let firstAt = 0;
  let lastAt = 0;
  let numPieces = 0;
  for await (const event of events(response.body)) {
    if (event.error) throw new ServerError(event.error.message ?? String(event.error), response.status);
    if (event.usage) result.usage = event.usage;
    for (const choice of event.choices ?? []) {
      if (choice.finish_reason) result.finishReason = choice.finish_reason;
      const { content, reasoning_content: reasoning } = choice.delta ?? {};
      if (!content && !reasoning) continue;
      lastAt = performance.now();
      firstAt ||= lastAt;
      numPieces += 1;
      if (reasoning) onPiece("reasoning", reasoning);
      if (content) onPiece("text", content);
    }
  }
  if (result.finishReason === null) throw new ServerError("The connection broke off before the answer had ended.");
  const numTokens = result.usage?.completion_tokens ?? numPieces;
  if (firstAt) result.firstTokenMs = firstAt - askedAt;
  if (numTokens > 1 && lastAt > firstAt) result.tokensPerSecond = ((numTokens - 1) * 1000) / (lastAt - firstAt);
  return result;
}

/** The JSON of each server-sent event, up to [DONE]. */
async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      held += value;
      const parts = held.split(/\r?\n\r?\n/);
      held = parts.pop();
      for (const part of parts) {
        const data = part
          .split(/\r?\n/)
          .filter((line) => line.startsWith("data:"))
          .map((line) => line.slice(5).replace(/^ /, ""))
          .join("\n");
        if (data === "[DONE]") return;
        if (data) yield JSON.parse(data);
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

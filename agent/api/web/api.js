// Calls to the device: JSON, server-sent events, and errors as one kind. Nothing is stored; a code lives in memory only.

let token = "";
export const useToken = (value) => (token = value);

// `code` is the API's stable code, or "network" (not reached), "cut" (the stream ended early), "slow" (silence).
export class DeviceError extends Error {
  constructor(code, { status = 0, message = code, retryAfter = 0 } = {}) {
    super(message);
    this.code = code;
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

const SILENCE_MS = 180_000;

export async function call(method, path, { body, signal, keepalive = false } = {}) {
  const headers = {};
  if (body !== undefined) headers["content-type"] = "application/json";
  if (token) headers.authorization = `Bearer ${token}`;
  let reply;
  try {
    reply = await fetch(path, {
      method,
      headers,
      keepalive,
      body: body === undefined ? undefined : JSON.stringify(body),
      signal,
      cache: "no-store",
      credentials: "omit",
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new DeviceError(error.name === "TimeoutError" ? "slow" : "network", { message: error.message });
  }
  if (!reply.ok) throw await refusal(reply);
  return reply;
}

async function refusal(reply) {
  const retryAfter = Number(reply.headers.get("retry-after")) || 0;
  let error = {};
  try {
    error = (await reply.json()).error ?? {};
  } catch {
    // an intermediary's page instead of our JSON: the status says enough
  }
  return new DeviceError(error.code ?? `http_${reply.status}`, {
    status: reply.status,
    message: error.message,
    retryAfter,
  });
}

export async function status() {
  const reply = await call("GET", "/v1/status", { signal: AbortSignal.timeout(5000) });
  return reply.json();
}

// The chunks of a streamed chat completion. Throws DeviceError; AbortError when `controller` was aborted by the caller.
export async function* ask(question, session, controller) {
  let silent = false;
  let watch;
  const listen = () => {
    clearTimeout(watch);
    watch = setTimeout(() => {
      silent = true;
      controller.abort();
    }, SILENCE_MS);
  };
  listen();
  try {
    const reply = await call("POST", "/v1/chat/completions", {
      signal: controller.signal,
      body: {
        model: "outpost",
        stream: true,
        messages: [{ role: "user", content: question }],
        outpost: { session, provisional: false },
      },
    });
    let finished = false;
    for await (const data of events(reply.body, listen)) {
      if (data === "[DONE]") {
        finished = true;
        break;
      }
      const chunk = JSON.parse(data);
      if (chunk.error) throw new DeviceError(chunk.error.code ?? "error", { message: chunk.error.message });
      yield chunk;
    }
    if (!finished) throw new DeviceError("cut");
  } catch (error) {
    if (silent) throw new DeviceError("slow");
    if (error instanceof DeviceError || error.name === "AbortError") throw error;
    throw new DeviceError("cut", { message: error.message });
  } finally {
    clearTimeout(watch);
  }
}

async function* events(body, listen) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      listen();
      buffer += value;
      const parts = buffer.split(/\r?\n\r?\n/);
      buffer = parts.pop();
      for (const part of parts) {
        const data = part
          .split(/\r?\n/)
          .filter((line) => line.startsWith("data:"))
          .map((line) => line.slice(5).replace(/^ /, ""));
        if (data.length) yield data.join("\n");
      }
    }
  } finally {
    reader.cancel().catch(() => {}); // the stream is over either way
  }
}

// The clients of Node: takes jobs as JSON lines on stdin and answers each with one line on stdout.
import { createInterface } from "node:readline";
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { embedMany, generateObject, generateText, jsonSchema, stepCountIs, streamText, tool } from "ai";
import OpenAI from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";

console.log = console.info = console.warn = console.error; // stdout is for answers alone
globalThis.AI_SDK_LOG_WARNINGS = (warned) => console.error(JSON.stringify(warned));
const TIMEOUT = 10_000; // milliseconds
const Invoice = z.object({ number: z.number().int(), lines: z.array(z.string()), paid: z.boolean() });

// --- the OpenAI SDK

const openai = (url, job) =>
  new OpenAI({ baseURL: `${url}/v1`, apiKey: job.key, maxRetries: job.retries, timeout: TIMEOUT });

async function talk(client, job, words, messages) {
  const functions = words.tools.map((name) => ({ type: "function", function: { name, parameters: words.parameters } }));
  const asked = { model: job.model, messages, tools: functions };
  if (!job.stream) return (await client.chat.completions.create(asked)).choices[0].message;
  return (await client.chat.completions.stream(asked).finalChatCompletion()).choices[0].message;
}

const openaiJobs = {
  async plain(client, job, words, content = job.text) {
    const answer = await client.chat.completions.create({ model: job.model, messages: [{ role: "user", content }] });
    return { text: answer.choices[0].message.content };
  },
  async stream(client, job) {
    const messages = [{ role: "user", content: job.text }];
    const pieces = [];
    for await (const chunk of await client.chat.completions.create({ model: job.model, messages, stream: true })) {
      if (chunk.choices[0]?.delta.content) pieces.push(chunk.choices[0].delta.content);
    }
    return { text: pieces.join(""), pieces: pieces.length };
  },
  async tools(client, job, words) {
    const question = { role: "user", content: job.text };
    const called = await talk(client, job, words, [question]);
    const results = called.tool_calls.map((call) => ({ role: "tool", tool_call_id: call.id, content: words.result }));
    const answer = await talk(client, job, words, [question, called, ...results]);
    const calls = called.tool_calls.map((call) => [call.function.name, JSON.parse(call.function.arguments)]);
    return { text: answer.content, calls };
  },
  async structured(client, job) {
    const messages = [{ role: "user", content: job.text }];
    const response_format = zodResponseFormat(Invoice, "invoice");
    const answer = await client.chat.completions.parse({ model: job.model, messages, response_format });
    return { parsed: answer.choices[0].message.parsed };
  },
  async image(client, job, words) {
    const image = { type: "image_url", image_url: { url: `data:image/png;base64,${words.pixel}` } };
    return openaiJobs.plain(client, job, words, [{ type: "text", text: job.text }, image]);
  },
  async embeddings(client, job, words) {
    const answer = await client.embeddings.create({ model: job.model, input: words.texts });
    return { vectors: answer.data.map((entry) => entry.embedding) };
  },
  async leave(client, job) {
    const messages = [{ role: "user", content: job.text }];
    for await (const chunk of await client.chat.completions.create({ model: job.model, messages, stream: true })) {
      if (chunk.choices[0]?.delta.content) return { pieces: 1 };
    }
    return {};
  },
};

// --- the AI SDK

const providers = {
  "ai-sdk": createOpenAICompatible,
  "ai-sdk-openai": createOpenAI, // by itself it speaks Responses
  "ai-sdk-anthropic": createAnthropic,
};

const provided = (client, url, job) =>
  providers[client]({ name: "router", baseURL: `${url}/v1`, apiKey: job.key, supportsStructuredOutputs: true });

const asking = (provider, job) => ({
  model: provider.languageModel(job.model),
  maxRetries: job.retries,
  abortSignal: AbortSignal.timeout(TIMEOUT),
});

const streaming = (provider, job, more = {}) => {
  let failed;
  const onError = ({ error }) => (failed = error);
  const answer = streamText({ ...asking(provider, job), prompt: job.text, onError, ...more });
  return { answer, check: () => { if (failed) throw failed; } };
};

const aiJobs = {
  async plain(provider, job) {
    return { text: (await generateText({ ...asking(provider, job), prompt: job.text })).text };
  },
  async stream(provider, job) {
    const pieces = [];
    const { answer, check } = streaming(provider, job);
    for await (const piece of answer.textStream) pieces.push(piece);
    check();
    return { text: pieces.join(""), pieces: pieces.length };
  },
  async tools(provider, job, words) {
    const made = () => tool({ inputSchema: jsonSchema(words.parameters), execute: async () => words.result });
    const tools = Object.fromEntries(words.tools.map((name) => [name, made()]));
    const more = { tools, stopWhen: stepCountIs(2) };
    const answer = job.stream
      ? streaming(provider, job, more).answer
      : await generateText({ ...asking(provider, job), prompt: job.text, ...more });
    const [first] = await answer.steps;
    return { text: await answer.text, calls: first.toolCalls.map((call) => [call.toolName, call.input]) };
  },
  async structured(provider, job) {
    const providerOptions = { anthropic: { structuredOutputMode: "outputFormat" } };
    const asked = { ...asking(provider, job), prompt: job.text, schema: Invoice, providerOptions };
    const answer = await generateObject(asked);
    return { parsed: answer.object };
  },
  async image(provider, job, words) {
    const content = [{ type: "text", text: job.text }, { type: "image", image: words.pixel, mediaType: "image/png" }];
    return { text: (await generateText({ ...asking(provider, job), messages: [{ role: "user", content }] })).text };
  },
  async embeddings(provider, job, words) {
    const model = provider.embeddingModel(job.model);
    return { vectors: (await embedMany({ ...asking(provider, job), model, values: words.texts })).embeddings };
  },
  async leave(provider, job) {
    const leaving = new AbortController();
    const { answer } = streaming(provider, job, { abortSignal: leaving.signal });
    for await (const piece of answer.textStream) {
      if (!piece) continue;
      leaving.abort();
      return { pieces: 1 };
    }
    return {};
  },
};

// --- what the tests read

const header = (headers, name) => headers?.get?.(name) ?? headers?.[name] ?? null;

function trouble(error) {
  const headers = error.headers ?? error.responseHeaders;
  return {
    raised: error.constructor.name,
    status: error.status ?? error.statusCode ?? 0,
    message: error.message,
    retry_after: header(headers, "retry-after"),
    lacks: error.name === "AI_NoSuchModelError",
  };
}

async function done({ client, url, job, words }) {
  try {
    if (client === "openai-node") return await openaiJobs[job.do](openai(url, job), job, words);
    return await aiJobs[job.do](provided(client, url, job), job, words);
  } catch (error) {
    return { error: trouble(error) };
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  process.stdout.write(`${JSON.stringify(await done(JSON.parse(line)))}\n`);
}

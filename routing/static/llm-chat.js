// <llm-chat route="auto">: a chat with an LLM router in one element. docs/embedding.md shows it in pages of several kinds.
"use strict";
(() => {
  const HOME = new URL("./", document.currentScript.src).href; // the router that served this file

  const STYLE = new CSSStyleSheet();
  STYLE.replaceSync(`
    :host { display: flex; flex-direction: column; gap: .5rem; min-height: 16rem; font: inherit;
      --_line: var(--llm-chat-line, light-dark(#d4d8de, #3b424c)); --_accent: var(--llm-chat-accent, light-dark(#0b57d0, #8ab4f8));
      --_on-accent: var(--llm-chat-on-accent, light-dark(#fff, #10151c)); --_tint: var(--llm-chat-tint, light-dark(#eef2f8, #232a34));
      --_bad: var(--llm-chat-bad, light-dark(#b3261e, #ff9a91)); }
    :host([hidden]) { display: none; }
    .log { flex: 1; overflow-y: auto; display: flex; flex-direction: column; gap: .6rem; padding: .25rem; min-height: 6rem; }
    .log:focus-visible, textarea:focus-visible, button:focus-visible { outline: 2px solid var(--_accent); outline-offset: 1px; }
    .said { white-space: pre-wrap; overflow-wrap: anywhere; margin: 0; padding: .5rem .75rem; border-radius: .75rem; max-width: 90%; }
    .user { align-self: flex-end; background: var(--_tint); border-bottom-right-radius: .2rem; }
    .assistant { align-self: flex-start; border: 1px solid var(--_line); border-bottom-left-radius: .2rem; }
    .assistant:empty::before { content: "…"; animation: wait 1s infinite alternate; }
    .note { margin: 0; font-size: .85em; opacity: .8; }
    .error { color: var(--_bad); opacity: 1; overflow-wrap: anywhere; white-space: pre-wrap; }
    .hello { margin: auto; opacity: .7; text-align: center; }
    form { display: flex; gap: .5rem; align-items: flex-end; }
    textarea { flex: 1; min-width: 0; font: inherit; color: inherit; background: transparent; resize: none; field-sizing: content;
      min-height: 2.6rem; max-height: 12rem; padding: .55rem .7rem; border: 1px solid var(--_line); border-radius: .6rem; box-sizing: border-box; }
    button { font: inherit; flex: none; min-height: 2.6rem; padding: 0 .9rem; border-radius: .6rem; border: 1px solid var(--_line); background: transparent;
      color: inherit; cursor: pointer; }
    button.send { background: var(--_accent); color: var(--_on-accent); border-color: transparent; }
    button:disabled { opacity: .5; cursor: default; }
    [hidden] { display: none !important; }
    @keyframes wait { to { opacity: .2; } }
    @media (prefers-reduced-motion: reduce) { .assistant:empty::before { animation: none; } }
  `);

  const make = (name, properties = {}) => Object.assign(document.createElement(name), properties);

  // Says what went wrong in words for people; `body` is what the router answered, where it did.
  class ChatError extends Error {
    constructor(message, body = null, status = 0) {
      super(message);
      this.body = body;
      this.status = status;
    }
  }

  // The name and the data of each server-sent event in a response, as text.
  async function* eventsOf(response) {
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "", name = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      for (const line of lines) {
        if (line.startsWith("event:")) name = line.slice(6).trim();
        else if (line.startsWith("data:")) yield [name, line.slice(5).trim()];
        else if (!line.trim()) name = "";
      }
    }
  }

  // Gives `told` each piece of the answer, and `happened` each event of the router's own, of which some come after the
  // answer. Throws ChatError for an error inside the stream and for one that was cut.
  async function read(response, told, happened) {
    let over = false, failure = null;
    for await (const [name, data] of eventsOf(response)) {
      if (name.startsWith("router.")) happened(name.slice(7), JSON.parse(data));
      else if (data === "[DONE]") over = true;
      else if (!over && !failure) {
        const event = JSON.parse(data);
        if (event.error) failure = new ChatError(event.error.message || "The answer broke off.", event);
        else told(event);
      }
    }
    if (failure || !over) throw failure || new ChatError("The answer broke off.");
  }

  class LLMChat extends HTMLElement {
    static observedAttributes = ["label", "placeholder"];

    #log = make("div", { className: "log", tabIndex: 0 });
    #hello = make("p", { className: "hello" });
    #form = make("form");
    #box = make("textarea", { rows: 1 });
    #send = make("button", { className: "send", textContent: "Send", type: "submit" });
    #stop = make("button", { textContent: "Stop", type: "button", hidden: true });
    #new = make("button", { textContent: "New", type: "button", title: "Forget what was said and begin anew", hidden: true });
    #messages = [];
    #running = null;
    #key = "";
    #hints = null;

    constructor() {
      super();
      const shadow = this.attachShadow({ mode: "open", delegatesFocus: true });
      shadow.adoptedStyleSheets = [STYLE];
      this.#log.setAttribute("role", "log");
      this.#log.append(this.#hello);
      this.#form.append(this.#box, this.#new, this.#stop, this.#send);
      shadow.append(this.#log, this.#form);
      this.#form.addEventListener("submit", (event) => {
        event.preventDefault();
        this.ask(this.#box.value);
      });
      this.#box.addEventListener("keydown", (event) => {
        if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
        event.preventDefault();
        this.#form.requestSubmit();
      });
      this.#stop.addEventListener("click", () => this.stop());
      this.#new.addEventListener("click", () => this.clear());
    }

    connectedCallback() {
      for (const name of ["key", "hints", "draft", "messages"]) this.#takeEarly(name);
      this.attributeChangedCallback();
    }

    disconnectedCallback() {
      this.stop();
    }

    attributeChangedCallback() {
      const label = this.getAttribute("label") || "Chat";
      this.#log.setAttribute("aria-label", `${label}: what was said`);
      this.#box.setAttribute("aria-label", `${label}: your message`);
      this.#box.placeholder = this.getAttribute("placeholder") || "Your message";
      this.#hello.textContent = this.getAttribute("label") || "Ask something";
    }

    // The caller's key, or a function that returns it or a promise of it; "" sends none. No attribute: those show in markup.
    get key() {
      return this.#key;
    }
    set key(key) {
      this.#key = key;
    }

    // The routing hints, sent as the body's `router`; null for none.
    get hints() {
      return this.#hints;
    }
    set hints(hints) {
      this.#hints = hints;
    }

    // What is in the box and not sent yet.
    get draft() {
      return this.#box.value;
    }
    set draft(text) {
      this.#box.value = text;
    }

    // What was said so far, in the form of a chat completion's `messages`.
    get messages() {
      return structuredClone(this.#messages);
    }
    set messages(messages) {
      this.clear();
      this.#messages = structuredClone(messages);
      for (const { role, content } of messages) if (role !== "system") this.#say(role, content);
    }

    get busy() {
      return this.#running !== null;
    }

    // The body of the request that `text` would make now.
    bodyFor(text) {
      const body = { model: this.getAttribute("route") || "auto", messages: [...this.messages, { role: "user", content: text }] };
      return this.hints && Object.keys(this.hints).length ? { ...body, router: this.hints } : body;
    }

    // Sends `text` and shows the answer while it comes. Resolves when that is over, however it ended.
    async ask(text) {
      if (this.busy || !text.trim()) return;
      const running = (this.#running = new AbortController());
      const body = { ...this.bodyFor(text), stream: true, stream_options: { include_usage: true } };
      this.#show(true);
      const asked = this.#say("user", text);
      const bubble = this.#say("assistant", "");
      this.#box.value = "";
      this.#tell("llm-request", { body });
      const end = { text: "", usage: null, stopped: false, error: null };
      try {
        await this.#exchange(body, running.signal, bubble, end);
      } catch (error) {
        end.stopped = running.signal.aborted;
        end.error = end.stopped ? null : error instanceof ChatError ? error : new ChatError("The router does not answer.");
      }
      if (this.#running !== running) return; // cleared meanwhile
      this.#running = null;
      this.#settle(text, asked, bubble, end);
      this.#show(false);
      if (end.stopped || end.error) this.#log.scrollTop = this.#log.scrollHeight; // the buttons may have taken room
      this.#tell("llm-end", end);
    }

    // Stops the answer that is coming; what came of it stays.
    stop() {
      this.#running?.abort();
    }

    // Forgets everything that was said.
    clear() {
      this.stop();
      this.#running = null;
      this.#messages = [];
      this.#log.replaceChildren(this.#hello);
      this.#show(false);
    }

    async #exchange(body, signal, bubble, end) {
      const key = typeof this.key === "function" ? await this.key() : this.key;
      const watching = this.hasAttribute("events") ? { "x-router-events": "true" } : {};
      const response = await fetch(new URL("v1/chat/completions", this.#base()), {
        method: "POST",
        headers: { "content-type": "application/json", ...(key ? { authorization: `Bearer ${key}` } : {}), ...watching },
        body: JSON.stringify(body),
        signal,
      });
      this.#tell("llm-response", { status: response.status, headers: response.headers });
      if (!response.ok) throw await refusal(response);
      await read(response, (event) => {
        const text = event.choices?.[0]?.delta?.content || "";
        end.usage = event.usage || end.usage;
        end.text += text;
        this.#add(bubble, text);
      }, (name, data) => this.#tell("llm-router", { name, data }));
    }

    #base() {
      const given = this.getAttribute("endpoint");
      return given ? new URL(given.replace(/\/*$/, "/"), document.baseURI) : HOME;
    }

    // A question that got no answer goes back into the box, so that it can be sent again.
    #settle(text, asked, bubble, end) {
      if (end.text) {
        this.#messages.push({ role: "user", content: text }, { role: "assistant", content: end.text });
      } else {
        bubble.remove();
        if (end.stopped || end.error) {
          asked.remove();
          this.#box.value ||= text;
        }
      }
      if (end.stopped) this.#note("Stopped.");
      if (end.error) this.#note(end.error.message, "error");
    }

    #add(bubble, text) {
      const log = this.#log;
      const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
      bubble.append(text);
      if (atEnd) log.scrollTop = log.scrollHeight;
    }

    #say(role, content) {
      this.#hello.remove();
      const bubble = make("p", { className: `said ${role === "user" ? "user" : "assistant"}` });
      bubble.setAttribute("part", role === "user" ? "user" : "assistant");
      bubble.append(typeof content === "string" ? content : JSON.stringify(content));
      if (content === "") bubble.replaceChildren(); // so that :empty shows it waiting
      this.#log.append(bubble);
      this.#log.scrollTop = this.#log.scrollHeight;
      return bubble;
    }

    #note(text, kind = "") {
      const note = make("p", { className: `note ${kind}`, textContent: text });
      if (kind === "error") note.setAttribute("role", "alert");
      this.#log.append(note);
      this.#log.scrollTop = this.#log.scrollHeight;
    }

    #show(busy) {
      for (const note of this.#log.querySelectorAll(".note")) if (busy) note.remove();
      this.#log.setAttribute("aria-busy", String(busy)); // read out when it is whole, not word by word
      this.#send.hidden = busy;
      this.#stop.hidden = !busy;
      this.#new.hidden = busy || !this.#log.querySelector(".said");
    }

    #tell(name, detail) {
      this.dispatchEvent(new CustomEvent(name, { detail, bubbles: true, composed: true }));
    }

    // A framework may have set a property before this class was there; it then hides the real one.
    #takeEarly(name) {
      if (!Object.hasOwn(this, name)) return;
      const value = this[name];
      delete this[name];
      this[name] = value;
    }
  }

  async function refusal(response) {
    const body = await response.json().catch(() => null);
    return new ChatError(body?.error?.message || `The router answered ${response.status}.`, body, response.status);
  }

  if (!customElements.get("llm-chat")) customElements.define("llm-chat", LLMChat);
})();

// A message on the page: its text, its reasoning folded, what is known of it, and buttons for what can be done with it.

import { siblings } from "./conversations.js";
import { element, renderMarkdown } from "./markdown.js";

/** Shows messages in `log`; `actions` are called as ``actions.edit(message, text)``, ``retry``, ``branch``, ``remove``. */
export class MessageView {
  constructor(conversation, message, actions) {
    this.conversation = conversation;
    this.message = message;
    this.actions = actions;
    this.text = element("div", [], "text");
    this.tools = element("div", [], "tools");
    const who = message.role === "user" ? "You" : message.model || "Assistant";
    this.node = element("article", [element("div", [who], "who"), this.text, this.tools], `message ${message.role}`);
    this.node.setAttribute("aria-label", message.role === "user" ? "Your question" : "Answer");
    this.reasoning = null;
    this.pending = 0;
    this.show();
  }

  /** Shows the message as it is now. */
  show() {
    const { message } = this;
    if (message.role === "user") this.text.textContent = message.content;
    else renderMarkdown(this.text, message.content);
    if (message.reasoning) this.showReasoning(false);
    this.showError();
    this.showTools();
  }

  /** Shows what has come, at most once a frame. */
  update() {
    this.pending ||= requestAnimationFrame(() => {
      this.pending = 0;
      if (this.message.reasoning) this.showReasoning(true);
      if (this.message.content) renderMarkdown(this.text, this.message.content);
      this.actions.grown();
    });
  }

  /** An answer is being written, or no longer. */
  setWriting(isWriting) {
    this.isWriting = isWriting;
    this.node.setAttribute("aria-busy", String(isWriting));
    this.text.classList.toggle("writing", isWriting);
    if (!isWriting) {
      cancelAnimationFrame(this.pending);
      this.pending = 0;
      this.show();
    }
  }

  showReasoning(isWriting) {
    if (this.reasoning === null) {
      this.reasoning = { body: element("div"), title: element("summary") };
      this.fold = element("details", [this.reasoning.title, this.reasoning.body], "reasoning");
      this.fold.open = this.actions.showsReasoning();
      this.fold.addEventListener("toggle", () => this.actions.folded(this.fold.open));
      this.text.before(this.fold);
    }
    const { thinkingMs, content, reasoning } = this.message;
    const isThinking = isWriting && !content;
    this.reasoning.title.textContent = isThinking ? "Thinking …" : `Thought${thinkingMs ? ` for ${(thinkingMs / 1000).toFixed(1)} s` : ""}`;
    this.reasoning.body.textContent = reasoning.trim();
  }

  showError() {
    this.error?.remove();
    this.error = null;
    if (!this.message.error) return;
    this.error = element("p", [this.message.error], "error");
    this.error.setAttribute("role", "alert");
    this.tools.before(this.error);
  }

  showTools() {
    const { message, actions } = this;
    this.tools.replaceChildren();
    const branches = siblings(this.conversation, message);
    const place = branches.indexOf(message);
    if (branches.length > 1) {
      const previous = this.button("‹", "Previous version", () => actions.branch(branches[place - 1]));
      const next = this.button("›", "Next version", () => actions.branch(branches[place + 1]));
      previous.disabled = place === 0;
      next.disabled = place === branches.length - 1;
      this.tools.append(previous, `${place + 1}/${branches.length}`, next);
    }
    if (message.role === "user") this.tools.append(this.button("Edit", "Edit this question", () => this.edit()));
    else this.tools.append(this.button("Again", "Answer again", () => actions.retry(message)));
    this.tools.append(this.button("Copy", "Copy this text", (button) => copyText(message.content, button)));
    this.tools.append(this.button("Delete", "Delete this and what follows", () => actions.remove(message)));
    const about = aboutAnswer(message);
    if (about) this.tools.append(element("span", [about], "about"));
  }

  button(label, description, action) {
    const button = element("button", [label]);
    button.type = "button";
    button.setAttribute("aria-label", description);
    button.title = description;
    button.addEventListener("click", () => action(button));
    return button;
  }

  /** Lets the user change the question; sending it adds a branch. */
  edit() {
    if (this.editor) return;
    const field = element("textarea");
    field.value = this.message.content;
    field.setAttribute("aria-label", "Your question, to be changed");
    const send = element("button", ["Send"]);
    send.type = "submit";
    const cancel = element("button", ["Cancel"], "quiet");
    cancel.type = "button";
    this.editor = element("form", [field, element("div", [send, cancel], "row")], "editor");
    const leave = () => {
      this.editor?.remove();
      this.editor = null;
      this.text.hidden = this.tools.hidden = false;
    };
    this.editor.addEventListener("submit", (event) => {
      event.preventDefault();
      const text = field.value.trim();
      if (!text) return;
      leave();
      this.actions.edit(this.message, text);
    });
    cancel.addEventListener("click", leave);
    field.addEventListener("keydown", (event) => {
      if (event.key === "Escape") {
        event.stopPropagation();
        leave();
        this.tools.querySelector("button")?.focus();
      } else if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        this.editor.requestSubmit();
      }
    });
    this.text.hidden = this.tools.hidden = true;
    this.text.after(this.editor);
    field.focus();
    field.setSelectionRange(field.value.length, field.value.length);
  }
}

/** Copies a text, and says so on the button. */
export async function copyText(text, button) {
  let said = "Copied";
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    said = "Not allowed"; // only pages from this machine or over https may
  }
  const before = button.textContent;
  button.textContent = said;
  setTimeout(() => (button.textContent = before), 1500);
}

function aboutAnswer({ role, stats, isStopped }) {
  if (role !== "assistant" || (!stats && !isStopped)) return "";
  const parts = [];
  const numTokens = stats?.usage?.completion_tokens;
  if (numTokens !== undefined) parts.push(`${numTokens} token${numTokens === 1 ? "" : "s"}`);
  if (stats?.tokensPerSecond) parts.push(`${stats.tokensPerSecond.toFixed(stats.tokensPerSecond < 100 ? 1 : 0)} tok/s`);
  if (stats?.firstTokenMs) parts.push(`first after ${Math.round(stats.firstTokenMs)} ms`);
  const numCached = stats?.usage?.prompt_tokens_details?.cached_tokens;
  if (numCached) parts.push(`${numCached} cached`);
  if (stats?.finishReason === "length") parts.push("cut at its longest length");
  if (isStopped) parts.push("stopped");
  return parts.join(" · ");
}

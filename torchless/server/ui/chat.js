// The chat page: keeps the parts together. See conversations.js for what is kept, api.js for the server.

import { listModels, streamAnswer } from "./api.js";
import { Attachments } from "./attachments.js";
import { addMessage, asRequest, newConversation, openStore, removeMessage, showBranch, shownMessages } from "./conversations.js";
import { element } from "./markdown.js";
import { MessageView, copyText } from "./message_view.js";
import { change, setUpDialog, settings } from "./settings.js";
import { Sidebar } from "./sidebar.js";

const $ = (id) => document.getElementById(id);
const NEAR_END_PIXELS = 80;

let store = null;
let attachments = null;
let sidebar = null;
let current = newConversation();
let models = [];
let running = null; // {abort, view, conversation} while an answer is written
let views = new Map();
let followsEnd = true;

const actions = {
  edit(message, text) {
    if (running) return;
    addMessage(current, message.parent, { role: "user", content: text });
    showConversation();
    answer();
  },
  retry(message) {
    if (running) return;
    current.leaf = message.parent;
    showConversation();
    answer();
  },
  branch(message) {
    if (running) return;
    showBranch(current, message);
    showConversation();
    keep(current);
  },
  remove(message) {
    if (running || !confirm("Delete this message and all that follows it?")) return;
    removeMessage(current, message);
    showConversation();
    keep(current);
  },
  grown: () => followsEnd && scrollToEnd(),
  showsReasoning: () => settings.showsReasoning,
  folded: (isOpen) => change({ showsReasoning: isOpen }),
};

// -- the conversation ------------------------------------------------------------------------------

function showConversation() {
  views = new Map();
  const messages = shownMessages(current);
  $("log").replaceChildren(
    ...(messages.length ? messages.map((message) => viewOf(message).node) : [welcome()]),
  );
  document.title = current.title ? `${current.title} – torchless` : "torchless";
  sidebar?.mark(current.id);
  showContext();
  scrollToEnd();
}

function viewOf(message) {
  const view = new MessageView(current, message, actions);
  views.set(message.id, view);
  return view;
}

function welcome() {
  return element("div", [
    element("h1", ["What would you like to know?"]),
    element("p", ["Nothing leaves this server. Conversations are kept in this browser."]),
  ], "welcome");
}

async function keep(conversation) {
  conversation.updatedAt = Date.now();
  try {
    await store.save(conversation);
  } catch (error) {
    announce(`This conversation could not be kept: ${error.message}`, true);
  }
  await sidebar.refresh(current.id);
}

function openConversation(conversation) {
  stop();
  current = conversation;
  sidebar.close();
  showConversation();
  $("question").focus();
}

// -- answers ---------------------------------------------------------------------------------------

function ask() {
  const field = $("question");
  const text = field.value.trim();
  if (!text || running) return;
  announce("");
  field.value = "";
  fitQuestion();
  if (!current.title) current.title = text.split("\n")[0].slice(0, 80);
  addMessage(current, current.leaf, { role: "user", content: attachments.take(text) });
  followsEnd = true;
  showConversation();
  answer();
}

async function answer() {
  const conversation = current;
  const messages = asRequest(conversation, settings.system);
  if (messages.at(-1)?.role !== "user") return;
  const message = addMessage(conversation, conversation.leaf, { role: "assistant", content: "", model: settings.model });
  const view = viewOf(message);
  $("log").append(view.node);
  const abort = new AbortController();
  running = { abort, view, conversation };
  setBusy(true);
  view.setWriting(true);
  scrollToEnd();
  const beganAt = performance.now();
  try {
    message.stats = await streamAnswer({
      model: settings.model,
      messages,
      parameters: settings.effort ? { ...settings.parameters, reasoning_effort: settings.effort } : settings.parameters,
      signal: abort.signal,
      onPiece(kind, text) {
        if (kind === "reasoning") message.reasoning = (message.reasoning ?? "") + text;
        else {
          if (message.reasoning && !message.content) message.thinkingMs = performance.now() - beganAt;
          message.content += text;
        }
        view.update();
      },
    });
    announce(`The answer is complete: ${message.stats.usage?.completion_tokens ?? "?"} tokens.`);
  } catch (error) {
    if (error.name === "AbortError") message.isStopped = true;
    else message.error = error.message;
    if (error.status === 401) openDialog("settings", "api-key");
    announce(message.isStopped ? "Stopped." : `The answer failed: ${error.message}`);
  }
  running = null;
  setBusy(false);
  view.setWriting(false);
  actions.grown();
  await keep(conversation);
  showContext();
  if (message.stats) refreshModels(); // a model that was loaded for this has a context length now
}

function stop() {
  running?.abort.abort();
}

function setBusy(isBusy) {
  $("send").hidden = isBusy;
  $("stop").hidden = !isBusy;
}

// -- around it -------------------------------------------------------------------------------------

async function refreshModels() {
  try {
    models = await listModels();
  } catch (error) {
    announce(error.message, true);
    if (error.status === 401) openDialog("settings", "api-key");
    return;
  }
  const names = models.map((model) => model.id);
  if (!names.includes(settings.model)) change({ model: names[0] ?? "" });
  $("model").replaceChildren(
    ...names.map((name) => {
      const option = element("option", [name]);
      option.value = name;
      return option;
    }),
  );
  $("model").value = settings.model;
  showContext();
}

function showContext() {
  const length = models.find((model) => model.id === settings.model)?.context_length;
  const usage = shownMessages(current).findLast((message) => message.stats?.usage)?.stats.usage;
  const used = usage ? usage.prompt_tokens + usage.completion_tokens : 0;
  $("context").textContent = length ? `${used} of ${length} tokens` : used ? `${used} tokens` : "";
}

function announce(text, isShown = false) {
  $("announcer").textContent = text;
  $("announcer").className = isShown ? "error" : "hidden";
}

function isAtEnd() {
  const log = $("log");
  return log.scrollHeight - log.scrollTop - log.clientHeight < NEAR_END_PIXELS;
}

function scrollToEnd() {
  $("log").scrollTop = $("log").scrollHeight;
}

function fitQuestion() {
  const field = $("question");
  field.style.height = "auto";
  field.style.height = `${field.scrollHeight}px`;
}

function openDialog(id, focus) {
  if (!$(id).open) $(id).showModal();
  if (focus) $(focus).focus();
}

function editLast() {
  const last = shownMessages(current).findLast((message) => message.role === "user");
  if (last && !running) views.get(last.id)?.edit();
}

function retryLast() {
  const last = shownMessages(current).at(-1);
  if (last?.role === "assistant") actions.retry(last);
  else if (last && !running) answer();
}

function onKey(event) {
  const isTyping = /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName);
  if (document.querySelector("dialog[open]")) return;
  const shortcuts = { KeyN: () => openConversation(newConversation()), KeyR: retryLast, KeyS: () => openDialog("settings") };
  if (event.altKey && !event.ctrlKey && !event.metaKey && shortcuts[event.code]) {
    event.preventDefault();
    shortcuts[event.code]();
  } else if (event.key === "Escape") {
    if (sidebar.isOpen) sidebar.close();
    else stop();
  } else if (!isTyping && !event.ctrlKey && !event.metaKey && !event.altKey) {
    if (event.key === "/") {
      event.preventDefault();
      $("question").focus();
    } else if (event.key === "?") openDialog("help");
  }
}

function onQuestionKey(event) {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    ask();
  } else if (event.key === "ArrowUp" && !event.target.value) {
    event.preventDefault();
    editLast();
  }
}

async function begin() {
  store = await openStore();
  sidebar = new Sidebar(store, {
    open: openConversation,
    opened: () => current.id,
    begin: () => openConversation(newConversation()),
  });
  attachments = new Attachments({
    list: $("attachments"),
    input: $("attach"),
    area: $("composer"),
    tell: (text) => announce(text, true),
  });
  if (!store.isLasting) announce("This browser keeps no conversations: they end with this page.", true);
  $("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    ask();
  });
  $("question").addEventListener("keydown", onQuestionKey);
  $("question").addEventListener("input", fitQuestion);
  $("stop").addEventListener("click", stop);
  $("model").addEventListener("change", (event) => {
    change({ model: event.target.value });
    showContext();
  });
  $("open-settings").addEventListener("click", () => openDialog("settings"));
  $("open-help").addEventListener("click", () => openDialog("help"));
  setUpDialog($("settings"), (name) => name === "apiKey" && refreshModels());
  $("log").addEventListener("scroll", () => {
    followsEnd = isAtEnd();
    $("to-end").hidden = followsEnd;
  });
  $("to-end").addEventListener("click", scrollToEnd);
  $("log").addEventListener("click", (event) => {
    const button = event.target.closest("[data-action=copy-code]");
    if (button) copyText(button.closest(".code-block").querySelector("pre").textContent, button);
  });
  document.addEventListener("keydown", onKey);
  await sidebar.refresh(current.id);
  showConversation();
  await refreshModels();
  $("question").focus();
}

begin();

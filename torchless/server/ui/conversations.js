// Conversations, kept in this browser only (IndexedDB; in memory where that is not allowed). A conversation is a tree of
// messages: editing a question or asking again adds a branch beside the old one, and loses nothing.

const DATABASE = "torchless";
const STORE = "conversations";

/** A new, empty conversation. */
export function newConversation(settings = {}) {
  const now = Date.now();
  return { id: crypto.randomUUID(), title: "", createdAt: now, updatedAt: now, messages: {}, leaf: null, ...settings };
}

/** Adds a message below `parent` (null: the first) and makes it the end of what is shown. */
export function addMessage(conversation, parent, message) {
  const added = { id: crypto.randomUUID(), parent, createdAt: Date.now(), ...message };
  conversation.messages[added.id] = added;
  conversation.leaf = added.id;
  return added;
}

/** The messages that are shown, oldest first. */
export function shownMessages(conversation) {
  const path = [];
  for (let id = conversation.leaf; id !== null && conversation.messages[id]; id = conversation.messages[id].parent)
    path.push(conversation.messages[id]);
  return path.reverse();
}

/** Messages in the same place as this one, itself included, oldest first. */
export function siblings(conversation, message) {
  return Object.values(conversation.messages)
    .filter((other) => other.parent === message.parent && other.role === message.role)
    .sort((one, other) => one.createdAt - other.createdAt);
}

/** Shows the branch of another message: down to its newest end. */
export function showBranch(conversation, message) {
  let end = message;
  for (;;) {
    const below = Object.values(conversation.messages).filter((other) => other.parent === end.id);
    if (!below.length) break;
    end = below.reduce((newest, other) => (other.createdAt > newest.createdAt ? other : newest));
  }
  conversation.leaf = end.id;
}

/** Removes a message and all below it; what is shown then ends above it. */
export function removeMessage(conversation, message) {
  const doomed = [message.id];
  for (const id of doomed)
    doomed.push(...Object.values(conversation.messages).filter((other) => other.parent === id).map((other) => other.id));
  for (const id of doomed) delete conversation.messages[id];
  if (doomed.includes(conversation.leaf)) conversation.leaf = message.parent;
}

/** A conversation as the API takes it. */
export function asRequest(conversation, system) {
  const messages = shownMessages(conversation)
    .filter((message) => message.role === "user" || message.content)
    .map(({ role, content }) => ({ role, content }));
  return system ? [{ role: "system", content: system }, ...messages] : messages;
}

/** A conversation as text, for people. */
export function asMarkdown(conversation) {
  const names = { user: "You", assistant: "Assistant" };
  const parts = shownMessages(conversation).map(({ role, content }) => `## ${names[role] ?? role}\n\n${content}\n`);
  return [`# ${conversation.title || "Conversation"}\n`, ...parts].join("\n");
}

/** Opens the place where conversations are kept. */
export async function openStore() {
  try {
    return new BrowserStore(await openDatabase());
  } catch {
    return new MemoryStore();
  }
}

function openDatabase() {
  return new Promise((resolve, reject) => {
    const request = indexedDB.open(DATABASE, 1);
    request.onupgradeneeded = () => request.result.createObjectStore(STORE, { keyPath: "id" });
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
    request.onblocked = () => reject(new Error("blocked"));
  });
}

class BrowserStore {
  isLasting = true;

  constructor(database) {
    this.database = database;
  }

  all() {
    return this.run("readonly", (store) => store.getAll());
  }

  save(conversation) {
    return this.run("readwrite", (store) => store.put(structuredClone(conversation)));
  }

  remove(id) {
    return this.run("readwrite", (store) => store.delete(id));
  }

  clear() {
    return this.run("readwrite", (store) => store.clear());
  }

  run(mode, action) {
    return new Promise((resolve, reject) => {
      const transaction = this.database.transaction(STORE, mode);
      const request = action(transaction.objectStore(STORE));
      transaction.oncomplete = () => resolve(request.result);
      transaction.onerror = transaction.onabort = () => reject(transaction.error);
    });
  }
}

class MemoryStore {
  isLasting = false;
  kept = new Map();

  async all() {
    return [...this.kept.values()];
  }

  async save(conversation) {
    this.kept.set(conversation.id, conversation);
  }

  async remove(id) {
    this.kept.delete(id);
  }

  async clear() {
    this.kept.clear();
  }
}

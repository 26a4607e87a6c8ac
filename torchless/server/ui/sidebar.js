// The list of conversations: finds, opens, deletes, exports and imports them.

import { asMarkdown } from "./conversations.js";
import { element } from "./markdown.js";

const $ = (id) => document.getElementById(id);

/** The list. `actions` are ``open(conversation)``, ``begin()`` a new one, ``opened()`` the id of the one that is shown. */
export class Sidebar {
  constructor(store, actions) {
    this.store = store;
    this.actions = actions;
    this.conversations = [];
    $("new-chat").addEventListener("click", actions.begin);
    $("search").addEventListener("input", () => this.show());
    $("open-sidebar").addEventListener("click", () => this.setOpen(true));
    $("close-sidebar").addEventListener("click", () => this.close());
    $("main").addEventListener("click", (event) => !event.target.closest("#open-sidebar") && this.close());
    $("export").addEventListener("click", () => this.export());
    $("import").addEventListener("change", (event) => this.import(event.target));
    $("delete-all").addEventListener("click", () => this.clear());
  }

  get isOpen() {
    return $("sidebar").classList.contains("open");
  }

  close() {
    if (this.isOpen) this.setOpen(false);
  }

  setOpen(isOpen) {
    $("sidebar").classList.toggle("open", isOpen);
    $("open-sidebar").setAttribute("aria-expanded", String(isOpen));
    $(isOpen ? "search" : "open-sidebar").focus();
  }

  /** Reads the list again. */
  async refresh(currentId) {
    this.conversations = await this.store.all();
    this.conversations.sort((one, other) => other.updatedAt - one.updatedAt);
    this.show();
    this.mark(currentId);
  }

  show() {
    const words = $("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    const found = this.conversations.filter((conversation) => {
      const text = `${conversation.title}\n${Object.values(conversation.messages).map((message) => message.content).join("\n")}`;
      return words.every((word) => text.toLowerCase().includes(word));
    });
    $("conversations").replaceChildren(...found.map((conversation) => this.entry(conversation)));
    this.mark(this.actions.opened());
  }

  /** Marks the conversation that is shown. */
  mark(id) {
    for (const entry of $("conversations").children) {
      const isCurrent = entry.dataset.id === id;
      entry.classList.toggle("current", isCurrent);
      if (isCurrent) entry.firstChild.setAttribute("aria-current", "page");
      else entry.firstChild.removeAttribute("aria-current");
    }
  }

  entry(conversation) {
    const open = element("button", [conversation.title || "Untitled"], "open");
    open.title = new Date(conversation.updatedAt).toLocaleString();
    open.addEventListener("click", () => this.actions.open(conversation));
    const save = element("button", ["⤓"], "remove");
    save.setAttribute("aria-label", `Save ${conversation.title || "it"} as text`);
    save.title = "Save as text";
    save.addEventListener("click", () =>
      download(`${(conversation.title || "conversation").replace(/[^\w-]+/g, "-").slice(0, 40)}.md`, asMarkdown(conversation), "text/markdown"),
    );
    const remove = element("button", ["✕"], "remove");
    remove.setAttribute("aria-label", `Delete ${conversation.title || "it"}`);
    remove.title = "Delete";
    remove.addEventListener("click", () => this.remove(conversation));
    const entry = element("li", [open, save, remove]);
    for (const button of entry.children) button.type = "button";
    entry.dataset.id = conversation.id;
    return entry;
  }

  async remove(conversation) {
    if (!confirm(`Delete "${conversation.title || "Untitled"}"?`)) return;
    await this.store.remove(conversation.id);
    if (conversation.id === this.actions.opened()) this.actions.begin();
    await this.refresh(this.actions.opened());
  }

  async clear() {
    if (!confirm("Delete all conversations of this browser?")) return;
    await this.store.clear();
    this.actions.begin();
    await this.refresh(this.actions.opened());
  }

  export() {
    const content = { format: "torchless conversations", version: 1, conversations: this.conversations };
    download("torchless-conversations.json", JSON.stringify(content, null, 2), "application/json");
  }

  async import(input) {
    const [file] = input.files;
    input.value = "";
    if (!file) return;
    try {
      const content = JSON.parse(await file.text());
      if (content.format !== "torchless conversations") throw new Error("it was not exported by this page");
      const checked = content.conversations.map(checkedConversation);
      for (const conversation of checked) await this.store.save(conversation);
      await this.refresh(this.actions.opened());
    } catch (error) {
      alert(`${file.name} cannot be imported: ${error.message}`);
    }
  }
}

/** A conversation from a file, without anything that this page does not know. */
function checkedConversation({ id, title, createdAt, updatedAt, messages, leaf }) {
  if (typeof id !== "string" || typeof messages !== "object" || messages === null) throw new Error("a conversation is broken");
  const checked = {};
  for (const message of Object.values(messages)) {
    const { role, content } = message;
    if (!["user", "assistant"].includes(role) || typeof content !== "string" || typeof message.id !== "string")
      throw new Error("a message is broken");
    checked[message.id] = {
      id: message.id,
      parent: typeof message.parent === "string" ? message.parent : null,
      createdAt: Number(message.createdAt) || 0,
      role,
      content,
      ...(typeof message.reasoning === "string" ? { reasoning: message.reasoning } : {}),
      ...(typeof message.model === "string" ? { model: message.model } : {}),
    };
  }
  for (const message of Object.values(checked)) {
    const seen = new Set();
    for (let above = message; above; above = checked[above.parent]) {
      if (seen.has(above.id)) throw new Error("its messages follow each other in a circle");
      seen.add(above.id);
    }
  }
  return {
    id,
    title: String(title ?? ""),
    createdAt: Number(createdAt) || 0,
    updatedAt: Number(updatedAt) || 0,
    messages: checked,
    leaf: typeof leaf === "string" && leaf in checked ? leaf : null,
  };
}

function download(name, text, type) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

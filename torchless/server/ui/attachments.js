// Text files that go with a question: chosen, dropped or pasted; shown as chips, sent behind the question.

import { element } from "./markdown.js";

const MOST_BYTES = 1 << 20;

/** Files that wait for the next question. `tell` shows why one was refused. */
export class Attachments {
  constructor({ list, input, area, tell }) {
    this.list = list;
    this.tell = tell;
    this.files = []; // {name, text}
    input.addEventListener("change", async () => {
      await this.add([...input.files]);
      input.value = "";
    });
    area.addEventListener("dragover", (event) => event.preventDefault());
    area.addEventListener("drop", (event) => {
      if (!event.dataTransfer.files.length) return;
      event.preventDefault();
      this.add([...event.dataTransfer.files]);
    });
    area.addEventListener("paste", (event) => {
      if (!event.clipboardData.files.length) return;
      event.preventDefault();
      this.add([...event.clipboardData.files]);
    });
  }

  async add(files) {
    for (const file of files) {
      try {
        if (file.size > MOST_BYTES) throw new Error(`it has ${file.size} bytes, more than the ${MOST_BYTES} that may be sent`);
        const text = new TextDecoder("utf-8", { fatal: true }).decode(await file.arrayBuffer());
        if (text.includes("\0")) throw new TypeError("no text");
        this.files.push({ name: file.name, text });
      } catch (error) {
        this.tell(`${file.name} was not attached: ${error instanceof TypeError ? "it is not text in UTF-8" : error.message}`);
      }
    }
    this.show();
  }

  /** A question with the files behind it, which wait no longer. */
  take(question) {
    const blocks = this.files.map(({ name, text }) => {
      const longest = Math.max(2, ...(text.match(/`{3,}/g) ?? []).map((run) => run.length));
      const fence = "`".repeat(longest + 1);
      const language = /\.(\w+)$/.exec(name)?.[1] ?? "";
      return `${name}:\n${fence}${language}\n${text.replace(/\n$/, "")}\n${fence}`;
    });
    this.files = [];
    this.show();
    return [question, ...blocks].join("\n\n");
  }

  show() {
    this.list.hidden = !this.files.length;
    this.list.replaceChildren(
      ...this.files.map((file) => {
        const button = element("button", [`${file.name} ✕`], "quiet");
        button.type = "button";
        button.setAttribute("aria-label", `Do not send ${file.name}`);
        button.addEventListener("click", () => {
          this.files = this.files.filter((other) => other !== file);
          this.show();
        });
        return element("li", [button]);
      }),
    );
  }
}

// Markdown to DOM nodes. Text of a model only ever becomes text nodes: there is no innerHTML in this folder, so no
// answer can add elements, attributes or scripts of its own. Blocks whose source has not changed keep their nodes, so
// that a streamed answer neither flickers nor loses the reader's selection.

import { highlight } from "./highlight.js";

const SAFE_LINK = /^(https?:|mailto:)/i;
const FENCE = /^( {0,3})(`{3,}|~{3,})\s*([^`]*)$/;
const HEADING = /^(#{1,6})\s+(.*?)\s*#*\s*$/;
const RULE = /^ {0,3}([-*_])(?:\s*\1){2,}\s*$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^(\s*)([-*+]|\d{1,9}[.)])(\s+|$)/;
const TABLE_LINE = /^\s*\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?\s*$/;
const MAX_DEPTH = 12;

/** Shows `source` in `parent`; calling it again with a longer source changes only what is new. */
export function renderMarkdown(parent, source) {
  const blocks = splitBlocks(source.replace(/\r\n?/g, "\n"));
  blocks.forEach((block, index) => {
    const old = parent.children[index];
    if (old && old.markdownSource === block) return;
    const node = renderBlock(block, 0);
    node.markdownSource = block;
    if (old) old.replaceWith(node);
    else parent.append(node);
  });
  while (parent.children.length > blocks.length) parent.lastElementChild.remove();
}

/** The top-level blocks of a text, each with its own lines. */
function splitBlocks(source) {
  const lines = source.split("\n");
  const blocks = [];
  let at = 0;
  while (at < lines.length) {
    if (!lines[at].trim()) {
      at += 1;
      continue;
    }
    const end = blockEnd(lines, at);
    blocks.push(lines.slice(at, end).join("\n"));
    at = end;
  }
  return blocks;
}

function blockEnd(lines, start) {
  const fence = FENCE.exec(lines[start]);
  if (fence) {
    for (let at = start + 1; at < lines.length; at += 1) {
      const trimmed = lines[at].trim();
      if (trimmed.startsWith(fence[2]) && !trimmed.replaceAll(fence[2][0], "")) return at + 1;
    }
    return lines.length; // the rest has not come yet
  }
  if (HEADING.test(lines[start]) || RULE.test(lines[start])) return start + 1;
  if (ITEM.test(lines[start])) return listEnd(lines, start);
  let at = start + 1;
  if (QUOTE.test(lines[start])) {
    while (at < lines.length && lines[at].trim()) at += 1;
    return at;
  }
  while (at < lines.length && lines[at].trim() && !interrupts(lines[at])) at += 1;
  return at;
}

function interrupts(line) {
  return FENCE.test(line) || HEADING.test(line) || RULE.test(line) || QUOTE.test(line) || ITEM.test(line);
}

function listEnd(lines, start) {
  const isOrdered = /^\s*\d/.test(lines[start]);
  let at = start + 1;
  let fence = null;
  for (; at < lines.length; at += 1) {
    const found = FENCE.exec(lines[at].trimStart());
    if (found && (fence === null || found[2].startsWith(fence))) fence = fence === null ? found[2] : null;
    if (fence !== null || lines[at].startsWith(" ") || lines[at].startsWith("\t")) continue;
    if (!lines[at].trim()) {
      const next = lines.slice(at).find((line) => line.trim());
      if (next === undefined || !(ITEM.test(next) || /^\s{2,}/.test(next))) return at;
      continue;
    }
    const item = ITEM.exec(lines[at]);
    if (item && /\d/.test(item[2]) !== isOrdered) return at; // a list of the other kind
    if (!item && (interrupts(lines[at]) || !lines[at - 1].trim())) return at;
  }
  return at;
}

function renderBlock(source, depth) {
  const lines = source.split("\n");
  const fence = FENCE.exec(lines[0]);
  if (fence) return codeBlock(lines, fence);
  const heading = HEADING.exec(lines[0]);
  if (heading) return element(`h${Math.min(heading[1].length + 2, 6)}`, inline(heading[2], depth));
  if (RULE.test(lines[0])) return document.createElement("hr");
  if (depth < MAX_DEPTH) {
    if (ITEM.test(lines[0])) return list(lines, depth);
    if (QUOTE.test(lines[0])) {
      const quote = document.createElement("blockquote");
      quote.append(...blocksOf(lines.map((line) => line.replace(QUOTE, "")).join("\n"), depth + 1));
      return quote;
    }
    if (lines.length > 1 && lines[0].includes("|") && TABLE_LINE.test(lines[1])) return table(lines, depth);
  }
  return element("p", inline(source, depth));
}

function blocksOf(source, depth) {
  return splitBlocks(source).map((block) => renderBlock(block, depth));
}

function codeBlock(lines, [, , mark, info]) {
  const last = lines[lines.length - 1].trim();
  const isClosed = lines.length > 1 && last.startsWith(mark) && !last.replaceAll(mark[0], "");
  const text = lines.slice(1, isClosed ? -1 : undefined).join("\n");
  const language = info.trim().split(/\s/)[0].toLowerCase();
  const block = element("div", [], "code-block");
  const head = element("div", [element("span", [language || "text"])], "code-head");
  const copy = element("button", ["Copy"], "quiet");
  copy.type = "button";
  copy.dataset.action = "copy-code";
  head.append(copy);
  const code = element("code", isClosed ? highlight(text, language) : [text]);
  const pre = element("pre", [code]);
  pre.tabIndex = 0; // can be scrolled with the keyboard
  block.append(head, pre);
  return block;
}

function list(lines, depth) {
  const first = ITEM.exec(lines[0]);
  const isOrdered = /\d/.test(first[2]);
  const node = document.createElement(isOrdered ? "ol" : "ul");
  if (isOrdered && parseInt(first[2], 10) !== 1) node.start = parseInt(first[2], 10);
  const base = first[1].length;
  let item = [];
  const items = [];
  for (const line of lines) {
    const found = ITEM.exec(line);
    if (found && found[1].length <= base + 1) {
      if (item.length) items.push(item);
      item = [line.slice(found[0].length)];
    } else item.push(line.replace(new RegExp(`^\\s{1,${base + first[2].length + 1}}`), ""));
  }
  items.push(item);
  for (const content of items) node.append(listItem(content, depth));
  return node;
}

function listItem(lines, depth) {
  const node = document.createElement("li");
  const task = /^\[([ xX])\]\s/.exec(lines[0]);
  if (task) {
    lines = [lines[0].slice(task[0].length), ...lines.slice(1)];
    node.append(task[1] === " " ? "☐ " : "☑ ");
  }
  const blocks = splitBlocks(lines.join("\n"));
  const isLoose = lines.some((line, index) => !line.trim() && index < lines.length - 1 && lines[index + 1].trim());
  blocks.forEach((block, index) => {
    const made = renderBlock(block, depth + 1);
    if (index === 0 && !isLoose && made.tagName === "P") node.append(...made.childNodes);
    else node.append(made);
  });
  return node;
}

function table(lines, depth) {
  const cells = (line) =>
    line.trim().replace(/^\|/, "").replace(/\|$/, "").split(/(?<!\\)\|/).map((cell) => cell.trim().replaceAll("\\|", "|"));
  const sides = cells(lines[1]).map((cell) => (/^:.*:$/.test(cell) ? "center" : cell.endsWith(":") ? "right" : ""));
  const row = (line, kind) => {
    const made = cells(line).map((cell, index) => {
      const node = element(kind, inline(cell, depth));
      if (sides[index]) node.classList.add(sides[index]);
      return node;
    });
    return element("tr", made);
  };
  const body = lines.slice(2).map((line) => row(line, "td"));
  const node = element("table", [element("thead", [row(lines[0], "th")]), element("tbody", body)]);
  const frame = element("div", [node], "table-frame");
  frame.tabIndex = 0;
  return frame;
}

const INLINE = new RegExp(
  [
    "(?<escape>\\\\[\\\\`*_{}\\[\\]()#+\\-.!|~<>])",
    "(?<ticks>`+)(?<code>[^`]|[^`][\\s\\S]*?[^`])\\k<ticks>(?!`)",
    "!?\\[(?<label>[^\\[\\]]*)\\]\\((?<link>[^\\s()]*(?:\\([^\\s()]*\\)[^\\s()]*)*)(?:\\s+[\"'][^\"']*[\"'])?\\)",
    "<(?<auto>(?:https?|mailto):[^\\s<>]+)>",
    "(?<url>\\bhttps?://[^\\s<>\"'`]*[^\\s<>\"'`.,;:!?)\\]}*_])",
    "\\*\\*(?<strong>(?=\\S)[\\s\\S]*?\\S)\\*\\*",
    "(?<![\\w_])__(?<strong2>(?=\\S)[\\s\\S]*?\\S)__(?![\\w_])",
    "\\*(?<em>(?=[^\\s*])[^*]*?[^\\s*])\\*",
    "(?<![\\w_])_(?<em2>(?=[^\\s_])[^_]*?[^\\s_]|[^\\s_])_(?![\\w_])",
    "~~(?<del>(?=\\S)[\\s\\S]*?\\S)~~",
    "(?<break>(?: {2,}|\\\\)\\n)",
  ].join("|"),
  "g",
);

/** The nodes of a line or a paragraph. */
function inline(text, depth) {
  if (depth > MAX_DEPTH) return [text];
  const nodes = [];
  let at = 0;
  for (const match of text.matchAll(INLINE)) {
    if (match.index > at) nodes.push(text.slice(at, match.index));
    at = match.index + match[0].length;
    const found = match.groups;
    if (found.escape) nodes.push(found.escape.slice(1));
    else if (found.code !== undefined) nodes.push(element("code", [found.code.replace(/^ (.*[^ ].*) $/s, "$1")]));
    else if (found.link !== undefined) nodes.push(link(found.link, inline(found.label || found.link, depth + 1)));
    else if (found.auto || found.url) nodes.push(link(found.auto || found.url, [found.auto || found.url]));
    else if (found.strong || found.strong2) nodes.push(element("strong", inline(found.strong || found.strong2, depth + 1)));
    else if (found.em || found.em2) nodes.push(element("em", inline(found.em || found.em2, depth + 1)));
    else if (found.del) nodes.push(element("del", inline(found.del, depth + 1)));
    else nodes.push(document.createElement("br"));
  }
  if (at < text.length) nodes.push(text.slice(at));
  return nodes;
}

/** A link that leads to the web or to mail; anything else stays text. Images are links too: nothing is fetched. */
function link(target, nodes) {
  if (!SAFE_LINK.test(target)) return element("span", nodes);
  const node = element("a", nodes);
  node.href = target;
  node.target = "_blank";
  node.rel = "noopener noreferrer nofollow";
  return node;
}

/** An element with children: nodes, or strings that become text. */
export function element(name, children = [], className = "") {
  const node = document.createElement(name);
  if (className) node.className = className;
  node.append(...children);
  return node;
}

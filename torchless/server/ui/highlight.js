// Colours for code: comments, strings, numbers, words of the language. A tokenizer for families of languages rather than
// a parser for each: what it does not know stays plain.

const WORDS = {
  c: "alignas alignof auto bool break case catch char class concept const constexpr continue default delete do double else enum explicit export extern false final float for friend goto if import inline int interface let long mutable namespace new noexcept null nullptr operator override package private protected public register requires return short signed sizeof static static_cast struct super switch template this throw throws true try typedef typename union unsigned using virtual void volatile while",
  js: "abstract any as async await boolean break case catch class const continue debugger declare default delete do else enum export extends false finally for from function get if implements import in instanceof interface keyof let namespace new null number of private protected public readonly return set static string super switch this throw true try type typeof undefined unknown var void while with yield",
  python: "False None True and as assert async await break case class continue def del elif else except finally for from global if import in is lambda match nonlocal not or pass raise return self try while with yield",
  rust: "as async await break const continue crate dyn else enum extern false fn for if impl in let loop match mod move mut pub ref return self Self static struct super trait true type unsafe use where while",
  go: "break case chan const continue default defer else fallthrough false for func go goto if import interface iota map nil package range return select struct switch true type var",
  shell: "alias break case continue declare do done echo elif else esac eval exec exit export fi for function if in local read return set shift source test then trap unset until while",
  sql: "add all alter and as asc between by case create cross database default delete desc distinct drop else end exists false from full group having if in index inner insert into is join key left like limit not null offset on or order outer primary references replace right select set table then true union unique update using values view when where with",
  ruby: "alias and begin break case class def defined do else elsif end ensure false for if in module next nil not or redo require rescue retry return self super then true undef unless until when while yield",
  lua: "and break do else elseif end false for function goto if in local nil not or repeat return then true until while",
  haskell: "case class data deriving do else family forall if import in infix infixl infixr instance let module newtype of then type where",
  json: "true false null",
  css: "important inherit initial unset none auto",
};

const SLASH = "\\/\\/[^\\n]*|\\/\\*[\\s\\S]*?(?:\\*\\/|$)";
const HASH = "#[^\\n]*";
const DASH = "--[^\\n]*";
const QUOTED = "\"(?:[^\"\\\\\\n]|\\\\.)*\"?|'(?:[^'\\\\\\n]|\\\\.)*'?";
const TRIPLE = "\"\"\"[\\s\\S]*?(?:\"\"\"|$)|'''[\\s\\S]*?(?:'''|$)";
const TICKS = "`(?:[^`\\\\]|\\\\[\\s\\S])*`?";

const FAMILIES = {
  c: { comment: SLASH, string: QUOTED, words: WORDS.c, before: "^[ \\t]*#[ \\t]*\\w+" },
  js: { comment: SLASH, string: `${TICKS}|${QUOTED}`, words: WORDS.js },
  python: { comment: HASH, string: `[rbfuRBFU]{0,2}(?:${TRIPLE}|${QUOTED})`, words: WORDS.python, before: "@[\\w.]+" },
  rust: { comment: SLASH, string: "\"(?:[^\"\\\\]|\\\\[\\s\\S])*\"?|'(?:[^'\\\\\\n]|\\\\.)'", words: WORDS.rust, before: "#!?\\[[^\\]\\n]*\\]" },
  go: { comment: SLASH, string: `${TICKS}|${QUOTED}`, words: WORDS.go },
  shell: { comment: "(?:^|(?<=\\s))#[^\\n]*", string: QUOTED, words: WORDS.shell, before: "\\$\\{?[\\w@#?*!-]+\\}?" },
  sql: { comment: `${DASH}|\\/\\*[\\s\\S]*?(?:\\*\\/|$)`, string: QUOTED, words: WORDS.sql, flags: "i" },
  ruby: { comment: HASH, string: QUOTED, words: WORDS.ruby, before: ":[a-z_]\\w*|@{1,2}\\w+" },
  lua: { comment: `--\\[\\[[\\s\\S]*?(?:\\]\\]|$)|${DASH}`, string: QUOTED, words: WORDS.lua },
  haskell: { comment: `\\{-[\\s\\S]*?(?:-\\}|$)|${DASH}`, string: "\"(?:[^\"\\\\\\n]|\\\\.)*\"?", words: WORDS.haskell },
  json: { comment: SLASH, string: QUOTED, words: WORDS.json },
  yaml: { comment: "(?:^|(?<=\\s))#[^\\n]*", string: QUOTED, words: WORDS.json, before: "^[ \\t]*(?:- )?[\\w.-]+(?=:)" },
  css: { comment: "\\/\\*[\\s\\S]*?(?:\\*\\/|$)", string: QUOTED, words: WORDS.css, before: "[\\w-]+(?=\\s*:)|[.#][\\w-]+" },
  html: { comment: "<!--[\\s\\S]*?(?:-->|$)", string: QUOTED, words: "", before: "<\\/?[\\w:-]+|\\/?>" },
};

const NAMES = {
  c: "c c++ cpp cc h hpp cuda cu java cs csharp kotlin kt scala swift php dart objective-c glsl wgsl",
  js: "js javascript ts typescript jsx tsx mjs",
  python: "py python python3 py3",
  rust: "rust rs",
  go: "go golang",
  shell: "sh bash shell zsh console make makefile dockerfile fish",
  sql: "sql postgres sqlite mysql",
  ruby: "rb ruby elixir",
  lua: "lua",
  haskell: "haskell hs elm",
  json: "json jsonc json5",
  yaml: "yaml yml toml ini",
  css: "css scss less",
  html: "html xml svg vue",
};

const rules = new Map();

function ruleOf(language) {
  const family = Object.keys(NAMES).find((name) => NAMES[name].split(" ").includes(language));
  if (!family) return null;
  if (!rules.has(family)) {
    const { comment, string, words, before, flags = "" } = FAMILIES[family];
    const parts = [`(?<comment>${comment})`];
    if (before) parts.push(`(?<before>${before})`);
    parts.push(`(?<string>${string})`);
    if (words) parts.push(`(?<word>\\b(?:${words.split(" ").join("|")})\\b)`);
    parts.push("(?<number>\\b(?:0[xXbBoO][\\da-fA-F_]+|\\d[\\d_]*(?:\\.\\d+)?(?:[eE][+-]?\\d+)?)\\w*)");
    parts.push("(?<call>\\b[A-Za-z_]\\w*(?=\\())");
    rules.set(family, new RegExp(parts.join("|"), `gm${flags}`));
  }
  return rules.get(family);
}

/** Nodes of a piece of code: text, and spans with the class of what they are. */
export function highlight(text, language) {
  const rule = ruleOf(language);
  if (rule === null || text.length > 200_000) return [text];
  const nodes = [];
  let at = 0;
  for (const match of text.matchAll(rule)) {
    if (!match[0]) continue;
    if (match.index > at) nodes.push(text.slice(at, match.index));
    at = match.index + match[0].length;
    const kind = Object.keys(match.groups).find((name) => match.groups[name] !== undefined);
    const span = document.createElement("span");
    span.className = `hl-${kind}`;
    span.textContent = match[0];
    nodes.push(span);
  }
  if (at < text.length) nodes.push(text.slice(at));
  return nodes;
}

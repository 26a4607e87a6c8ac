// What the user chose: kept in this browser (localStorage), and the dialog to change it.

const KEY = "torchless.settings";

/** Parameters of an answer: name, what the field takes, and how it is labelled. Empty fields leave it to the server. */
export const PARAMETERS = [
  { name: "temperature", label: "Temperature", hint: "0 always takes the likeliest token", min: 0, step: 0.05 },
  { name: "top_p", label: "Top p", hint: "only the likeliest tokens that reach this share", min: 0, max: 1, step: 0.01 },
  { name: "top_k", label: "Top k", hint: "only the so many likeliest tokens; 0 is off", min: 0, step: 1 },
  { name: "min_p", label: "Min p", hint: "only tokens this likely beside the likeliest", min: 0, max: 1, step: 0.01 },
  { name: "repeat_penalty", label: "Repeat penalty", hint: "above 1, recent tokens become less likely", min: 0.01, step: 0.01 },
  { name: "max_tokens", label: "Longest answer", hint: "in tokens", min: 1, step: 1 },
  { name: "seed", label: "Seed", hint: "the same seed gives the same answer", min: 0, step: 1 },
];

const DEFAULTS = { apiKey: "", theme: "auto", model: "", system: "", effort: "", parameters: {}, showsReasoning: false };

/** The settings, as they are now. Change them with `change`. */
export const settings = { ...DEFAULTS, ...read() };

function read() {
  try {
    const found = JSON.parse(localStorage.getItem(KEY) ?? "{}");
    return typeof found === "object" && found !== null ? found : {};
  } catch {
    return {}; // not allowed, or broken
  }
}

/** Changes settings and keeps them. */
export function change(changes) {
  Object.assign(settings, changes);
  try {
    localStorage.setItem(KEY, JSON.stringify(settings));
  } catch {
    // they hold until the page is left
  }
  applyTheme();
}

/** Dark, light, or as the system is. */
export function applyTheme() {
  const isDark = settings.theme === "dark" || (settings.theme === "auto" && matchMedia("(prefers-color-scheme: dark)").matches);
  document.documentElement.dataset.theme = isDark ? "dark" : "light";
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", applyTheme);
applyTheme();

/** Fills the dialog from the settings, and writes what is changed in it back. */
export function setUpDialog(dialog, onChange) {
  const fields = dialog.querySelector("#parameters");
  for (const { name, label, hint, min, max, step } of PARAMETERS) {
    const input = document.createElement("input");
    Object.assign(input, { type: "number", id: `parameter-${name}`, name, min, step, placeholder: "server's own" });
    if (max !== undefined) input.max = max;
    input.value = settings.parameters[name] ?? "";
    const title = document.createElement("label");
    title.htmlFor = input.id;
    title.textContent = label;
    const help = document.createElement("small");
    help.id = `${input.id}-hint`;
    help.textContent = hint;
    input.setAttribute("aria-describedby", help.id);
    const field = document.createElement("div");
    field.className = "field";
    field.append(title, input, help);
    fields.append(field);
    input.addEventListener("change", () => {
      if (!input.reportValidity()) return;
      const parameters = { ...settings.parameters };
      if (input.value === "") delete parameters[name];
      else parameters[name] = Number(input.value);
      change({ parameters });
      onChange();
    });
  }
  for (const [id, name] of [["system", "system"], ["api-key", "apiKey"], ["theme", "theme"], ["effort", "effort"]]) {
    const input = dialog.querySelector(`#${id}`);
    input.value = settings[name];
    input.addEventListener("change", () => {
      change({ [name]: input.value });
      onChange(name);
    });
  }
  dialog.querySelector("#reset-parameters").addEventListener("click", () => {
    change({ parameters: {}, effort: "" });
    dialog.querySelector("#effort").value = "";
    for (const { name } of PARAMETERS) dialog.querySelector(`#parameter-${name}`).value = "";
  });
}

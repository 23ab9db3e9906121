// @ts-check
/**
 * Settings > Kleinod > Own servers: other machines of yours that run Kleinod, for Klein Runware and Klein BFL.
 *
 * Address and key are stored on the server's computer, like the keys of the paid services, and never come back. A
 * node's profile names the server; only an address from here may be private, and only the ticked box lets it be asked
 * without encryption.
 */
import { app } from "../../scripts/app.js";
import { COLUMN, FIELD, make, makeButton, ROW, showOnceKnown } from "./lib/elements.js";
import { saySentences } from "./lib/sentences.js";
import { call, wordsOf } from "./lib/server.js";
import { say } from "./lib/words.js";

function makeServersPanel() {
  const news = make("div", {
    role: "status",
    style: { fontSize: "0.85em", opacity: "0.85", minHeight: "2.8em", overflowWrap: "anywhere" },
  });
  /** @param {string} label @param {string} example @param {string} width @param {string} [type] */
  const field = (label, example, width, type = "text") =>
    make("input", { type, autocomplete: "off", placeholder: example, ariaLabel: label, title: label, style: { ...FIELD, width } });
  const name = field(say("Own server: name"), "workstation", "9em");
  const address = field(say("Own server: address"), "http://192.168.1.20:8188", "20em");
  const key = field(say("Own server: API key"), say("API key"), "16em", "password");
  key.setAttribute("data-lpignore", "true");
  const plain = make("input", { type: "checkbox" });
  const rows = make("div", { style: COLUMN });

  /** @param {string} text @param {boolean} [bad] */
  const tell = (text, bad = false) => {
    news.textContent = text;
    news.style.color = bad ? "var(--error-text, #f66)" : "inherit";
  };
  /** @param {string} label @param {() => Promise<void>} work */
  const button = (label, work) => makeButton(label, work, (error) => tell(wordsOf(error), true));
  /** @type {(servers: {name: string, address: string, hint: string}[]) => void} */
  const show = (servers) =>
    rows.replaceChildren(
      ...servers.map((server) =>
        make(
          "div",
          { style: ROW },
          make("span", {}, `${server.name}: ${server.address} (${server.hint || say("no key")})`),
          button(say("Test"), async () => {
            tell(say("Asking..."));
            const found = await call("servers/test", "POST", { name: server.name });
            tell(saySentences(found.message), !found.ok);
          }),
          button(say("Clear"), async () => show(await call("servers", "DELETE", { name: server.name }))),
        ),
      ),
    );
  const save = button(say("Save"), async () => {
    const values = { name: name.value.trim(), address: address.value.trim(), key: key.value.trim(), plain: plain.checked };
    show(await call("servers", "POST", values));
    tell(say("Saved. Write %1 into the profile of Klein BFL or Klein Runware Options.", values.name));
    for (const one of [name, address, key]) one.value = "";
    plain.checked = false;
  });
  for (const one of [name, address, key]) {
    one.addEventListener("keydown", (event) => {
      if (/** @type {KeyboardEvent} */ (event).key === "Enter") save.click();
    });
  }
  const known = call("servers").then(show).catch((error) => tell(wordsOf(error), true));
  const consent = say("Allow it without encryption (http): whoever shares the network can read key, prompts and pictures.");
  const label = make("label", { style: { ...ROW, flexWrap: "nowrap" } }, plain, make("span", {}, consent));
  const lines = [make("div", { style: ROW }, name, address), make("div", { style: ROW }, key, save), label, rows, news];
  return showOnceKnown(make("div", { style: COLUMN }, ...lines), known);
}

app.registerExtension({
  name: "kleinod.servers",
  settings: [
    {
      id: "Kleinod.Servers.Own",
      category: ["Kleinod", "API keys", "Own servers"],
      name: "Own servers",
      tooltip:
        "Other machines of yours on which Kleinod answers API requests. Klein Runware and Klein BFL send there when " +
        "their profile has the server's name.",
      type: () => makeServersPanel(),
      defaultValue: "",
    },
  ],
});

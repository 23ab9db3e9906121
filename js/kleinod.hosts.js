// @ts-check
/**
 * Settings > Kleinod > Picture hosts: hosts a service's pictures may come from, beyond its own.
 *
 * Kleinod fetches pictures from the service's own hosts only, and says so when a picture lies elsewhere. Whoever
 * trusts that host writes it here; like the keys, this is stored on the server's computer.
 */
import { app } from "../../scripts/app.js";
import { COLUMN, FIELD, make, ROW, showOnceKnown } from "./lib/elements.js";
import { call, wordsOf } from "./lib/server.js";
import { SERVICES } from "./lib/services.js";
import { say } from "./lib/words.js";

/** One line a service: its hosts with commas between, and Save. */
function makeHostsPanel() {
  const news = make("div", { style: { fontSize: "0.85em", opacity: "0.85", minHeight: "1.4em" }, role: "status" });
  const rows = Object.entries(SERVICES).map(([service, { company }]) => {
    const field = make("input", {
      placeholder: "images.example.com",
      ariaLabel: say("%1: picture hosts", company),
      style: { ...FIELD, width: "18em" },
    });
    const save = make("button", { type: "button", textContent: say("Save"), style: { ...FIELD, cursor: "pointer" } });
    save.addEventListener("click", async () => {
      const hosts = field.value.split(/[\s,]+/).filter(Boolean);
      try {
        const stored = await call("hosts", "POST", { service, hosts });
        field.value = stored[service].join(", ");
        news.textContent = hosts.length ? say("Saved. Queue again: the picture is fetched without paying twice.") : say("Saved.");
      } catch (error) {
        news.textContent = wordsOf(error);
      }
    });
    return { service, field, row: make("label", { style: ROW }, make("span", {}, company), field, save) };
  });
  const known = call("hosts")
    .then((/** @type {Record<string, string[]>} */ stored) => {
      for (const { service, field } of rows) field.value = (stored[service] ?? []).join(", ");
    })
    .catch((error) => (news.textContent = wordsOf(error)));
  return showOnceKnown(make("div", { style: COLUMN }, ...rows.map(({ row }) => row), news), known);
}

app.registerExtension({
  name: "kleinod.hosts",
  settings: [
    {
      id: "Kleinod.Hosts.Pictures",
      category: ["Kleinod", "Picture hosts", "Hosts"],
      name: "Further picture hosts",
      tooltip: "Hosts that a service's pictures may come from, beyond its own. Empty is right for nearly everyone.",
      type: () => makeHostsPanel(),
      defaultValue: "",
    },
  ],
});

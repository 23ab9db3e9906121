// @ts-check
// Klein Face Settings: choosing a preset writes its numbers into the widgets; changing one of them by hand turns
// the preset into custom, so that what is seen is what counts. So does connecting one: a preset would not read it.

import { app } from "../../scripts/app.js";
import { call } from "./lib/server.js";
import { follow } from "./lib/widgets.js";

const INPUT = 1; // the side of a node, as its hook is told

/** What the server says, asked before the page makes its first node. */
let custom = "custom";
/** @type {Record<string, Record<string, number | string>>} */
let presets = {};

app.registerExtension({
  name: "kleinod.faces",

  async init() {
    try {
      ({ custom, presets } = await call("faces/presets"));
    } catch (error) {
      console.warn("Kleinod: the presets of Klein Face Settings stay unread.", error);
    }
  },

  nodeCreated(node) {
    if (node.comfyClass !== "KleinodFaceSettings") return;
    const widgets = new Map((node.widgets ?? []).map((widget) => [widget.name, widget]));
    const preset = widgets.get("preset");
    if (!preset) return;
    let writing = false;

    const write = () => {
      writing = true;
      for (const [name, value] of Object.entries(presets[String(preset.value)] ?? {})) {
        const widget = widgets.get(name);
        if (widget) widget.value = value;
      }
      writing = false;
      node.setDirtyCanvas?.(true, true);
    };

    const leave = () => {
      preset.value = custom;
      node.setDirtyCanvas?.(true, true);
    };

    follow(preset, "callback", write);
    const names = Object.keys(Object.values(presets)[0] ?? {});
    for (const name of names) {
      const widget = widgets.get(name);
      if (widget) follow(widget, "callback", () => !writing && leave());
    }
    follow(node, "onConnectionsChange", (kind, slot, connected) => {
      const name = kind === INPUT ? node.inputs?.[slot]?.name : undefined;
      if (connected && name && names.includes(name) && !app.configuringGraph) leave();
    });
    write(); // a saved graph puts its own values in afterwards
  },
});

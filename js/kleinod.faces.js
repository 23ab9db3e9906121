// @ts-check
// Klein Face Settings: choosing a preset writes its numbers into the widgets; changing one of them by hand turns
// the preset into custom, so that what is seen is what counts. So does connecting one: a preset would not read it.

import { app } from "../../scripts/app.js";
import { CUSTOM, PRESETS, numbersOf } from "./lib/face_presets.js";
import { follow } from "./lib/widgets.js";

const INPUT = 1; // the side of a node, as its hook is told

app.registerExtension({
  name: "kleinod.faces",

  nodeCreated(node) {
    if (node.comfyClass !== "KleinodFaceSettings") return;
    const widgets = new Map((node.widgets ?? []).map((widget) => [widget.name, widget]));
    const preset = widgets.get("preset");
    if (!preset) return;
    let writing = false;

    const write = () => {
      writing = true;
      for (const [name, value] of Object.entries(numbersOf(String(preset.value)))) {
        const widget = widgets.get(name);
        if (widget) widget.value = value;
      }
      writing = false;
      node.setDirtyCanvas?.(true, true);
    };

    const leave = () => {
      preset.value = CUSTOM;
      node.setDirtyCanvas?.(true, true);
    };

    follow(preset, "callback", write);
    const names = Object.keys(Object.values(PRESETS)[0]);
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

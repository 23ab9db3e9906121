// @ts-check
/** Before any node is made: the scripts' words in the page's language. */
import { app } from "../../scripts/app.js";
import { learnLanguage } from "./lib/language.js";

app.registerExtension({ name: "kleinod.language", init: learnLanguage });

// The parts of the page that draw themselves. What they call when somebody uses them is set in choosing.js.

import { Hand } from "./hand.js";
import { Legend } from "./legend.js";
import { $ } from "./page.js";
import { Readout } from "./readout.js";
import { Stage } from "./stage.js";
import { Views } from "./views.js";

export const stage = new Stage($("canvas"));
export const second = new Stage($("canvas-other"));
export const readout = new Readout($("pixel"));
export const legend = new Legend($("legend").querySelector("ul"), $("show-all"));
export const views = new Views($("views").querySelector("div"));
export const hand = new Hand($("sliders"), $("triangle"));

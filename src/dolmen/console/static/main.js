// The page, put together: one pulse a second feeds the loop and the figures; Try it talks for itself.

import { Pulse, useToken } from "./api.js";
import { byId, say } from "./dom.js";
import { Figures } from "./figures.js";
import { Loop } from "./loop.js";
import { TryIt } from "./tryit.js";

const loop = new Loop();
const figures = new Figures();
const tryIt = new TryIt((step) => loop.follow(step));

function connected(is, words) {
  byId("link").dataset.state = is;
  say(byId("link-text"), words);
}

function source({ simulated, dataset }) {
  const node = byId("source");
  node.hidden = !dataset && !simulated;
  node.classList.toggle("simulated", simulated === true);
  say(node, simulated ? `Simulated world${dataset ? `: ${dataset}` : ""}. People and items are invented.` : `Data: ${dataset ?? ""}`);
}

const pulse = new Pulse({
  onStatus(status) {
    const wasAway = byId("link").dataset.state === "away";
    connected("up", "Connected");
    byId("notice").hidden = true;
    document.body.classList.remove("away");
    source(status);
    loop.update(status);
    figures.update(status);
    if (wasAway) tryIt.back();
  },
  onAway(failure) {
    const locked = failure.status === 401 || failure.status === 403;
    connected("away", locked ? "Locked" : "Server away");
    document.body.classList.add("away");
    byId("notice").hidden = false;
    byId("token").hidden = !locked;
    say(byId("notice-text"), locked ? "This server wants an access token."
      : failure.away ? "The server is not answering. This page asks again every few seconds."
      : `The server cannot say how it is: ${failure.message}`);
    loop.away();
  },
});

byId("retry").addEventListener("click", () => pulse.now());
byId("token").addEventListener("submit", (event) => {
  event.preventDefault();
  useToken(byId("token-value").value.trim());
  pulse.now();
});
pulse.now();

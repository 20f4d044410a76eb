// One state at a time comes from the server; everything it says is set as text, never as markup.
"use strict";

const BOUNCE = 300; // ms after a new prompt in which a key is taken for the rest of the last keystroke
const KEYS = {
  "1": "left", "ArrowLeft": "left", "2": "tie", "0": "tie", "ArrowDown": "tie", "3": "right", "ArrowRight": "right",
  "4": "both bad", "b": "both bad",
};
const main = document.getElementById("main");
const alarm = document.getElementById("alarm");
const choices = document.getElementById("choices");
const stop = document.getElementById("stop");
let view = null;
let busy = false;
let shownAt = 0;

function element(tag, className, ...children) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...children); // strings become text nodes
  return made;
}

function button(act, words, className) {
  const made = element("button", className, words);
  made.dataset.act = act;
  return made;
}

function plural(n, word) {
  return `${n} ${word}${n === 1 ? "" : "s"}`;
}

async function call(action, body) {
  if (busy) return;
  busy = true;
  document.body.setAttribute("aria-busy", "true");
  try {
    const post = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
    const reply = await fetch(action, action === "state" ? {} : post);
    const told = await reply.json();
    if (told.error) complain(`This was not kept: ${told.error}`);
    else show(told);
  } catch {
    complain("trimtab does not answer any more. What you chose before is kept: start the same command again to go on.");
  } finally {
    busy = false;
    document.body.removeAttribute("aria-busy");
  }
}

function act(action, extra) {
  if (view !== null) call(action, { ticket: view.ticket, ...extra });
}

function complain(words) {
  alarm.textContent = words;
  alarm.hidden = false;
}

function show(told) {
  const fresh = view === null || view.ticket !== told.ticket;
  view = told;
  alarm.hidden = true;
  document.body.dataset.state = told.state;
  const { total, judged, skipped } = told.progress;
  const bar = document.getElementById("bar");
  bar.max = Math.max(total, 1);
  bar.value = judged;
  document.getElementById("count").textContent = `${judged} of ${total} judged${skipped ? `, ${skipped} skipped` : ""}`;
  choices.hidden = told.state !== "asking";
  choices.querySelector("[data-act=undo]").disabled = !told.can_undo;
  main.replaceChildren(...({ asking, done, finished })[told.state](told));
  if (!fresh) return;
  shownAt = performance.now();
  window.scrollTo(0, 0);
  (main.querySelector("button.strong") ?? main).focus({ preventScroll: true });
}

function asking({ match }) {
  const many = match.asked.length > 1;
  const parts = match.skipped_before ? [element("p", "note", "You skipped this one before.")] : [];
  match.asked.forEach((text, turn) => {
    const name = many ? `Prompt, turn ${turn + 1}` : "Prompt";
    const said = element("div", "text", text);
    said.dir = "auto";
    parts.push(element("section", "ask", element("h2", "", name), scrollable(said, name)));
    const pair = element("div", "pair", answer("Left", match.left[turn]), answer("Right", match.right[turn]));
    parts.push(pair);
  });
  return parts;
}

function scrollable(node, name) {
  node.tabIndex = 0;
  node.setAttribute("role", "region");
  node.setAttribute("aria-label", name);
  return node;
}

function answer(side, text) {
  const said = text === "" ? element("div", "text empty", "(empty answer)") : element("div", "text", text);
  said.dir = "auto";
  const made = element("article", side.toLowerCase(), element("h2", "", side), said);
  made.setAttribute("aria-label", `${side} answer`);
  return made;
}

function done({ progress, can_undo }) {
  const { total, judged, skipped, identical } = progress;
  const card = element("section", "card");
  const title = skipped ? `${judged} of ${total} prompts are judged` : `All ${plural(total, "prompt")} are judged`;
  card.append(element("h1", "", title));
  if (skipped) card.append(element("p", "", `You skipped ${skipped}. A skipped prompt counts as missing.`));
  if (identical) card.append(element("p", "", `${plural(identical, "prompt")} had identical answers: ties that nobody need judge.`));
  const others = element("div", "others", button("finish", "Show the result", "strong"));
  if (skipped) others.append(button("again", `Judge the ${skipped} skipped`));
  if (can_undo) others.append(button("undo", "Undo the last"));
  card.append(others);
  return [card];
}

function finished({ summary }) {
  const card = element("section", "card", element("h1", "", summary.headline));
  const bar = element("div", "shares");
  bar.setAttribute("aria-hidden", "true");
  for (const { kind, n } of summary.shares) {
    const part = element("span", kind);
    part.style.flexGrow = n;
    if (n) bar.append(part);
  }
  const legend = element("ul", "legend", ...summary.shares.map(({ kind, name, n }) =>
    element("li", "", element("i", kind), `${name} `, element("b", "", String(n)))));
  card.append(bar, legend, ...summary.lines.map((line) => element("p", "", line)));
  card.append(element("p", "note", "The result is in the terminal too. This page can be closed."));
  return [card];
}

function pressed(action) {
  switch (action) {
    case "stop": {
      const { total, judged } = view.progress;
      document.getElementById("stop-text").textContent =
        `${judged} of ${total} prompts are judged. What is judged is kept, and the same command goes on from here another time; ` +
        "but from now on you know which run did better.";
      stop.showModal();
      break;
    }
    case "stay":
      stop.close();
      break;
    case "finish":
      stop.close();
      act("finish");
      break;
    default:
      act(action);
  }
}

document.addEventListener("click", ({ target }) => {
  const pressedOn = target.closest("button");
  if (pressedOn?.dataset.said) act("choose", { said: pressedOn.dataset.said });
  else if (pressedOn?.dataset.act) pressed(pressedOn.dataset.act);
});

document.addEventListener("keydown", (event) => {
  if (event.altKey || event.ctrlKey || event.metaKey || event.shiftKey || event.repeat) return;
  if (view === null || stop.open || performance.now() - shownAt < BOUNCE) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (key === "u" && view.can_undo) act("undo");
  if (view.state !== "asking") return;
  if (key === "s") act("skip");
  const scrolls = document.documentElement.scrollHeight > window.innerHeight;
  const reading = document.activeElement?.scrollHeight > document.activeElement?.clientHeight;
  if (key === "ArrowDown" && (scrolls || reading)) return; // there is more to read below: the key moves the page
  if (KEYS[key] !== undefined) {
    event.preventDefault();
    act("choose", { said: KEYS[key] });
  }
});

call("state");

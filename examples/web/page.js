// The page: a photograph comes in by drop, paste, camera or choice; names, bars and the time come out.

import { isAccepted, loadClassifier } from "./classifier.js";
import { centralSquare, decode, squareOf } from "./pixels.js";

const TOP = 5;
const PROCESSORS = { wasm: "the processor (WebAssembly)", webgpu: "the graphics processor (WebGPU)" };
const STILL = matchMedia("(prefers-reduced-motion: reduce)");
const byId = (id) => document.getElementById(id);
const inputs = [byId("take"), byId("choose")];

let facts;
let labels;
let classifier;
let queue = Promise.resolve();

function say(text, failed = false) {
  byId("status").textContent = text;
  byId("status").classList.toggle("failed", failed);
}

async function start() {
  byId("late").hidden = true; // this module runs, so the page was served
  const wanted = new URLSearchParams(location.search).get("processor") ?? "fastest";
  facts = await (await fetch("model.json")).json();
  labels = (await (await fetch("labels.txt")).text()).trimEnd().split("\n");
  classifier = await loadClassifier(facts, wanted);
  for (const input of inputs) {
    input.disabled = false;
    input.addEventListener("change", () => {
      if (input.files.length) enqueue(input.files[0]);
      input.value = ""; // the same photograph may be chosen again
    });
  }
  addEventListener("dragover", (event) => event.preventDefault());
  for (const type of ["dragenter", "dragover"]) addEventListener(type, () => byId("drop").classList.add("over"));
  for (const type of ["dragleave", "drop"]) addEventListener(type, () => byId("drop").classList.remove("over"));
  addEventListener("drop", (event) => {
    event.preventDefault();
    enqueueFirst(event.dataTransfer.files);
  });
  addEventListener("paste", (event) => enqueueFirst(event.clipboardData.files));
  say("Ready for a photograph.");
}

function enqueueFirst(files) {
  if (files.length) enqueue(files[0]);
  else say("That was no file. Drop a photograph from a folder, not a picture of another page.", true);
}

function enqueue(file) {
  queue = queue.then(() => show(file)).catch((error) => say(error.message, true));
}

async function show(file) {
  say("Looking …");
  const begin = performance.now();
  let picture;
  try {
    picture = await decode(file);
  } catch {
    clear();
    throw new Error(`${file.name || "This"} cannot be read as a photograph. Whole JPEG, PNG, WebP, GIF and BMP files can.`);
  }
  try {
    const decoded = performance.now();
    draw(picture, file.name);
    await new Promise((done) => setTimeout(done)); // lets the picture appear first
    const seen = performance.now();
    const pixels = squareOf(picture, facts.framing);
    const ready = performance.now();
    const answer = await classifier.classify(pixels);
    const computed = performance.now() - ready;
    list(answer);
    byId("answer").scrollIntoView({ block: "nearest", behavior: STILL.matches ? "auto" : "smooth" });
    byId("time").textContent =
      `${computed.toFixed(0)} ms in the network on ${PROCESSORS[classifier.processor]}, ` +
      `${(decoded - begin + ready - seen).toFixed(0)} ms to read the photograph.`;
  } finally {
    picture.close();
  }
}

function clear() {
  const canvas = byId("preview");
  canvas.getContext("2d").clearRect(0, 0, canvas.width, canvas.height);
  canvas.setAttribute("aria-label", "No photograph yet");
  byId("hint").hidden = false;
  byId("names").replaceChildren();
  byId("time").textContent = "";
}

/** The square that the network sees, larger than it sees it. */
function draw(picture, name) {
  const canvas = byId("preview");
  const { left, top, length } = centralSquare(picture, facts.framing);
  const context = canvas.getContext("2d");
  context.fillStyle = "#fff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(picture, left, top, length, length, 0, 0, canvas.width, canvas.height);
  canvas.setAttribute("aria-label", `The middle of ${name || "the photograph"}, which the network looks at`);
  byId("hint").hidden = true;
}

/** The best classes, those first that are accepted; those that are not stand there all the same, paler. */
function list(answer) {
  const accepted = Array.from(answer, (_, index) => isAccepted(answer, index, facts.output));
  const order = (one, other) => accepted[other] - accepted[one] || answer[other] - answer[one];
  const best = [...answer.keys()].sort(order).slice(0, TOP);
  byId("names").replaceChildren(
    ...best.map((index) => {
      const row = document.createElement("li");
      const name = document.createElement("span");
      const share = document.createElement("span");
      const bar = document.createElement("div");
      name.textContent = labels[index];
      share.textContent = percent(answer[index]);
      bar.className = "bar";
      row.classList.toggle("below", !accepted[index]);
      bar.append(document.createElement("i"));
      bar.firstChild.style.width = `${100 * answer[index]}%`;
      row.append(name, share, bar);
      return row;
    }),
  );
  const named = `${labels[best[0]]}, ${percent(answer[best[0]])}`;
  say(accepted[best[0]] ? named : `None of these. Nearest: ${named}`);
}

function percent(share) {
  return `${(100 * share).toFixed(1)} %`;
}

start().catch((error) => say(`The network could not be loaded. ${error.message}`, true));

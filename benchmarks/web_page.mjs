// Opens a bundled page in a headless Chromium and says what it does; `web.py` and the tests call it:
//
//   node web_page.mjs NODE_MODULES CHROMIUM < task.json
//
// A task: url; chosen: files to choose one after the other, as a visitor does; dropped: files to drop after them;
// photographs: files to score, with processor; phone: whether it is one; screenshots: {file: [width, height]};
// cdn: {prefix: folder}, files that answer for another host; tabs: how often the Tab key is pressed; flags of Chromium;
// mediapipe: folder of its web task, with whole: files and crop: share of the shorter side.
// The answer: loaded, shown (status, names, time and label after each choice), scores, pixels, read and computed (ms),
// processor, focused, best, requests, errors.

import { createRequire } from "node:module";
import { readFileSync } from "node:fs";

const puppeteer = createRequire(`${process.argv[2]}/`)("puppeteer-core");
const task = JSON.parse(readFileSync(0, "utf8"));
const browser = await puppeteer.launch({
  executablePath: process.argv[3],
  args: ["--no-sandbox", "--disable-dev-shm-usage", ...(task.flags ?? [])],
  protocolTimeout: 120000,
});
try {
  const page = await browser.newPage();
  const said = { requests: [], errors: [] };
  await watch(page, said);
  const phone = { isMobile: task.phone ?? false, hasTouch: task.phone ?? false };
  await page.setViewport({ width: 390, height: 844, ...phone });
  await page.goto(task.url);
  await page.waitForFunction(
    () => !document.getElementById("status").textContent.startsWith("Loading"),
    { timeout: 120000 },
  );
  said.loaded = await status(page);
  if (task.tabs) said.focused = await focused(page, task.tabs);
  said.shown = [];
  for (const file of task.chosen ?? []) said.shown.push(await choose(page, file));
  for (const file of task.dropped ?? []) said.shown.push(await drop(page, file));
  for (const [file, [width, height]] of Object.entries(task.screenshots ?? {})) {
    await page.setViewport({ width, height, ...phone });
    await page.screenshot({ path: file, fullPage: true });
  }
  if (task.photographs) Object.assign(said, await scores(page, task.photographs, task.processor ?? "wasm"));
  if (task.mediapipe) Object.assign(said, await inMediaPipe(page, task));
  console.log(JSON.stringify(said));
} finally {
  await browser.close();
}

async function watch(page, said) {
  page.on("pageerror", (error) => said.errors.push(String(error)));
  page.on("console", (message) => {
    const ofLiteRt = /^(INFO|WARNING): /.test(message.text()); // it logs by console.error
    if (message.type() === "error" && !ofLiteRt) said.errors.push(message.text());
  });
  if (task.cdn) await page.setRequestInterception(true);
  page.on("request", (request) => {
    const url = request.url();
    if (!url.startsWith("blob:") && !url.startsWith("data:")) said.requests.push(`${request.method()} ${url}`);
    if (!task.cdn) return;
    const prefix = Object.keys(task.cdn).find((each) => url.startsWith(each));
    if (prefix === undefined) return request.continue();
    request.respond({
      body: readFileSync(task.cdn[prefix] + url.slice(prefix.length)),
      contentType: url.endsWith(".js") ? "text/javascript" : "application/wasm",
      headers: { "Access-Control-Allow-Origin": "*" },
    });
  });
}

function status(page) {
  return page.$eval("#status", (element) => element.textContent);
}

async function choose(page, file) {
  await page.$eval("#status", (element) => (element.textContent = "Looking …"));
  await (await page.$("#choose")).uploadFile(file);
  return shown(page);
}

async function drop(page, file) {
  await page.$eval("#status", (element) => (element.textContent = "Looking …"));
  await page.evaluate((text, name) => {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const dataTransfer = new DataTransfer();
    dataTransfer.items.add(new File([bytes], name));
    document.getElementById("drop").dispatchEvent(new DragEvent("drop", { dataTransfer, bubbles: true, cancelable: true }));
  }, readFileSync(file).toString("base64"), file.split("/").pop());
  return shown(page);
}

/** What a visitor sees and hears once the page has looked. */
async function shown(page) {
  await page.waitForFunction(() => document.getElementById("status").textContent !== "Looking …");
  return {
    status: await status(page),
    names: await page.$$eval("#names li", (rows) => rows.map((row) => [...row.children].map((c) => c.textContent))),
    time: await page.$eval("#time", (element) => element.textContent),
    label: await page.$eval("#preview", (element) => element.getAttribute("aria-label")),
  };
}

/** The ids of what has the focus after each press of the Tab key. */
async function focused(page, presses) {
  const ids = [];
  for (let press = 0; press < presses; press++) {
    await page.keyboard.press("Tab");
    ids.push(await page.evaluate(() => document.activeElement.id));
  }
  return ids;
}

/** The best class of each photograph in MediaPipe's web task. */
async function inMediaPipe(page, { mediapipe, whole, crop }) {
  await page.setBypassCSP(true);
  await page.setRequestInterception(true);
  page.on("request", (request) => {
    const [, path] = request.url().split("/mediapipe/");
    if (path === undefined) return request.continue();
    const kinds = { mjs: "text/javascript", js: "text/javascript", wasm: "application/wasm" };
    request.respond({ body: readFileSync(`${mediapipe}/${path}`), contentType: kinds[path.split(".").pop()] });
  });
  await page.reload();
  await page.evaluate(async (share) => {
    const { FilesetResolver, ImageClassifier } = await import("/mediapipe/vision_bundle.mjs");
    const vision = await FilesetResolver.forVisionTasks("/mediapipe/wasm");
    const classifier = await ImageClassifier.createFromOptions(vision, { baseOptions: { modelAssetPath: "model.tflite" } });
    window.best = async (text) => {
      const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
      const picture = await createImageBitmap(new Blob([bytes]));
      const shorter = Math.min(picture.width, picture.height);
      const [w, h] = [(share * shorter) / picture.width, (share * shorter) / picture.height];
      const square = { left: (1 - w) / 2, top: (1 - h) / 2, right: (1 + w) / 2, bottom: (1 + h) / 2 };
      const begin = performance.now();
      const { classifications } = classifier.classify(picture, share ? { regionOfInterest: square } : {});
      return [classifications[0].categories[0].index, performance.now() - begin];
    };
  }, crop);
  const found = [];
  for (const file of whole) {
    found.push(await page.evaluate((text) => window.best(text), readFileSync(file).toString("base64")));
  }
  return { best: found.map(([index]) => index), computed: found.map(([, took]) => took) };
}

/** All probabilities of each photograph, by the page's own modules. */
async function scores(page, files, processor) {
  await page.evaluate(async (wanted) => {
    const { loadClassifier } = await import("./classifier.js");
    const { decode, squareOf } = await import("./pixels.js");
    const facts = await (await fetch("model.json")).json();
    const classifier = await loadClassifier(facts, wanted);
    const encode = (bytes) => {
      let text = "";
      for (let at = 0; at < bytes.length; at += 8192) text += String.fromCharCode(...bytes.subarray(at, at + 8192));
      return btoa(text);
    };
    window.look = async (text) => {
      const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
      const begin = performance.now();
      const picture = await decode(new Blob([bytes]));
      const pixels = squareOf(picture, facts.framing);
      const read = performance.now();
      const answer = await classifier.classify(pixels);
      const end = performance.now();
      picture.close();
      return { pixels: encode(pixels), scores: [...answer], read: read - begin, computed: end - read, processor: classifier.processor };
    };
  }, processor);
  const found = [];
  for (const file of files) {
    found.push(await page.evaluate((text) => window.look(text), readFileSync(file).toString("base64")));
  }
  return {
    scores: found.map((each) => each.scores),
    pixels: found.map((each) => each.pixels),
    read: found.map((each) => each.read),
    computed: found.map((each) => each.computed),
    processor: found[0]?.processor,
  };
}

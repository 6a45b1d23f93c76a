// Opens a bundled page in a headless Chromium and says what it does. Called by the tests and by benchmarks/web.py:
//
//   node page.mjs NODE_MODULES < {"url": …, "photographs": […], …}
//
// Input: url; photographs to classify; chosen: one to choose by hand, as a visitor does; press: keys before that;
// screenshots: {file: [width, height]}; cdn: {prefix: folder} to answer in the place of another host; flags of Chromium.
// Output: one JSON with status, names, scores (of each photograph), milliseconds, requests, errors, processor.

import { createRequire } from "node:module";
import { readFileSync } from "node:fs";

const puppeteer = createRequire(`${process.argv[2]}/`)("puppeteer-core");
const task = JSON.parse(readFileSync(0, "utf8"));
const browser = await puppeteer.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-dev-shm-usage", ...(task.flags ?? [])],
  protocolTimeout: 120000,
});
try {
  const page = await browser.newPage();
  const said = { requests: [], errors: [] };
  await watch(page, said);
  await page.setViewport({ width: task.width ?? 390, height: task.height ?? 844 });
  await page.goto(task.url);
  await page.waitForFunction(
    () => !document.getElementById("status").textContent.startsWith("Loading"),
    { timeout: 120000 },
  );
  said.loaded = await status(page);
  if (task.chosen) Object.assign(said, await choose(page, task.chosen));
  for (const [file, [width, height]] of Object.entries(task.screenshots ?? {})) {
    await page.setViewport({ width, height });
    await page.screenshot({ path: file, fullPage: true });
  }
  if (task.photographs) Object.assign(said, await scores(page, task.photographs, task.processor ?? "wasm"));
  if (task.evaluate) said.evaluated = await page.evaluate(task.evaluate);
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

/** What a visitor sees and hears after choosing a photograph. */
async function choose(page, file) {
  const before = await status(page);
  const input = await page.$("#choose");
  await input.uploadFile(file);
  await page.waitForFunction(
    (old) => ![old, "Looking …"].includes(document.getElementById("status").textContent),
    {},
    before,
  );
  return {
    status: await status(page),
    names: await page.$$eval("#names li", (rows) => rows.map((row) => [...row.children].map((c) => c.textContent))),
    time: await page.$eval("#time", (element) => element.textContent),
    label: await page.$eval("#preview", (element) => element.getAttribute("aria-label")),
  };
}

/** All probabilities of each photograph, by the page's own modules. */
async function scores(page, files, processor) {
  await page.evaluate(async (wanted) => {
    const { loadClassifier } = await import("./classifier.js");
    const { decode, squareOf } = await import("./pixels.js");
    const facts = await (await fetch("model.json")).json();
    const classifier = await loadClassifier(facts, wanted);
    window.look = async (text) => {
      const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
      const begin = performance.now();
      const picture = await decode(new Blob([bytes]));
      const pixels = squareOf(picture, facts.framing);
      const read = performance.now();
      const answer = await classifier.classify(pixels);
      const end = performance.now();
      picture.close();
      return { pixels: btoa(String.fromCharCode(...pixels.slice(0, 60000))), scores: [...answer], read: read - begin, computed: end - read, processor: classifier.processor };
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

// LiteRT.js and the network: fetched, checked against their hashes, and run in this page.

const SAME_ANSWER = 0.02; // a probability; GPUs compute in half precision

/**
 * Loads the runtime and the network.
 * @param {object} facts what model.json says
 * @param {"fastest"|"wasm"|"webgpu"} wanted which processor; "fastest" takes the GPU where it is faster and agrees
 * @returns {Promise<{processor: string, classify: (pixels: Uint8Array) => Promise<Float32Array>}>}
 */
export async function loadClassifier(facts, wanted = "fastest") {
  const [litert, content] = await Promise.all([loadRuntime(facts.runtime), fetchChecked(facts.file)]);
  const model = new Uint8Array(content);
  const compile = async (processor) => {
    const compiled = await litert.loadAndCompile(model, { accelerator: processor });
    const classify = (pixels) => run(litert, compiled, facts, pixels);
    await classify(stripes(facts)); // the first run sets things up
    return { processor, classify, drop: () => compiled.delete() };
  };
  if (wanted === "webgpu") return compile("webgpu");
  const cpu = await compile("wasm");
  if (wanted === "wasm" || !litert.getWebGpuDevice()) return cpu;
  const gpu = await compile("webgpu").catch(() => null);
  if (gpu === null) return cpu;
  const better = await isFasterAndAgrees(gpu, cpu, facts).catch(() => false);
  (better ? cpu : gpu).drop();
  return better ? gpu : cpu;
}

/** Whether one answers as the other does on a picture of stripes, in less time. */
async function isFasterAndAgrees(one, other, facts) {
  const pixels = stripes(facts);
  const timed = async ({ classify }) => {
    const start = performance.now();
    const answer = await classify(pixels);
    return { answer, took: performance.now() - start };
  };
  const [mine, theirs] = [await timed(one), await timed(other)];
  return mine.took < theirs.took && mine.answer.every((p, index) => Math.abs(p - theirs.answer[index]) < SAME_ANSWER);
}

function stripes({ framing: { side, channels } }) {
  return Uint8Array.from({ length: side * side * channels }, (_, place) => (place * 37) % 256);
}

async function run(litert, compiled, { input, output, framing: { side, channels } }, pixels) {
  const given = new litert.Tensor(input === "uint8" ? pixels : Float32Array.from(pixels), [1, side, side, channels]);
  const [made] = await compiled.run([given]);
  given.delete();
  const onHost = await made.moveTo("wasm");
  const values = Float32Array.from(onHost.toTypedArray(), (value) => (value - output.zeroPoint) * output.scale);
  onHost.delete();
  return probabilities(values, output.kind);
}

/** What an output means, as probabilities: of logits their softmax, of a single sigmoid both sides. */
function probabilities(values, kind) {
  if (kind === "sigmoid") return Float32Array.of(1 - values[0], values[0]);
  if (kind !== "logits") return values;
  const largest = Math.max(...values);
  const powers = values.map((value) => Math.exp(value - largest));
  const total = powers.reduce((sum, value) => sum + value, 0);
  return powers.map((value) => value / total);
}

/** Whether a class is as probable as its threshold; a photograph of which none is shows none of the classes. */
export function isAccepted(answer, index, { thresholds }) {
  if (thresholds.length === 0) return true;
  return answer[index] >= Math.fround(thresholds.length === 1 ? thresholds[0] : thresholds[index]);
}

/** LiteRT.js from files whose hashes were checked: modules, loader and WebAssembly run from memory. */
async function loadRuntime(files) {
  const text = async (file) => new TextDecoder().decode(await fetchChecked(file));
  const [module, utils] = await Promise.all([text(files.module), text(files.utils)]);
  const litert = await import(script(module.replace('"@litertjs/wasm-utils"', `"${script(utils)}"`)));
  const { loader, wasm } = (await litert.supportsFeature("relaxedSimd")) ? files.relaxed : files.compatible;
  const [code, wasmBinary] = await Promise.all([text(loader), fetchChecked(wasm)]);
  self.Module = { wasmBinary }; // Emscripten's own way of handing over what it would fetch
  await litert.loadLiteRt(`${script(code)}#.js`);
  return litert;
}

function script(text) {
  return URL.createObjectURL(new Blob([text], { type: "text/javascript" }));
}

async function fetchChecked({ url, integrity }) {
  let answer;
  try {
    answer = await fetch(url, { integrity });
  } catch {
    throw new Error(`${url} cannot be reached, or is not the file that this page was made with.`);
  }
  if (!answer.ok) throw new Error(`${url} is not there (${answer.status}).`);
  return answer.arrayBuffer();
}

// From a photograph to the pixels that the network was judged on: upright, transparency over white, the central
// square less its margin, and Pillow's resize to the last bit. A canvas scales otherwise in every browser.

const FILTERS = {
  bilinear: { support: 1, weigh: (x) => Math.max(0, 1 - Math.abs(x)) },
  bicubic: {
    support: 2,
    weigh(x) {
      const a = -0.5;
      const d = Math.abs(x);
      if (d < 1) return ((a + 2) * d - (a + 3)) * d * d + 1;
      return d < 2 ? (((d - 5) * d + 8) * d - 4) * a : 0;
    },
  },
};
const BITS = 22; // Pillow's weights are integers of so many bits behind the point
const BAND = 256; // rows or columns that are drawn at a time: phones limit the area of a canvas to 16.7 million pixels

/**
 * Decodes a file as the browser does: upright, its color profile ignored as Pillow ignores it.
 * @param {Blob} file
 * @returns {Promise<ImageBitmap>} to be closed
 */
export function decode(file) {
  return createImageBitmap(file, { imageOrientation: "from-image", colorSpaceConversion: "none" });
}

/**
 * The square that the network sees, in pixels of the picture.
 * @param {ImageBitmap} picture
 * @param {{side: number, margin: number}} framing side of the input; pixels that the crop leaves out at its scale
 */
export function centralSquare(picture, { side, margin }) {
  const length = (side / (side + margin)) * Math.min(picture.width, picture.height);
  return { left: (picture.width - length) / 2, top: (picture.height - length) / 2, length };
}

/**
 * The pixels of that square, resized to the network's input.
 * @param {ImageBitmap} picture
 * @param {{side: number, margin: number, interpolation: string, channels: number}} framing
 * @returns {Uint8Array} RGB or gray, side × side × channels
 */
export function squareOf(picture, framing) {
  const { side, interpolation, channels } = framing;
  const { left, top, length } = centralSquare(picture, framing);
  const across = weights(picture.width, left, left + length, side, FILTERS[interpolation]);
  const down = weights(picture.height, top, top + length, side, FILTERS[interpolation]);
  // as Pillow does from version 13 on, where the height shrinks more than twice as much as the width
  const upright = picture.height > side && picture.height - side > 2 * (picture.width - side);
  const [along, over] = upright ? [down, across] : [across, down];
  const stride = side * channels;
  const narrow = shrinkAlong(picture, along, over, upright, channels);
  const square = new Uint8ClampedArray(side * stride);
  for (let place = 0; place < side; place++) {
    const [outStart, outStep] = upright ? [place * stride, channels] : [place * channels, stride];
    resample(narrow, place * channels - over[0].first * stride, stride, over, channels, square, outStart, outStep);
  }
  return new Uint8Array(square.buffer);
}

/** The first of the two passes: each row, or of an upright picture each column, that the second one reads. */
function shrinkAlong(picture, along, over, upright, channels) {
  const size = extent(along);
  const lines = extent(over);
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = upright ? [Math.min(BAND, lines), size] : [size, Math.min(BAND, lines)];
  const [step, lineStep] = upright ? [4 * canvas.width, 4] : [4, 4 * canvas.width];
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.imageSmoothingEnabled = false;
  context.fillStyle = "#fff";
  const stride = along.length * channels;
  const narrow = new Uint8ClampedArray(lines * stride);
  for (let line = 0; line < lines; line += BAND) {
    const [x, y] = upright ? [over[0].first + line, along[0].first] : [along[0].first, over[0].first + line];
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.drawImage(picture, -x, -y);
    const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
    if (channels === 1) toGray(data);
    for (let index = 0; index < Math.min(BAND, lines - line); index++) {
      const start = index * lineStep - along[0].first * step;
      resample(data, start, step, along, channels, narrow, (line + index) * stride, channels);
    }
  }
  return narrow;
}

/** How many pixels of the picture these weights reach. */
function extent(all) {
  return all.at(-1).first + all.at(-1).values.length - all[0].first;
}

/** One line of pixels, resampled: `step` apart in the source from `start` on, `outStep` apart in the target. */
function resample(source, start, step, all, channels, target, outStart, outStep) {
  for (let index = 0; index < all.length; index++) {
    const { first, values } = all[index];
    for (let channel = 0; channel < channels; channel++) {
      let sum = 1 << (BITS - 1);
      for (let k = 0, place = start + first * step + channel; k < values.length; k++, place += step) {
        sum += source[place] * values[k];
      }
      target[outStart + index * outStep + channel] = sum >> BITS;
    }
  }
}

/** For each of `count` pixels of the result, where its weights begin and what they are, as Pillow computes them. */
function weights(size, from, to, count, { support, weigh }) {
  const begin = Math.fround(from); // Pillow hands the box over in single precision
  const scale = Math.fround(Math.fround(to) - begin) / count;
  const stretch = Math.max(scale, 1);
  const reach = support * stretch;
  const all = [];
  for (let index = 0; index < count; index++) {
    const center = begin + (index + 0.5) * scale;
    const first = Math.max(Math.trunc(center - reach + 0.5), 0);
    const last = Math.min(Math.trunc(center + reach + 0.5), size);
    const raw = [];
    for (let x = first; x < last; x++) raw.push(weigh((x - center + 0.5) * (1 / stretch)));
    const total = raw.reduce((sum, value) => sum + value, 0);
    all.push({
      first,
      values: Int32Array.from(raw, (value) => {
        const fixed = (total === 0 ? value : value / total) * (1 << BITS);
        return Math.trunc(fixed < 0 ? fixed - 0.5 : fixed + 0.5);
      }),
    });
  }
  return all;
}

/** Pillow's gray (ITU-R 601-2), in the place of red. */
function toGray(data) {
  for (let place = 0; place < data.length; place += 4) {
    data[place] = (data[place] * 19595 + data[place + 1] * 38470 + data[place + 2] * 7471 + 0x8000) >> 16;
  }
}

package com.example.classifier

import kotlin.math.abs
import kotlin.math.max
import kotlin.math.min

/** How photographs are cropped and resized: what `model.json` says under `framing`. */
data class Framing(val side: Int, val margin: Int, val interpolation: String, val channels: Int)

/** A decoded, upright picture. */
interface Picture {
    val width: Int
    val height: Int

    /** The pixels of this part as ARGB, row by row. */
    fun read(x: Int, y: Int, width: Int, height: Int): IntArray
}

private const val BITS = 22 // Pillow's weights are integers of so many bits behind the point

private class Weights(val first: Int, val values: IntArray)

/**
 * The central square of a picture as the network was judged on it, side × side × channels, 0–255: transparency over
 * white, less its margin, and Pillow's resize to the last bit. `Bitmap.createScaledBitmap` skips pixels.
 */
fun squareOf(picture: Picture, framing: Framing): ByteArray {
    val (side, margin, interpolation, channels) = framing
    val length = side.toDouble() / (side + margin) * min(picture.width, picture.height)
    val left = (picture.width - length) / 2
    val top = (picture.height - length) / 2
    val across = weights(picture.width, left, left + length, side, interpolation)
    val down = weights(picture.height, top, top + length, side, interpolation)
    // as Pillow does from version 13 on, where the height shrinks more than twice as much as the width
    val upright = picture.height > side && picture.height - side > 2 * (picture.width - side)
    val (along, over) = if (upright) down to across else across to down
    val stride = side * channels
    val lines = extent(over)
    val narrow = IntArray(lines * stride)
    for (line in 0 until lines) {
        val place = over[0].first + line
        val pixels =
            if (upright) picture.read(place, along[0].first, 1, extent(along))
            else picture.read(along[0].first, place, extent(along), 1)
        val source = channelsOf(pixels, channels)
        resample(source, -along[0].first * channels, channels, along, channels, narrow, line * stride, channels)
    }
    val square = IntArray(side * stride)
    for (place in 0 until side) {
        val (outStart, outStep) = if (upright) place * stride to channels else place * channels to stride
        resample(narrow, place * channels - over[0].first * stride, stride, over, channels, square, outStart, outStep)
    }
    return ByteArray(square.size) { square[it].toByte() }
}

/** How many pixels of the picture these weights reach. */
private fun extent(all: List<Weights>) = all.last().first + all.last().values.size - all[0].first

/** ARGB over white, as RGB or as Pillow's gray (ITU-R 601-2). */
private fun channelsOf(pixels: IntArray, channels: Int): IntArray {
    val made = IntArray(pixels.size * channels)
    for ((index, pixel) in pixels.withIndex()) {
        val alpha = pixel ushr 24
        val red = overWhite(pixel shr 16 and 0xff, alpha)
        val green = overWhite(pixel shr 8 and 0xff, alpha)
        val blue = overWhite(pixel and 0xff, alpha)
        if (channels == 1) {
            made[index] = (red * 19595 + green * 38470 + blue * 7471 + 0x8000) shr 16
        } else {
            made[3 * index] = red
            made[3 * index + 1] = green
            made[3 * index + 2] = blue
        }
    }
    return made
}

private fun overWhite(value: Int, alpha: Int) = (value * alpha + 255 * (255 - alpha) + 127) / 255

/** One line of pixels, resampled: `step` apart in the source from `start` on, `outStep` apart in the target. */
private fun resample(
    source: IntArray, start: Int, step: Int, all: List<Weights>, channels: Int, target: IntArray, outStart: Int, outStep: Int,
) {
    for ((index, weights) in all.withIndex()) {
        for (channel in 0 until channels) {
            var sum = 1 shl (BITS - 1)
            var place = start + weights.first * step + channel
            for (weight in weights.values) {
                sum += source[place] * weight
                place += step
            }
            target[outStart + index * outStep + channel] = (sum shr BITS).coerceIn(0, 255)
        }
    }
}

/** For each of `count` pixels of the result, where its weights begin and what they are, as Pillow computes them. */
private fun weights(size: Int, from: Double, to: Double, count: Int, interpolation: String): List<Weights> {
    val begin = from.toFloat() // Pillow hands the box over in single precision
    val scale = (to.toFloat() - begin).toDouble() / count
    val stretch = max(scale, 1.0)
    val reach = (if (interpolation == "bicubic") 2 else 1) * stretch
    return List(count) { index ->
        val center = begin + (index + 0.5) * scale
        val first = max((center - reach + 0.5).toInt(), 0)
        val last = min((center + reach + 0.5).toInt(), size)
        val raw = DoubleArray(last - first) { weigh((it + first - center + 0.5) * (1 / stretch), interpolation) }
        val total = raw.sum()
        Weights(first, IntArray(raw.size) {
            val fixed = (if (total == 0.0) raw[it] else raw[it] / total) * (1 shl BITS)
            (if (fixed < 0) fixed - 0.5 else fixed + 0.5).toInt()
        })
    }
}

private fun weigh(x: Double, interpolation: String): Double {
    val a = -0.5
    val d = abs(x)
    return when {
        interpolation == "bilinear" -> max(0.0, 1 - d)
        d < 1 -> ((a + 2) * d - (a + 3)) * d * d + 1
        d < 2 -> (((d - 5) * d + 8) * d - 4) * a
        else -> 0.0
    }
}

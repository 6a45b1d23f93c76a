// Run by the tests: the app's own code on a computer.
//
//   square RAW OUT: one square of a file of RGBA pixels, whose name is WIDTHxHEIGHT
//   classify ASSETS ANSWER gpu|cpu: what the network is given of a black, gray and white pixel, and what comes out

package com.example.classifier

import android.content.Context
import android.content.res.AssetManager
import com.google.ai.edge.litert.CompiledModel
import com.google.ai.edge.litert.TensorBuffer
import java.io.File

class R {
    object layout { const val main = 0 }

    object id { const val photograph = 1; const val take = 2; const val choose = 3; const val answer = 4 }

    object string { const val loading = 5; const val ready = 6; const val looking = 7; const val answer = 8; const val unreadable = 9; const val unloadable = 10; const val none = 11; const val below = 12 }
}

private class RawPicture(file: File) : Picture {
    override val width = file.name.substringBefore("x").toInt()
    override val height = file.name.substringAfter("x").toInt()
    private val bytes = file.readBytes()

    override fun read(x: Int, y: Int, width: Int, height: Int) = IntArray(width * height) {
        val start = 4 * ((y + it / width) * this.width + x + it % width)
        val (red, green, blue, alpha) = List(4) { channel -> bytes[start + channel].toInt() and 0xff }
        (alpha shl 24) or (red shl 16) or (green shl 8) or blue
    }
}

fun main(arguments: Array<String>) {
    when (arguments[0]) {
        "square" -> {
            val (_, raw, out, side, margin) = arguments
            val framing = Framing(side.toInt(), margin.toInt(), arguments[5], arguments[6].toInt())
            File(out).writeBytes(squareOf(RawPicture(File(raw)), framing))
        }
        "classify" -> {
            TensorBuffer.answer = arguments[2]
            CompiledModel.hasGpu = arguments[3] == "gpu"
            val classifier = Classifier.open(Context(AssetManager(File(arguments[1]))))
            val guesses = classifier.classify(byteArrayOf(0, 128.toByte(), 255.toByte()))
            println("${classifier.processor} | ${TensorBuffer.given} | ${classifier.framing}")
            guesses.forEach { println("${it.label} %.4f".format(it.probability) + if (it.isAccepted) "" else " below") }
        }
    }
}

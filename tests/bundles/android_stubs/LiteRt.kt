// The signatures of com.google.ai.edge.litert:litert:2.1.0 that the app uses. The network answers from `answer`, and
// keeps what it was given.

package com.google.ai.edge.litert

import android.content.res.AssetManager

enum class Accelerator { NONE, CPU, GPU, NPU }

class LiteRtException(message: String) : Exception(message)

class TensorBuffer : AutoCloseable {
    fun writeFloat(data: FloatArray) {
        given = data.joinToString(" ") { it.toInt().toString() }
    }

    fun writeInt8(data: ByteArray) {
        given = data.joinToString(" ") { (it.toInt() and 0xff).toString() }
    }

    fun readFloat(): FloatArray = answer.split(" ").map { it.toFloat() }.toFloatArray()

    fun readInt8(): ByteArray = answer.split(" ").map { it.toInt().toByte() }.toByteArray()

    override fun close() = Unit

    companion object {
        var given = ""
        var answer = ""
    }
}

class CompiledModel : AutoCloseable {
    class Options(vararg val accelerators: Accelerator)

    fun createInputBuffers(signatureIndex: Int = 0): List<TensorBuffer> = listOf(TensorBuffer())

    fun createOutputBuffers(signatureIndex: Int = 0): List<TensorBuffer> = listOf(TensorBuffer())

    fun run(inputs: List<TensorBuffer>, outputs: List<TensorBuffer>, signatureIndex: Int = 0) = Unit

    override fun close() = Unit

    companion object {
        var hasGpu = true

        fun create(assetManager: AssetManager, assetName: String, options: Options): CompiledModel {
            if (!hasGpu && Accelerator.GPU in options.accelerators) throw LiteRtException("no GPU")
            return CompiledModel()
        }
    }
}

package com.example.classifier

import android.content.Context
import com.google.ai.edge.litert.Accelerator
import com.google.ai.edge.litert.CompiledModel
import com.google.ai.edge.litert.LiteRtException
import kotlin.math.exp
import org.json.JSONObject

/** A class, its probability, and whether that reaches the class's threshold. */
data class Guess(val label: String, val probability: Float, val isAccepted: Boolean)

/**
 * The network in `assets/model.tflite`. It takes raw pixels 0–255: what it does to them is inside its graph, so
 * nothing may be subtracted or divided here.
 */
class Classifier private constructor(
    private val model: CompiledModel,
    facts: JSONObject,
    private val labels: List<String>,
    /** What it runs on: "GPU" or "CPU". */
    val processor: String,
) : AutoCloseable {
    val framing = facts.getJSONObject("framing").let {
        Framing(it.getInt("side"), it.getInt("margin"), it.getString("interpolation"), it.getInt("channels"))
    }
    private val takesBytes = facts.getString("input") == "uint8"
    private val output = facts.getJSONObject("output")
    private val givesBytes = output.getString("type") == "uint8"
    private val scale = output.getDouble("scale").toFloat()
    private val zeroPoint = output.getInt("zeroPoint")
    private val kind = output.getString("kind")
    private val thresholds = output.getJSONArray("thresholds").let { told ->
        FloatArray(told.length()) { told.getDouble(it).toFloat() }
    }
    private val inputs = model.createInputBuffers()
    private val outputs = model.createOutputBuffers()

    /** The probabilities of all classes for one square of `squareOf`, in the order of the labels. */
    fun probabilities(square: ByteArray): FloatArray {
        if (takesBytes) {
            inputs[0].writeInt8(square) // LiteRT has no unsigned bytes here; they are the same bits
        } else {
            inputs[0].writeFloat(FloatArray(square.size) { (square[it].toInt() and 0xff).toFloat() })
        }
        model.run(inputs, outputs)
        val values =
            if (givesBytes) {
                val bytes = outputs[0].readInt8()
                FloatArray(bytes.size) { ((bytes[it].toInt() and 0xff) - zeroPoint) * scale }
            } else {
                outputs[0].readFloat()
            }
        return when (kind) {
            "sigmoid" -> floatArrayOf(1 - values[0], values[0])
            "logits" -> softmax(values)
            else -> values
        }
    }

    /** The most probable classes of one square, best first; where none is accepted, it shows none of them. */
    fun classify(square: ByteArray, top: Int = 5): List<Guess> =
        probabilities(square)
            .mapIndexed { index, probability -> Guess(labels[index], probability, probability >= threshold(index)) }
            .sortedWith(compareByDescending<Guess> { it.isAccepted }.thenByDescending { it.probability })
            .take(top)

    private fun threshold(index: Int): Float =
        when (thresholds.size) {
            0 -> 0f
            1 -> thresholds[0]
            else -> thresholds[index]
        }

    override fun close() {
        inputs.forEach { it.close() }
        outputs.forEach { it.close() }
        model.close()
    }

    private fun softmax(values: FloatArray): FloatArray {
        val largest = values.max()
        val powers = FloatArray(values.size) { exp(values[it] - largest) }
        val total = powers.sum()
        return FloatArray(values.size) { powers[it] / total }
    }

    companion object {
        /** Opens the network: on the GPU if it computes in float and the phone's GPU takes it, else on the CPU. */
        fun open(context: Context): Classifier {
            val facts = JSONObject(context.assets.open("model.json").bufferedReader().use { it.readText() })
            val labels = context.assets.open("labels.txt").bufferedReader().use { it.readLines() }
            val (model, processor) = compile(context, facts.getString("input") == "float32")
            return Classifier(model, facts, labels, processor)
        }

        private fun compile(context: Context, inFloat: Boolean): Pair<CompiledModel, String> {
            if (inFloat) {
                try {
                    return create(context, Accelerator.GPU) to "GPU"
                } catch (_: LiteRtException) {
                    // no GPU that LiteRT knows, as in an emulator: the CPU computes the same
                }
            }
            return create(context, Accelerator.CPU) to "CPU"
        }

        private fun create(context: Context, accelerator: Accelerator) =
            CompiledModel.create(context.assets, "model.tflite", CompiledModel.Options(accelerator))
    }
}

package com.example.classifier

import android.graphics.Bitmap
import android.graphics.ImageDecoder
import android.net.Uri
import android.os.Bundle
import android.widget.Button
import android.widget.ImageView
import android.widget.TextView
import androidx.activity.ComponentActivity
import androidx.activity.result.PickVisualMediaRequest
import androidx.activity.result.contract.ActivityResultContracts
import androidx.core.content.FileProvider
import java.io.File
import java.io.IOException
import java.util.concurrent.Executors

/** Takes or chooses a photograph and tells what it shows. */
class MainActivity : ComponentActivity() {
    private val worker = Executors.newSingleThreadExecutor() // the network is used by one thread only
    private var classifier: Classifier? = null
    private lateinit var answer: TextView

    private val choosing = registerForActivityResult(ActivityResultContracts.PickVisualMedia()) { uri ->
        if (uri != null) look(uri)
    }
    private val taking = registerForActivityResult(ActivityResultContracts.TakePicture()) { taken ->
        if (taken) look(photograph())
    }

    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        setContentView(R.layout.main)
        answer = findViewById(R.id.answer)
        answer.setText(R.string.loading)
        val take = findViewById<Button>(R.id.take)
        val choose = findViewById<Button>(R.id.choose)
        take.setOnClickListener { taking.launch(photograph()) }
        choose.setOnClickListener {
            choosing.launch(PickVisualMediaRequest(ActivityResultContracts.PickVisualMedia.ImageOnly))
        }
        worker.execute {
            try {
                val opened = Classifier.open(applicationContext)
                classifier = opened
                runOnUiThread {
                    take.isEnabled = true
                    choose.isEnabled = true
                    answer.text = getString(R.string.ready, opened.processor)
                }
            } catch (error: Exception) {
                runOnUiThread { answer.text = getString(R.string.unloadable, error.message) }
            }
        }
    }

    override fun onDestroy() {
        worker.execute { classifier?.close() }
        worker.shutdown()
        super.onDestroy()
    }

    private fun photograph(): Uri =
        FileProvider.getUriForFile(this, "$packageName.photographs", File(cacheDir, "photograph.jpg"))

    private fun look(uri: Uri) {
        answer.setText(R.string.looking)
        worker.execute {
            val network = classifier ?: return@execute
            try {
                val bitmap = decode(uri, network.framing)
                val square = squareOf(BitmapPicture(bitmap), network.framing)
                val begin = System.nanoTime()
                val guesses = network.classify(square)
                val took = (System.nanoTime() - begin) / 1_000_000
                val none = if (guesses.none { it.isAccepted }) listOf(getString(R.string.none)) else emptyList()
                val lines = guesses.map {
                    val line = "%s  %.1f %%".format(it.label, 100 * it.probability)
                    if (it.isAccepted) line else getString(R.string.below, line)
                }
                val text = (none + lines).joinToString("\n")
                runOnUiThread {
                    findViewById<ImageView>(R.id.photograph).setImageBitmap(bitmap)
                    answer.text = getString(R.string.answer, text, took, network.processor)
                }
            } catch (error: IOException) {
                runOnUiThread { answer.text = getString(R.string.unreadable, error.message) }
            }
        }
    }

    /** Upright, and no larger than it need be: at least twice the network's size, as the Python reader does it. */
    private fun decode(uri: Uri, framing: Framing): Bitmap =
        ImageDecoder.decodeBitmap(ImageDecoder.createSource(contentResolver, uri)) { decoder, info, _ ->
            decoder.allocator = ImageDecoder.ALLOCATOR_SOFTWARE // its pixels will be read
            val enough = 2 * (framing.side + framing.margin)
            val shorter = minOf(info.size.width, info.size.height)
            var sample = 1
            while (sample < 8 && shorter / (2 * sample) >= enough) sample *= 2
            decoder.setTargetSampleSize(sample)
        }
}

private class BitmapPicture(private val bitmap: Bitmap) : Picture {
    override val width = bitmap.width
    override val height = bitmap.height

    override fun read(x: Int, y: Int, width: Int, height: Int) =
        IntArray(width * height).also { bitmap.getPixels(it, 0, width, x, y, width, height) }
}

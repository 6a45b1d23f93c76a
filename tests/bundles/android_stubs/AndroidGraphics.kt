package android.graphics

import android.content.ContentResolver
import android.net.Uri

class Bitmap(val width: Int, val height: Int) {
    fun getPixels(pixels: IntArray, offset: Int, stride: Int, x: Int, y: Int, width: Int, height: Int) = Unit
}

class Size(val width: Int, val height: Int)

class ImageDecoder {
    var allocator = ALLOCATOR_SOFTWARE

    fun setTargetSampleSize(sampleSize: Int) = Unit

    class Source

    class ImageInfo(val size: Size)

    fun interface OnHeaderDecodedListener {
        fun onHeaderDecoded(decoder: ImageDecoder, info: ImageInfo, source: Source)
    }

    companion object {
        const val ALLOCATOR_SOFTWARE = 1

        fun createSource(resolver: ContentResolver, uri: Uri) = Source()

        fun decodeBitmap(source: Source, listener: OnHeaderDecodedListener) = Bitmap(1, 1)
    }
}

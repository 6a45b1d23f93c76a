// What the app uses of Android, as far as a compiler must know it; assets are files of a folder.

package android.content

import android.content.res.AssetManager
import java.io.File

open class Context(val assets: AssetManager = AssetManager(File("."))) {
    val applicationContext: Context get() = this
    val contentResolver = ContentResolver()
    val cacheDir = File(".")
    val packageName = ""

    fun getString(id: Int, vararg values: Any?): String = "$id ${values.toList()}"
}

class ContentResolver

package android.widget

import android.graphics.Bitmap

open class View {
    var isEnabled = true

    fun setOnClickListener(action: (View) -> Unit) = Unit
}

open class TextView : View() {
    var text: CharSequence = ""

    fun setText(id: Int) = Unit
}

class Button : TextView()

class ImageView : View() {
    fun setImageBitmap(bitmap: Bitmap) = Unit
}

package androidx.activity

import android.content.Context
import android.os.Bundle
import android.widget.View
import androidx.activity.result.ActivityResultLauncher
import androidx.activity.result.contract.ActivityResultContract

open class ComponentActivity : Context() {
    open fun onCreate(savedInstanceState: Bundle?) = Unit

    open fun onDestroy() = Unit

    fun setContentView(id: Int) = Unit

    fun runOnUiThread(action: () -> Unit) = action()

    @Suppress("UNCHECKED_CAST")
    fun <T : View> findViewById(id: Int): T = View() as T

    fun <I, O> registerForActivityResult(contract: ActivityResultContract<I, O>, callback: (O) -> Unit) =
        ActivityResultLauncher<I>()
}

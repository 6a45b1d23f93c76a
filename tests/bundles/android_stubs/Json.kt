package org.json

/** Objects of texts, numbers, lists of numbers and objects, which is what `model.json` has. */
class JSONObject private constructor(private val values: Map<String, Any>) {
    constructor(text: String) : this(Reader(text).readObject())

    fun getJSONObject(name: String) = get(name) as JSONObject

    fun getString(name: String) = get(name) as String

    fun getInt(name: String) = (get(name) as Double).toInt()

    fun getDouble(name: String) = get(name) as Double

    fun getJSONArray(name: String) = get(name) as JSONArray

    private fun get(name: String) = values[name] ?: throw NoSuchElementException("No value for $name")

    private class Reader(text: String) {
        private val words = Regex("\"[^\"]*\"|[{}\\[\\]:,]|[^\\s{}\\[\\]:,\"]+").findAll(text).map { it.value }.iterator()

        fun readObject(): Map<String, Any> {
            words.next()
            return readMembers()
        }

        private fun readMembers(): Map<String, Any> {
            val members = mutableMapOf<String, Any>()
            var word = words.next()
            while (word != "}") {
                words.next() // the colon
                val value = words.next()
                members[word.trim('"')] =
                    if (value == "{") JSONObject(readMembers())
                    else if (value == "[") JSONArray(readNumbers())
                    else if (value.startsWith("\"")) value.trim('"')
                    else value.toDouble()
                word = words.next().let { if (it == ",") words.next() else it }
            }
            return members
        }

        private fun readNumbers(): List<Double> {
            val numbers = mutableListOf<Double>()
            var word = words.next()
            while (word != "]") {
                if (word != ",") numbers += word.toDouble()
                word = words.next()
            }
            return numbers
        }
    }
}

class JSONArray internal constructor(private val values: List<Double>) {
    fun length() = values.size

    fun getDouble(index: Int) = values[index]
}

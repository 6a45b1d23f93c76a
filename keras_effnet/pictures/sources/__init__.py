"""Where labelled photographs come from: each module reads one kind, and all of them give the same rows."""

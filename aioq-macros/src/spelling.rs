//! What the user meant to write.

/// How much two words must look alike, from 0 to 1, before one is proposed for the other.
const ALIKE: f64 = 0.8;

/// The candidate that looks most like `word`, if any looks like it.
pub(crate) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(word, candidate), candidate))
        .filter(|(likeness, _)| *likeness >= ALIKE)
        .max_by(|(left, _), (right, _)| left.total_cmp(right))
        .map(|(_, candidate)| candidate)
}

/// The end of an error about an unknown word: the nearest known one, or all of them.
pub(crate) fn hint(word: &str, known: &[&str]) -> String {
    match nearest(word, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("known are `{}`", known.join("`, `")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typing_error_finds_its_word() {
        assert_eq!(nearest("timout", ["name", "timeout", "ttl"]), Some("timeout"));
        assert_eq!(nearest("retries", ["rate", "retry"]), Some("retry"));
    }

    #[test]
    fn a_word_like_no_other_lists_them_all() {
        assert_eq!(hint("zzz", &["name", "queue"]), "known are `name`, `queue`");
    }
}

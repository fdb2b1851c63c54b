//! Proposals for misspelt words.

/// Least similarity, from 0 to 1, at which a word is proposed for another.
const ALIKE: f64 = 0.8;

/// The candidate most similar to `word`, if any is similar enough.
pub(crate) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(word, candidate), candidate))
        .filter(|(likeness, _)| *likeness >= ALIKE)
        .max_by(|(left, _), (right, _)| left.total_cmp(right))
        .map(|(_, candidate)| candidate)
}

/// The end of an error about an unknown word: the nearest known word, or all known words.
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

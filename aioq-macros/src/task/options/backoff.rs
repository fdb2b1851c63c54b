//! The delays between attempts: `"10s"`, `"1s..5m"`, `"linear 1s..5m"`.

use super::duration;
use crate::spelling;

/// Growth of the delay. All values in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backoff {
    Fixed(u64),
    Linear { step: u64, cap: u64 },
    Exponential { first: u64, cap: u64 },
}

/// The words that may stand before the delays.
const WORDS: [&str; 3] = ["fixed", "linear", "exponential"];

/// Reads a backoff: `[word] delay` or `[word] first..longest`.
pub(crate) fn parse(text: &str) -> Result<Backoff, String> {
    let (word, delays) = split_word(text.trim())?;
    match (word, delays.split_once("..")) {
        (None | Some("fixed"), None) => duration::any(delays).map(Backoff::Fixed),
        (Some("fixed"), Some(_)) => Err("a fixed backoff has one delay: \"fixed 10s\"".to_owned()),
        (Some(word), None) => Err(format!("a {word} backoff has two delays: \"{word} 1s..5m\"")),
        (word, Some(delays)) => growing(word, delays),
    }
}

fn split_word(text: &str) -> Result<(Option<&str>, &str), String> {
    let Some((word, delays)) = text.split_once(' ') else { return Ok((None, text)) };
    if !word.chars().all(char::is_alphabetic) {
        return Ok((None, text));
    }
    if WORDS.contains(&word) {
        Ok((Some(word), delays.trim()))
    } else {
        Err(format!("unknown backoff `{word}`, {}", spelling::hint(word, &WORDS)))
    }
}

fn growing(word: Option<&str>, (first, cap): (&str, &str)) -> Result<Backoff, String> {
    let (first, cap) = (duration::positive(first)?, duration::positive(cap)?);
    if first > cap {
        return Err("the backoff starts above its longest delay: write the shorter one first".to_owned());
    }
    match word {
        Some("linear") => Ok(Backoff::Linear { step: first, cap }),
        _ => Ok(Backoff::Exponential { first, cap }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_delay_is_fixed() {
        assert_eq!(parse("10s"), Ok(Backoff::Fixed(10_000)));
        assert_eq!(parse("fixed 1m 30s"), Ok(Backoff::Fixed(90_000)));
        assert_eq!(parse("1m 30s"), Ok(Backoff::Fixed(90_000)));
    }

    #[test]
    fn a_range_is_exponential_unless_it_says_linear() {
        let exponential = Backoff::Exponential { first: 1_000, cap: 300_000 };
        assert_eq!(parse("1s..5m"), Ok(exponential));
        assert_eq!(parse("exponential 1s..5m"), Ok(exponential));
        assert_eq!(parse("linear 1s .. 5m"), Ok(Backoff::Linear { step: 1_000, cap: 300_000 }));
    }

    #[test]
    fn a_bad_backoff_says_what_is_wrong() {
        assert!(parse("5m..1s").unwrap_err().contains("shorter one first"));
        assert!(parse("linaer 1s..5m").unwrap_err().contains("did you mean `linear`?"));
        assert!(parse("linear 1s").unwrap_err().contains("two delays"));
        assert!(parse("fixed 1s..2s").unwrap_err().contains("one delay"));
        assert!(parse("1..5m").unwrap_err().contains("needs a unit"));
        assert!(parse("0s..5m").is_err());
    }
}

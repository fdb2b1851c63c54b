//! Escapes any text into one token of a subject, and back.
//!
//! Bytes outside `[A-Za-z0-9_-]` become `=XX` (upper-case hex), `=` itself included. The empty text
//! becomes `=` alone. So a token is never empty, never contains `.`, `*`, `>` or a space, and
//! belongs to one text only.

use std::borrow::Cow;

const HEX: &[u8; 16] = b"0123456789ABCDEF";

/// Appends the token for `text`.
pub(crate) fn push_escaped(token: &mut String, text: &str) {
    if text.is_empty() {
        token.push('=');
    } else if text.bytes().all(is_plain) {
        token.push_str(text);
    } else {
        text.bytes().for_each(|byte| push_byte(token, byte));
    }
}

/// Token for `text`.
pub(crate) fn escape(text: &str) -> String {
    let mut token = String::with_capacity(text.len());
    push_escaped(&mut token, text);
    token
}

/// Text behind a token; `None` for a token that [`escape`] never makes.
pub(crate) fn unescape(token: &str) -> Option<Cow<'_, str>> {
    if token.is_empty() {
        return None;
    }
    if token.bytes().all(is_plain) {
        return Some(Cow::Borrowed(token));
    }
    if token == "=" {
        return Some(Cow::Borrowed(""));
    }
    let text = String::from_utf8(unescape_bytes(token.as_bytes())?).ok()?;
    // One token per text: `=41` is refused, because `A` is written as it is.
    (escape(&text) == token).then_some(Cow::Owned(text))
}

fn unescape_bytes(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(rest.len());
    loop {
        match rest {
            [] => return Some(bytes),
            [b'=', high, low, after @ ..] => {
                bytes.push(hex_digit(*high)? << 4 | hex_digit(*low)?);
                rest = after;
            }
            [byte, after @ ..] => {
                bytes.push(is_plain(*byte).then_some(*byte)?);
                rest = after;
            }
        }
    }
}

fn push_byte(token: &mut String, byte: u8) {
    if is_plain(byte) {
        token.push(char::from(byte));
        return;
    }
    token.push('=');
    token.push(char::from(HEX[usize::from(byte >> 4)]));
    token.push(char::from(HEX[usize::from(byte & 15)]));
}

fn hex_digit(digit: u8) -> Option<u8> {
    HEX.iter().position(|known| *known == digit).and_then(|value| u8::try_from(value).ok())
}

const fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    /// Texts that contain every character of interest in every neighbourhood of two.
    fn texts() -> Vec<String> {
        let mut characters: Vec<char> = (0..=0x17F_u32).filter_map(char::from_u32).collect();
        characters.extend(['\u{20AC}', '\u{1F980}', '\u{FFFD}', '\u{10FFFF}']);
        let mut texts = vec![String::new()];
        texts.extend(characters.iter().map(ToString::to_string));
        let corner = ['=', '.', '*', '>', ' ', 'A', '4', '1', '-', '_', '\u{e9}', '\0', '\r', '\n'];
        for first in corner {
            for second in characters.iter().chain(&corner) {
                texts.push(format!("{first}{second}"));
                texts.push(format!("{second}{first}{second}"));
            }
        }
        texts
    }

    #[test]
    fn every_text_comes_back_from_its_token() {
        for text in texts() {
            assert_eq!(unescape(&escape(&text)).as_deref(), Some(text.as_str()), "{text:?}");
        }
    }

    #[test]
    fn different_texts_have_different_tokens() {
        let texts: HashSet<String> = texts().into_iter().collect();
        let tokens: HashSet<String> = texts.iter().map(|text| escape(text)).collect();
        assert_eq!(texts.len(), tokens.len());
    }

    #[test]
    fn tokens_hold_nothing_that_a_subject_or_a_name_forbids() {
        for text in texts() {
            let token = escape(&text);
            assert!(!token.is_empty());
            assert!(token.bytes().all(|byte| is_plain(byte) || byte == b'='), "{text:?} gave {token:?}");
        }
    }

    #[test]
    fn what_no_text_makes_is_no_token() {
        for token in ["", "=4", "=41", "=2e", "=ZZ", "a.b", "a b", "==", "=FF", "a="] {
            assert_eq!(unescape(token), None, "{token:?}");
        }
    }
}

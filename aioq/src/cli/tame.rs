//! Escapes foreign text for terminals and text logs: line ends, control characters and invisible
//! characters.

use std::borrow::Cow;
use std::fmt::{self, Write};

/// Number of bytes after which a text is cut.
const MOST_SHOWN: usize = 8 * 1024;

/// Makes foreign text safe to print on a terminal.
///
/// A character that would move the cursor, end the line, turn the direction of writing or stay
/// invisible is escaped, as `\u{202e}`. A text that is too long is cut, with a note.
pub(super) fn tame(text: &str) -> Cow<'_, str> {
    if text.len() <= MOST_SHOWN && is_tame(text) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len().min(MOST_SHOWN) + 32);
    // Writing to a string cannot fail.
    let _ = show(&mut shown, format_args!("{text}"));
    Cow::Owned(shown)
}

/// Writes `text`, escaped and cut like [`tame`] does it.
pub(super) fn show(out: &mut dyn Write, text: fmt::Arguments<'_>) -> fmt::Result {
    let mut tamer = Tamer { out, left: MOST_SHOWN, cut: 0, last: ' ' };
    tamer.write_fmt(text)?;
    match tamer.cut {
        0 => Ok(()),
        cut => write!(tamer.out, "… ({cut} more bytes)"),
    }
}

/// Escapes in JSON the characters that [`tame`] escapes; the value stays the same. They occur in
/// strings only, where control characters below DEL are escaped already.
pub(super) fn tame_json(json: &str) -> Cow<'_, str> {
    if is_tame(json.trim_end_matches('\n')) {
        return Cow::Borrowed(json);
    }
    let (mut shown, mut last) = (String::with_capacity(json.len() + 32), ' ');
    for letter in json.chars() {
        if letter > '\u{7e}' && is_wild(last, letter) {
            for unit in letter.encode_utf16(&mut [0; 2]) {
                // Writing to a string cannot fail.
                let _ = write!(shown, "\\u{unit:04x}");
            }
        } else {
            shown.push(letter);
        }
        last = letter;
    }
    Cow::Owned(shown)
}

/// Writer that escapes text piece by piece.
struct Tamer<'a> {
    out: &'a mut dyn Write,
    /// Number of bytes that may still be written.
    left: usize,
    /// Number of bytes left out.
    cut: usize,
    /// The character before the next piece.
    last: char,
}

impl Write for Tamer<'_> {
    fn write_str(&mut self, piece: &str) -> fmt::Result {
        if self.cut == 0 && piece.len() <= self.left && is_plain(piece) {
            self.left -= piece.len();
            self.last = piece.chars().next_back().unwrap_or(self.last);
            return self.out.write_str(piece);
        }
        for letter in piece.chars() {
            if self.cut > 0 || letter.len_utf8() > self.left {
                self.cut += letter.len_utf8();
                continue;
            }
            self.left -= letter.len_utf8();
            if is_wild(self.last, letter) {
                write!(self.out, "{}", letter.escape_default())?;
            } else {
                self.out.write_char(letter)?;
            }
            self.last = letter;
        }
        Ok(())
    }
}

/// True if the text is printable ASCII, as nearly all text is.
fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

fn is_tame(text: &str) -> bool {
    if is_plain(text) {
        return true;
    }
    let mut last = ' ';
    text.chars().all(|letter| {
        let tame = !is_wild(last, letter);
        last = letter;
        tame
    })
}

/// True for a character that acts on the terminal or on the text around it, or that is invisible.
fn is_wild(last: char, letter: char) -> bool {
    match letter {
        // Joiners are part of emoji and of many scripts. After Latin, Greek or Cyrillic letters
        // they only serve to make one name look like another.
        '\u{200c}' | '\u{200d}' => last < '\u{590}',
        '\u{2028}' | '\u{2029}' => true,
        // Marks of the writing direction.
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{206f}' => true,
        // Invisible characters.
        '\u{ad}'
        | '\u{34f}'
        | '\u{115f}'
        | '\u{1160}'
        | '\u{17b4}'
        | '\u{17b5}'
        | '\u{180b}'..='\u{180f}' => true,
        '\u{200b}' | '\u{2060}'..='\u{2065}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}' => true,
        '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' => true,
        '\u{e0000}'..='\u{e0fff}' => true,
        // Control characters: C0, DEL and C1.
        _ => letter.is_control(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_leave_its_line_nor_look_like_other_text() {
        for (text, shown) in [
            ("größe >*", "größe >*"),
            ("a\nb\u{1b}[31m\u{7}\r\t\u{7f}", "a\\nb\\u{1b}[31m\\u{7}\\r\\t\\u{7f}"),
            ("\u{9b}31m\u{85}", "\\u{9b}31m\\u{85}"),
            ("user\u{202e}gpj\u{2066}\u{200f}\u{2028}", "user\\u{202e}gpj\\u{2066}\\u{200f}\\u{2028}"),
            ("ad\u{200b}min\u{ad}\u{feff}\u{e0041}", "ad\\u{200b}min\\u{ad}\\u{feff}\\u{e0041}"),
            ("ad\u{200d}min", "ad\\u{200d}min"),
            ("👩\u{200d}💻 می\u{200c}خواهم é", "👩\u{200d}💻 می\u{200c}خواهم é"),
        ] {
            assert_eq!(tame(text), shown);
            assert_eq!(tame(shown), shown, "twice is once");
        }
    }

    #[test]
    fn long_text_is_cut_at_a_character_and_says_how_much_is_missing() {
        let shown = tame("é").repeat(MOST_SHOWN);
        let shown = tame(&shown);
        assert!(shown.ends_with("é… (8192 more bytes)"), "{}", &shown[shown.len() - 40..]);
        assert!(shown.len() < MOST_SHOWN + 40);
    }

    #[test]
    fn json_says_the_same_afterwards() {
        let value = serde_json::json!({"a\u{202e}\u{e0041}": "b\n\u{1b}\u{9b}\u{7f}é", "ad\u{200d}min": "👩\u{200d}💻"});
        let json = value.to_string();
        let shown = tame_json(&json);
        assert!(shown.contains(r"a\u202e\udb40\udc41") && shown.contains(r"\u009b\u007fé"), "{shown}");
        assert!(is_tame(&shown));
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).ok(), Some(value));
        assert_eq!(tame_json("{\"a\":\"é\"}\n"), "{\"a\":\"é\"}\n");
    }
}

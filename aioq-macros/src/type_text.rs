//! Types as text, in the usual spelling.

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use quote::ToTokens;

/// A type (or any part of one) as text: `Option<Vec<&'a str>>`, not `Option < Vec < & 'a str > >`.
pub(crate) fn type_text(tokens: &impl ToTokens) -> String {
    let mut text = String::new();
    write(tokens.to_token_stream(), &mut text);
    text
}

fn write(tokens: TokenStream, text: &mut String) {
    for token in tokens {
        match token {
            TokenTree::Group(group) => {
                let (open, close) = match group.delimiter() {
                    Delimiter::Parenthesis => ("(", ")"),
                    Delimiter::Bracket => ("[", "]"),
                    Delimiter::Brace => ("{", "}"),
                    Delimiter::None => ("", ""),
                };
                text.push_str(open);
                write(group.stream(), text);
                text.push_str(close);
            }
            TokenTree::Punct(punct) => write_punct(punct.as_char(), text),
            TokenTree::Ident(_) | TokenTree::Literal(_) => {
                let word = token.to_string();
                if text.ends_with(|last: char| last.is_alphanumeric() || last == '_') || word == "as" {
                    text.push(' ');
                }
                text.push_str(&word);
            }
        }
    }
}

fn write_punct(punct: char, text: &mut String) {
    match punct {
        ',' | ';' => {
            text.push(punct);
            text.push(' ');
        }
        '+' | '=' => text.push_str(&format!(" {punct} ")),
        '>' if text.ends_with("- ") || text.ends_with('-') => {
            text.truncate(text.trim_end_matches(['-', ' ']).len());
            text.push_str(" -> ");
        }
        _ => text.push(punct),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(source: &str) -> String {
        type_text(&syn::parse_str::<syn::Type>(source).unwrap())
    }

    #[test]
    fn types_read_as_they_are_written() {
        for written in [
            "Option<Vec<String>>",
            "&'a str",
            "&[u8]",
            "[u8; 32]",
            "std::collections::HashMap<String, (u8, i64)>",
            "Box<dyn Fn(u8) -> u16 + Send>",
            "<Vec<T> as IntoIterator>::Item",
        ] {
            assert_eq!(text(written), written);
        }
    }
}

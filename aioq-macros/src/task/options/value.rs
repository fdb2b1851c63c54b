//! The values that options take.

use proc_macro2::{Span, TokenTree};
use quote::ToTokens as _;
use syn::parse::ParseStream;
use syn::{Error, Expr, LitInt, LitStr, Result, Token};

use super::duration;
use crate::spelling;

/// The longest task, queue or alias name, in bytes.
const MAX_NAME_BYTES: usize = 128;

/// A value and the place where it was written.
pub(crate) struct Spanned<T> {
    pub(crate) value: T,
    pub(crate) span: Span,
}

/// `= "text"`.
pub(crate) fn text(input: ParseStream<'_>, example: &str) -> Result<LitStr> {
    input.parse::<Token![=]>()?;
    literal(input, example)
}

/// `"text"`.
pub(crate) fn literal(input: ParseStream<'_>, example: &str) -> Result<LitStr> {
    if input.peek(LitStr) {
        input.parse()
    } else {
        Err(input.error(format!("expected text, for example \"{example}\"")))
    }
}

/// `= "name"`: not empty, and short enough for a message.
pub(crate) fn name(input: ParseStream<'_>, what: &str, example: &str) -> Result<String> {
    check_name(&text(input, example)?, what)
}

/// The text of a literal that names something.
pub(crate) fn check_name(literal: &LitStr, what: &str) -> Result<String> {
    let name = literal.value();
    if name.is_empty() {
        return Err(Error::new(literal.span(), format!("the {what} is empty")));
    }
    if name.len() > MAX_NAME_BYTES {
        let length = name.len();
        let message = format!("the {what} has {length} bytes; it may have {MAX_NAME_BYTES}");
        return Err(Error::new(literal.span(), message));
    }
    Ok(name)
}

/// `= "30s"`: milliseconds.
pub(crate) fn milliseconds(input: ParseStream<'_>) -> Result<u64> {
    input.parse::<Token![=]>()?;
    if input.peek(LitInt) {
        let number: LitInt = input.parse()?;
        return Err(Error::new(number.span(), duration::missing_unit(&number.to_string())));
    }
    let literal = literal(input, "30s")?;
    duration::positive(&literal.value()).map_err(|message| Error::new(literal.span(), message))
}

/// `(..)`: the tokens in the parentheses.
pub(crate) fn parenthesized<T>(
    input: ParseStream<'_>,
    read: impl FnOnce(ParseStream<'_>) -> Result<T>,
) -> Result<T> {
    let content;
    syn::parenthesized!(content in input);
    let value = read(&content);
    if value.is_err() {
        skip(&content);
    }
    value
}

/// Skips the rest of an option, so that its first error stays the only one.
pub(crate) fn skip(input: ParseStream<'_>) {
    while input.parse::<TokenTree>().is_ok() {}
}

/// `= 5`: a whole number from 0 to `max`.
pub(crate) fn number(input: ParseStream<'_>, what: &str, max: u32) -> Result<u32> {
    input.parse::<Token![=]>()?;
    let message = format!("{what} is a whole number from 0 to {max}");
    let span = input.span();
    let literal: LitInt = input.parse().map_err(|_| Error::new(span, &message))?;
    literal
        .base10_parse::<u32>()
        .ok()
        .filter(|number| *number <= max && literal.suffix().is_empty())
        .ok_or_else(|| Error::new(literal.span(), message))
}

/// `= path::to::function`.
pub(crate) fn function(input: ParseStream<'_>) -> Result<Expr> {
    input.parse::<Token![=]>()?;
    if input.peek(LitStr) {
        return Err(input.error("expected the path of a function, without quotes"));
    }
    match input.parse()? {
        path @ Expr::Path(_) => Ok(path),
        other => Err(Error::new_spanned(
            other,
            "expected the path of a function, for example `MyError::is_transient`",
        )),
    }
}

/// `= "word"`: one of a few.
pub(crate) fn word<T: Copy>(input: ParseStream<'_>, what: &str, words: &[(&str, T)]) -> Result<T> {
    let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
    let literal = text(input, known.first().copied().unwrap_or_default())?;
    let written = literal.value();
    let found = words.iter().find(|(word, _)| *word == written);
    found.map(|(_, value)| *value).ok_or_else(|| {
        let hint = spelling::hint(&written, &known);
        Error::new_spanned(literal.to_token_stream(), format!("unknown {what} `{written}`, {hint}"))
    })
}

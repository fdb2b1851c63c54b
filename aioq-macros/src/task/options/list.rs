//! Lists of options: `key = value, key(..), key`.

use proc_macro2::{Ident, Span, TokenTree};
use syn::ext::IdentExt as _;
use syn::parse::ParseStream;
use syn::{Error, Result, Token};

use crate::errors::Errors;
use crate::spelling;

/// One option that a list may hold.
pub(crate) struct Known {
    pub(crate) name: &'static str,
    /// The whole option as it is written, for errors.
    pub(crate) example: &'static str,
}

/// A list of options: its known keys.
pub(crate) struct List {
    /// Name of one entry in errors: `option`.
    pub(crate) entry: &'static str,
    /// The option that the list belongs to; `None` for the list of the task itself.
    pub(crate) of: Option<&'static str>,
    pub(crate) known: &'static [Known],
    /// Options of other frameworks, with their counterparts here.
    pub(crate) elsewhere: &'static [(&'static str, &'static str)],
}

impl List {
    /// Reads the whole input. Hands each known key, once, to `read`, which reads its value.
    ///
    /// A wrong entry is reported and skipped; the entries after it are still read.
    pub(crate) fn read(
        &self,
        input: ParseStream<'_>,
        errors: &mut Errors,
        mut read: impl FnMut(&str, Span, ParseStream<'_>, &mut Errors) -> Result<()>,
    ) {
        let mut seen = Vec::new();
        while !input.is_empty() {
            let entry = self.key(input, &mut seen).and_then(|(name, span)| {
                self.check_form(name, span, input)?;
                read(name.name, span, input, errors)?;
                expect_end_of_entry(input)
            });
            if errors.note(entry).is_none() {
                skip_entry(input);
            }
            if !input.is_empty() {
                errors.note(input.parse::<Token![,]>());
            }
        }
    }

    fn key(&self, input: ParseStream<'_>, seen: &mut Vec<String>) -> Result<(&Known, Span)> {
        if !input.peek(Ident::peek_any) {
            let first = self.known.first().map_or("", |known| known.example);
            return Err(input.error(format!("expected the name of an option, as in `{first}`")));
        }
        let ident = input.call(Ident::parse_any)?;
        let name = ident.unraw().to_string();
        let Some(known) = self.known.iter().find(|known| known.name == name) else {
            let hint = self.hint(&name);
            return Err(Error::new(ident.span(), format!("unknown {}, {hint}", self.describe(&name))));
        };
        if seen.contains(&name) {
            return Err(Error::new(ident.span(), format!("duplicate {}", self.describe(&name))));
        }
        seen.push(name);
        Ok((known, ident.span()))
    }

    fn hint(&self, name: &str) -> String {
        if let Some((_, cure)) = self.elsewhere.iter().find(|(elsewhere, _)| *elsewhere == name) {
            return format!("write {cure}");
        }
        let names: Vec<&str> = self.known.iter().map(|known| known.name).collect();
        spelling::hint(name, &names)
    }

    fn describe(&self, name: &str) -> String {
        let of = self.of.map(|option| format!(" of `{option}`")).unwrap_or_default();
        format!("{} `{name}`{of}", self.entry)
    }

    /// True if the same token (`=`, `(` or none) follows the key as in its example.
    fn check_form(&self, known: &Known, span: Span, input: ParseStream<'_>) -> Result<()> {
        let rest = known.example.trim_start_matches(known.name).trim_start();
        let right = match rest.chars().next() {
            Some('=') => input.peek(Token![=]),
            // `unique` is written alone, too.
            Some('(') if known.name == "unique" => input.peek(syn::token::Paren) || at_end_of_entry(input),
            Some('(') => input.peek(syn::token::Paren),
            _ => at_end_of_entry(input),
        };
        if right { Ok(()) } else { Err(Error::new(span, format!("write `{}`", known.example))) }
    }
}

fn at_end_of_entry(input: ParseStream<'_>) -> bool {
    input.is_empty() || input.peek(Token![,])
}

fn expect_end_of_entry(input: ParseStream<'_>) -> Result<()> {
    if at_end_of_entry(input) { Ok(()) } else { Err(input.error("expected a comma and the next option")) }
}

fn skip_entry(input: ParseStream<'_>) {
    while !at_end_of_entry(input) && input.parse::<TokenTree>().is_ok() {}
}

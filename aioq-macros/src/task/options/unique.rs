//! `unique(by = to, within = "10m")`.

use proc_macro2::{Group, Ident, Span};
use syn::ext::IdentExt as _;
use syn::parse::{ParseStream, Parser as _};
use syn::punctuated::Punctuated;
use syn::{Error, Result, Token, token};

use super::list::{Known, List};
use super::value;
use crate::errors::Errors;
use crate::spelling;
use crate::task::params::Params;

const PARTS: List = List {
    entry: "part",
    of: Some("unique"),
    known: &[
        Known { name: "by", example: "by = parameter" },
        Known { name: "within", example: "within = \"10m\"" },
    ],
    elsewhere: &[],
};

/// Jobs that count as one.
pub(crate) struct Unique {
    by: Vec<Ident>,
}

impl Unique {
    /// Reads the parts in the parentheses; `None` if one is wrong.
    pub(crate) fn read(input: ParseStream<'_>, option: Span, errors: &mut Errors) -> Option<Self> {
        let mut found = Errors::default();
        let (mut by, mut within) = (None, None);
        PARTS.read(input, &mut found, |part, _, input, _| {
            match part {
                "by" => by = Some(read_by(input)?),
                _ => within = Some(value::milliseconds(input)?),
            }
            Ok(())
        });
        if found.is_empty() && (by.is_none() || within.is_none()) {
            found.push(Error::new(option, "write `unique(by = parameter, within = \"10m\")`"));
        }
        let unique = by.filter(|_| found.is_empty()).map(|by| Self { by });
        errors.append(found);
        unique
    }

    /// Checks that every name in `by` is a parameter that travels.
    pub(crate) fn check(&self, params: &Params) -> Result<()> {
        let mut errors = Errors::default();
        for ident in &self.by {
            errors.note(check_parameter(ident, params));
        }
        errors.into_result()
    }
}

fn read_by(input: ParseStream<'_>) -> Result<Vec<Ident>> {
    input.parse::<Token![=]>()?;
    if input.peek(Ident::peek_any) {
        return Ok(vec![input.call(Ident::parse_any)?]);
    }
    if !input.peek(token::Paren) && !input.peek(token::Bracket) {
        return Err(input.error("`by` is a parameter, or several: `by = (a, b)`"));
    }
    let list: Group = input.parse()?;
    let names = Punctuated::<Ident, Token![,]>::parse_terminated.parse2(list.stream())?;
    if names.is_empty() {
        return Err(Error::new(list.span(), "`by` names at least one parameter"));
    }
    Ok(names.into_iter().collect())
}

fn check_parameter(ident: &Ident, params: &Params) -> Result<()> {
    let name = ident.unraw().to_string();
    if params.wire().any(|param| param.name == name) {
        return Ok(());
    }
    if params.injected_names().any(|injected| injected == name) {
        let message =
            format!("the parameter `{name}` is injected, so it does not tell one message from another");
        return Err(Error::new(ident.span(), message));
    }
    let known: Vec<&str> = params.wire().map(|param| param.name.as_str()).collect();
    let hint = if known.is_empty() { "none travels".to_owned() } else { spelling::hint(&name, &known) };
    Err(Error::new(ident.span(), format!("no parameter is called `{name}`, {hint}")))
}

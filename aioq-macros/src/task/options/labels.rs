//! `labels(team = "growth", tier = 2, beta = true)`.

use proc_macro2::{Ident, TokenStream};
use quote::quote;
use syn::ext::IdentExt as _;
use syn::parse::{Parse as _, ParseStream};
use syn::punctuated::Punctuated;
use syn::{Error, Lit, Result, Token};

use super::value;
use crate::errors::Errors;

/// Names that messages use themselves.
const RESERVED: [&str; 19] = [
    "queue_name",
    "priority",
    "timeout",
    "retry_on_error",
    "max_retries",
    "_retries",
    "delay",
    "schedule_id",
    "kicked_at",
    "run_at",
    "expires_at",
    "first_failed_at",
    "supersedes",
    "tick",
    "parents",
    "awaited",
    "unique_key",
    "traceparent",
    "tracestate",
];

/// One label, as written.
pub(crate) struct Label {
    name: String,
    value: Value,
}

#[derive(Debug, PartialEq)]
enum Value {
    Str(String),
    Int(i64),
    Float(f64),
    Bool(bool),
}

impl Label {
    /// The label as a pair for the runtime.
    pub(crate) fn to_tokens(&self, rt: &TokenStream) -> TokenStream {
        let name = &self.name;
        let value = match &self.value {
            Value::Str(text) => quote!(Str(#text)),
            Value::Int(number) => quote!(Int(#number)),
            Value::Float(number) => quote!(Float(#number)),
            Value::Bool(truth) => quote!(Bool(#truth)),
        };
        quote!((#name, #rt::ConstLabel::#value))
    }
}

/// Reads the labels in the parentheses.
pub(crate) fn read(input: ParseStream<'_>, errors: &mut Errors) -> Vec<Label> {
    let mut labels: Vec<Label> = Vec::new();
    let Some(pairs) = errors.note(Punctuated::<Pair, Token![,]>::parse_terminated_with(input, Pair::parse))
    else {
        value::skip(input);
        return labels;
    };
    for pair in pairs {
        let name = pair.name.unraw().to_string();
        if RESERVED.contains(&name.as_str()) {
            let message = format!("the label `{name}` belongs to aioq: choose another name");
            errors.push(Error::new(pair.name.span(), message));
        } else if labels.iter().any(|label| label.name == name) {
            errors.push(Error::new(pair.name.span(), format!("duplicate label `{name}`")));
        } else {
            labels.push(Label { name, value: pair.value });
        }
    }
    labels
}

struct Pair {
    name: Ident,
    value: Value,
}

impl Pair {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let name = input.call(Ident::parse_any)?;
        input.parse::<Token![=]>()?;
        Ok(Self { name, value: read_value(input)? })
    }
}

fn read_value(input: ParseStream<'_>) -> Result<Value> {
    let minus: Option<Token![-]> = input.parse()?;
    let sign = if minus.is_some() { "-" } else { "" };
    let span = input.span();
    let refused = || Error::new(span, "a label is a text, a whole number, a float or a boolean");
    match (Lit::parse(input).map_err(|_| refused())?, minus) {
        (Lit::Str(text), None) => Ok(Value::Str(text.value())),
        (Lit::Bool(truth), None) => Ok(Value::Bool(truth.value)),
        (Lit::Int(number), _) => format!("{sign}{}", number.base10_digits())
            .parse()
            .map(Value::Int)
            .map_err(|_| Error::new(span, "a whole number of a label fits an `i64`")),
        (Lit::Float(number), _) => {
            format!("{sign}{}", number.base10_digits()).parse().map(Value::Float).map_err(|_| refused())
        }
        _ => Err(refused()),
    }
}

#[cfg(test)]
mod tests {
    use syn::parse::Parser as _;

    use super::*;

    fn parse(source: &str) -> (Vec<Label>, Vec<String>) {
        let mut errors = Errors::default();
        let labels = (|input: ParseStream<'_>| Ok(read(input, &mut errors))).parse_str(source).unwrap();
        (labels, errors.messages())
    }

    #[test]
    fn every_kind_of_value_is_read() {
        let (labels, errors) = parse("team = \"growth\", tier = -2, share = 0.5, beta = true");
        let values: Vec<Value> = labels.into_iter().map(|label| label.value).collect();
        assert_eq!(errors, [""; 0]);
        let expected = [Value::Str("growth".into()), Value::Int(-2), Value::Float(0.5), Value::Bool(true)];
        assert_eq!(values, expected);
    }

    #[test]
    fn the_frameworks_own_names_are_refused() {
        let (labels, errors) = parse("priority = 3, team = \"a\", team = \"b\"");
        assert_eq!(labels.len(), 1);
        assert_eq!(
            errors,
            ["the label `priority` belongs to aioq: choose another name", "duplicate label `team`"]
        );
    }
}

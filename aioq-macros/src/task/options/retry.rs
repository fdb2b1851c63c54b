//! `retry(max = 5, backoff = "1s..5m", jitter, when = path, retry_for = "48h", policy = path)`.

use proc_macro2::{Span, TokenStream};
use quote::quote;
use syn::parse::ParseStream;
use syn::{Error, Expr};

use super::backoff::{self, Backoff};
use super::list::{Known, List};
use super::value::{self, Spanned};
use crate::errors::Errors;

const PARTS: List = List {
    entry: "part",
    of: Some("retry"),
    known: &[
        Known { name: "max", example: "max = 5" },
        Known { name: "backoff", example: "backoff = \"1s..5m\"" },
        Known { name: "jitter", example: "jitter" },
        Known { name: "when", example: "when = MyError::is_transient" },
        Known { name: "retry_for", example: "retry_for = \"48h\"" },
        Known { name: "policy", example: "policy = my_policy" },
    ],
    elsewhere: &[
        ("max_retries", "`max = 5`"),
        ("times", "`max = 5`"),
        ("attempts", "`max = 5`, which counts the retries after the first run"),
        ("max_attempts", "`max = 5`, which counts the retries after the first run"),
        ("delay", "`backoff = \"10s\"`"),
        ("interval", "`backoff = \"10s\"`"),
    ],
};

/// The policy for failed attempts.
#[derive(Default)]
pub(crate) struct Retry {
    max: Option<u32>,
    backoff: Option<Spanned<Backoff>>,
    jitter: bool,
    /// The predicate on the task's own error.
    pub(crate) when: Option<Expr>,
    retry_for: Option<u64>,
    policy: Option<Expr>,
}

impl Retry {
    /// Reads the parts in the parentheses.
    pub(crate) fn read(input: ParseStream<'_>, option: Span, errors: &mut Errors) -> Self {
        let mut retry = Self::default();
        let mut found = Errors::default();
        PARTS.read(input, &mut found, |part, span, input, _| retry.read_part(part, span, input));
        // An unreadable part has an error already, so it is not reported as missing.
        if found.is_empty() {
            errors.note(retry.check(option));
        }
        errors.append(found);
        retry
    }

    fn read_part(&mut self, part: &str, span: Span, input: ParseStream<'_>) -> syn::Result<()> {
        match part {
            "max" => self.max = Some(value::number(input, "`max`", u32::MAX)?),
            "backoff" => self.backoff = Some(Spanned { value: read_backoff(input)?, span }),
            "jitter" => self.jitter = true,
            "when" => self.when = Some(value::function(input)?),
            "retry_for" => self.retry_for = Some(value::milliseconds(input)?),
            _ => self.policy = Some(value::function(input)?),
        }
        Ok(())
    }

    fn check(&self, option: Span) -> syn::Result<()> {
        if self.max.is_none() && self.retry_for.is_none() && self.policy.is_none() {
            return Err(Error::new(option, "`retry` needs an end: write `retry(max = 5)`"));
        }
        match (&self.policy, &self.backoff) {
            (Some(_), Some(backoff)) => {
                Err(Error::new(backoff.span, "`policy` decides the delays: remove `backoff`"))
            }
            _ => Ok(()),
        }
    }

    /// The policy as builder calls of the runtime.
    pub(crate) fn to_tokens(&self, rt: &TokenStream) -> TokenStream {
        let max = self.max.unwrap_or(u32::MAX);
        let backoff = self.backoff.as_ref().map(|backoff| match backoff.value {
            Backoff::Fixed(delay) => quote!(.fixed_ms(#delay)),
            Backoff::Linear { step, cap } => quote!(.linear_ms(#step, #cap)),
            Backoff::Exponential { first, cap } => quote!(.exponential_ms(#first, #cap)),
        });
        let jitter = self.jitter.then(|| quote!(.jitter()));
        let retry_for = self.retry_for.map(|longest| quote!(.retry_for_ms(#longest)));
        let policy = self.policy.as_ref().map(|policy| quote!(.custom(#policy)));
        quote!(#rt::RetryPolicy::new(#max) #backoff #jitter #retry_for #policy)
    }
}

fn read_backoff(input: ParseStream<'_>) -> syn::Result<Backoff> {
    input.parse::<syn::Token![=]>()?;
    if input.peek(syn::LitInt) {
        let number: syn::LitInt = input.parse()?;
        return Err(Error::new(number.span(), super::duration::missing_unit(&number.to_string())));
    }
    let literal = value::literal(input, "1s..5m")?;
    backoff::parse(&literal.value()).map_err(|message| Error::new(literal.span(), message))
}

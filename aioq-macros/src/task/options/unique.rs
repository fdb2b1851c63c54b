//! `unique`, `unique(by = to, within = "10m")`.

use proc_macro2::{Group, Ident, Span, TokenStream};
use quote::quote;
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
        Known { name: "until", example: "until = \"start\"" },
        Known { name: "debounce", example: "debounce = \"5s\"" },
        Known { name: "max", example: "max = \"1m\"" },
    ],
    elsewhere: &[],
};

/// Jobs that count as one.
pub(crate) struct Unique {
    /// Parameters that are compared; all if empty.
    by: Vec<Ident>,
    /// Milliseconds from the kick for which a completed job holds its key.
    within: Option<u64>,
    /// True if the key is free once the body starts.
    pub(crate) until_start: bool,
    /// Milliseconds after the last kick.
    debounce: Option<u64>,
    /// Milliseconds since the first kick, at most.
    max: Option<u64>,
}

/// Words for the moment at which the key becomes free.
const UNTIL: [(&str, bool); 2] = [("start", true), ("end", false)];

impl Unique {
    /// `unique` without parts: by all arguments, until the job ends.
    pub(crate) fn plain() -> Self {
        Self { by: Vec::new(), within: None, until_start: false, debounce: None, max: None }
    }

    /// True if the newest of many kicks runs.
    pub(crate) fn is_debounced(&self) -> bool {
        self.debounce.is_some()
    }

    /// Reads the parts in the parentheses; `None` if one is wrong.
    pub(crate) fn read(input: ParseStream<'_>, option: Span, errors: &mut Errors) -> Option<Self> {
        let mut found = Errors::default();
        let (mut unique, mut is_empty) = (Self::plain(), true);
        PARTS.read(input, &mut found, |part, _, input, _| {
            is_empty = false;
            match part {
                "by" => unique.by = read_by(input)?,
                "within" => unique.within = Some(value::milliseconds(input)?),
                "debounce" => unique.debounce = Some(value::milliseconds(input)?),
                "max" => unique.max = Some(value::milliseconds(input)?),
                _ => unique.until_start = value::word(input, "end of a unique key", &UNTIL)?,
            }
            Ok(())
        });
        if found.is_empty() && is_empty {
            found.push(Error::new(option, "write `unique`, or `unique(by = parameter, within = \"10m\")`"));
        }
        if found.is_empty() {
            found.note(unique.check_parts(option));
        }
        let unique = found.is_empty().then_some(unique);
        errors.append(found);
        unique
    }

    /// Refuses parts that contradict each other.
    fn check_parts(&self, option: Span) -> Result<()> {
        let message = if self.debounce.is_some() && (self.until_start || self.within.is_some()) {
            "a debounced job frees its key when it starts: write `debounce` without `until` and `within`"
        } else if self.until_start && self.within.is_some() {
            "`within` holds the key beyond the end of the job, `until = \"start\"` frees it before: write one"
        } else if self.max.is_some() && self.debounce.is_none() {
            "`max` limits how long `debounce` waits, which is missing"
        } else if self.max.is_some_and(|max| self.debounce.is_some_and(|pause| max < pause)) {
            "`max` is the longest wait since the first kick, so it is at least `debounce`"
        } else {
            return Ok(());
        };
        Err(Error::new(option, message))
    }

    /// The option as a constant of the runtime.
    pub(crate) fn to_tokens(&self, rt: &TokenStream) -> TokenStream {
        let by = self.by.iter().map(|ident| ident.unraw().to_string());
        let by = (!self.by.is_empty()).then(|| quote!(.by(&[#(#by),*])));
        let within = self.within.map(|within| quote!(.within_ms(#within)));
        let until_start = self.until_start.then(|| quote!(.until_start()));
        let debounce = self.debounce.map(|pause| quote!(.debounce_ms(#pause)));
        let max = self.max.map(|max| quote!(.max_ms(#max)));
        quote!(#rt::UniqueOptions::new() #by #within #until_start #debounce #max)
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

//! The attributes of the function, and their places in the generated code.

use proc_macro2::TokenStream;
use quote::{ToTokens as _, quote};
use syn::{Attribute, Meta};

/// The attributes of the function, sorted.
pub(super) struct Attributes {
    /// `#[cfg]`: on every item.
    pub(super) cfg: Vec<Attribute>,
    /// The documentation: on the type and the constructor.
    pub(super) doc: Vec<Attribute>,
    /// `#[deprecated]`: on the constructor.
    pub(super) deprecated: Vec<Attribute>,
    /// Lint levels, `expect` softened to `allow`: on the constructor.
    pub(super) lints: Vec<TokenStream>,
    /// Everything else, lint levels as written included: on the body.
    pub(super) body: Vec<Attribute>,
}

impl Attributes {
    pub(super) fn sort(attributes: Vec<Attribute>) -> Self {
        let lints = attributes.iter().filter_map(lint_level).collect();
        let (cfg, rest) = split(attributes, "cfg");
        let (doc, rest) = split(rest, "doc");
        let (deprecated, body) = split(rest, "deprecated");
        Self { cfg, doc, deprecated, lints, body }
    }
}

fn split(attributes: Vec<Attribute>, word: &str) -> (Vec<Attribute>, Vec<Attribute>) {
    attributes.into_iter().partition(|attribute| attribute.path().is_ident(word))
}

/// A lint level for an item beside the body. Only the body can fulfil an `expect`.
fn lint_level(attribute: &Attribute) -> Option<TokenStream> {
    let path = attribute.path();
    match &attribute.meta {
        Meta::List(list) if path.is_ident("expect") => {
            let lints = &list.tokens;
            Some(quote!(#[allow(#lints)]))
        }
        _ => ["allow", "warn", "deny", "forbid"]
            .iter()
            .any(|level| path.is_ident(level))
            .then(|| attribute.to_token_stream()),
    }
}

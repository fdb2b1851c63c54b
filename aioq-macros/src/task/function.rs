//! The annotated item, with an unparsed body.

use proc_macro2::{Group, TokenStream, TokenTree};
use syn::parse::{Parse, ParseStream};
use syn::{Attribute, Error, Result, Signature, Token, Visibility, token};

/// A function with a body. The body stays a token, so that the compiler reports errors in
/// half-written code.
pub(super) struct Function {
    pub(super) attributes: Vec<Attribute>,
    pub(super) visibility: Visibility,
    pub(super) signature: Signature,
    pub(super) body: TokenTree,
}

impl Parse for Function {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let attributes = input.call(Attribute::parse_outer)?;
        let visibility = input.parse()?;
        if !is_fn(input) {
            let rest: TokenStream = input.parse()?;
            return Err(super::refuse(rest, "`#[task]` goes on a function"));
        }
        let signature: Signature = input.parse()?;
        if input.peek(Token![;]) {
            return Err(Error::new(signature.ident.span(), "a task needs a body"));
        }
        if !input.peek(token::Brace) {
            return Err(input.error("expected the body of the function"));
        }
        Ok(Self { attributes, visibility, signature, body: input.parse::<Group>()?.into() })
    }
}

/// True if `fn` follows, after any qualifiers.
fn is_fn(input: ParseStream<'_>) -> bool {
    let ahead = input.fork();
    while let Ok(token) = ahead.parse::<TokenTree>() {
        match token.to_string().as_str() {
            "fn" => return true,
            "const" | "async" | "unsafe" | "extern" | "safe" | "gen" => {}
            text if text.starts_with('"') => {}
            _ => return false,
        }
    }
    false
}

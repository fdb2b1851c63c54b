//! `#[task]`: from an annotated function to a task.

use proc_macro2::{Ident, TokenStream, TokenTree};
use quote::ToTokens;
use syn::ext::IdentExt as _;
use syn::{Signature, Visibility};

use crate::errors::Errors;
use crate::runtime;

mod attributes;
mod borrow;
mod expand;
mod function;
mod options;
mod output;
mod params;
mod signature;

use attributes::Attributes;
use function::Function;
use options::Options;
use output::Output;
use params::Params;

/// A parsed task.
struct Task {
    /// The path of the runtime.
    rt: TokenStream,
    attributes: Attributes,
    visibility: Visibility,
    signature: Signature,
    body: TokenTree,
    name: String,
    params: Params,
    output: Output,
    options: Options,
}

/// Expands `#[task]`, errors included.
pub(crate) fn task(attr: TokenStream, item: TokenStream) -> TokenStream {
    let mut errors = Errors::default();
    let options = Options::read(attr, &mut errors);
    let Some(function) = errors.note(syn::parse2::<Function>(item)) else {
        return errors.to_compile_errors();
    };
    let mut wrong = Errors::default();
    let task = Task::new(function, options, &mut wrong);
    // A function that cannot be a task is not expanded. A wrong option is left out, so it causes no
    // second error.
    let code = if wrong.is_empty() { expand::expand(&task) } else { TokenStream::new() };
    errors.append(wrong);
    task.options.check(&task.name, task.output.fallible, &task.params, &mut errors);
    let errors = errors.to_compile_errors();
    quote::quote!(#errors #code)
}

impl Task {
    fn new(function: Function, options: Options, errors: &mut Errors) -> Self {
        signature::check(&function.signature, errors);
        let params = Params::read(&function.signature.inputs, errors);
        let output = Output::read(&function.signature, options.fallible, errors);
        Self {
            rt: runtime::path(options.krate.as_ref()),
            attributes: Attributes::sort(function.attributes),
            visibility: function.visibility,
            name: options.name.clone().unwrap_or_else(|| function.signature.ident.unraw().to_string()),
            signature: function.signature,
            body: function.body,
            params,
            output,
            options,
        }
    }

    fn ident(&self) -> &Ident {
        &self.signature.ident
    }

    fn is_blocking(&self) -> bool {
        self.signature.asyncness.is_none()
    }
}

/// An error that underlines all tokens.
fn refuse(tokens: impl ToTokens, message: impl std::fmt::Display) -> syn::Error {
    syn::Error::new_spanned(tokens, message)
}

//! The path to the runtime, in generated code.

use proc_macro_crate::{FoundCrate, crate_name};
use proc_macro2::{Ident, Span, TokenStream};
use quote::quote;
use syn::Path;

/// The path of the runtime: below `krate` if the user named it, else below the dependency called
/// `aioq`.
///
/// Inside aioq itself it is `::aioq` too. That path works in its tests and examples, and in the
/// library, which has `extern crate self as aioq`.
pub(crate) fn path(krate: Option<&Path>) -> TokenStream {
    if let Some(krate) = krate {
        return quote!(#krate::__private);
    }
    let name = match crate_name("aioq") {
        Ok(FoundCrate::Name(name)) => name,
        Ok(FoundCrate::Itself) | Err(_) => "aioq".to_owned(),
    };
    let name = Ident::new(&name, Span::call_site());
    quote!(::#name::__private)
}

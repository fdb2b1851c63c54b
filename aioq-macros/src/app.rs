//! `#[main]`: the binary around the function that describes the app.

use proc_macro2::{Ident, Span, TokenStream};
use quote::quote;
use syn::parse::{ParseStream, Parser};
use syn::{Error, FnArg, ItemFn, Path, Result, ReturnType, Signature, Token};

use crate::errors::Errors;
use crate::runtime;

/// Expands `#[main]`, errors included.
pub(crate) fn main(attr: TokenStream, item: TokenStream) -> TokenStream {
    expand(attr, item).unwrap_or_else(|error| {
        // Without a `main` the compiler would report a second error.
        let (error, main) = (error.to_compile_error(), main_fn(&quote!(::std::process::ExitCode::FAILURE)));
        quote!(#error #main)
    })
}

fn expand(attr: TokenStream, item: TokenStream) -> Result<TokenStream> {
    let krate = read_options.parse2(attr)?;
    let app = syn::parse2::<ItemFn>(item.clone())
        .map_err(|error| if is_fn(&item) { error } else { not_a_fn(&item) })?;
    check(&app.sig).into_result()?;
    Ok(binary(&runtime::path(krate.as_ref()), app))
}

fn read_options(input: ParseStream<'_>) -> Result<Option<Path>> {
    if input.is_empty() {
        return Ok(None);
    }
    if !input.peek(Token![crate]) {
        return Err(
            input.error("`#[main]` has one option, `crate = path`; everything else is set on the `App`")
        );
    }
    input.parse::<Token![crate]>()?;
    input.parse::<Token![=]>()?;
    Path::parse_mod_style(input).map(Some)
}

fn is_fn(item: &TokenStream) -> bool {
    item.clone().into_iter().any(|token| token.to_string() == "fn")
}

fn not_a_fn(item: &TokenStream) -> Error {
    Error::new_spanned(item, "`#[main]` goes on a function: `fn app() -> App { .. }`")
}

fn check(signature: &Signature) -> Errors {
    let mut errors = Errors::default();
    if let Some(asyncness) = signature.asyncness {
        let message =
            "`#[main]` goes on a plain `fn`: everything in App is lazy; use `.state_with(async || ..)`";
        errors.push(Error::new_spanned(asyncness, message));
    }
    if !signature.generics.params.is_empty() {
        errors.push(Error::new_spanned(&signature.generics, "the function of `#[main]` cannot be generic"));
    }
    if let Some(argument) = signature.inputs.first() {
        errors.push(refuse_argument(argument));
    }
    if matches!(signature.output, ReturnType::Default) {
        let message = "the function of `#[main]` returns the app: add `-> App`";
        errors.push(Error::new_spanned(&signature.ident, message));
    }
    errors
}

fn refuse_argument(argument: &FnArg) -> Error {
    let message = "the function of `#[main]` takes no arguments: the command line is aioq's own; read \
                   settings from the environment";
    Error::new_spanned(argument, message)
}

fn binary(rt: &TokenStream, mut app: ItemFn) -> TokenStream {
    if app.sig.ident == "main" {
        app.sig.ident = Ident::new("__aioq_app", app.sig.ident.span());
        app.vis = syn::Visibility::Inherited;
        let name = &app.sig.ident;
        let main = main_fn(&quote!(#app #rt::main(#name)));
        return main;
    }
    let name = &app.sig.ident;
    let main = main_fn(&quote!(#rt::main(#name)));
    quote!(#app #main)
}

fn main_fn(body: &TokenStream) -> TokenStream {
    let name = Ident::new("main", Span::call_site());
    quote! {
        fn #name() -> ::std::process::ExitCode {
            #body
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(item: TokenStream) -> String {
        main(TokenStream::new(), item).to_string()
    }

    #[test]
    fn the_function_keeps_its_name() {
        let code = expanded(quote!(
            fn app() -> App {
                App
            }
        ));
        assert!(code.contains("fn app () -> App") && code.contains("fn main ()"), "{code}");
    }

    #[test]
    fn a_function_called_main_is_renamed() {
        let code = expanded(quote!(
            fn main() -> App {
                App
            }
        ));
        assert_eq!(code.matches("fn main ()").count(), 1, "{code}");
    }

    #[test]
    fn an_async_function_is_sent_to_state_with() {
        let code = expanded(quote!(
            async fn app() -> App {
                App
            }
        ));
        assert!(code.contains("state_with"), "{code}");
    }
}

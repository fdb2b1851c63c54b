//! `impl RunHere`: a task that needs no worker runs where it is awaited.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};

use super::{arguments, at, call_body, local};
use crate::task::Task;

/// The implementation, for a task without injected parameters.
pub(super) fn implementation(task: &Task) -> TokenStream {
    if !task.params.all_travel() {
        return TokenStream::new();
    }
    let rt = &task.rt;
    let ident = task.ident();
    let (args, returned) = (local("args"), &task.output.returned);
    let variables = arguments::all_variables(task);
    let given: Vec<TokenStream> =
        task.params.wire().enumerate().map(|(index, wire)| arguments::given(wire, index)).collect();
    let call = call_body(task, &given);
    let body = quote!(let #variables = #args; #call);
    let body = if task.is_blocking() { quote!(#rt::blocking_here(move || { #body }).await) } else { body };
    let run_here = quote_spanned! {at(ident.span())=>
        fn run_here(
            #args: <Self as #rt::Task>::Args,
        ) -> impl ::core::future::Future<Output = <Self as #rt::RunHere>::Return> + ::core::marker::Send {
            async move { #body }
        }
    };
    let returned = quote_spanned!(at(ident.span())=> type Return = #returned;);
    quote! {
        #[automatically_derived]
        impl #rt::RunHere for #ident {
            #returned

            #run_here
        }
    }
}

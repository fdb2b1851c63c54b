//! The generated code: a type, a constructor, and the implementations for the runtime.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{quote, quote_spanned};

use super::Task;

mod arguments;
mod caller;
mod checks;
mod here;
mod run;

/// The whole expansion of a task.
pub(super) fn expand(task: &Task) -> TokenStream {
    let Task { rt, attributes, .. } = task;
    let ident = task.ident();
    let cfg = &attributes.cfg;
    let the_type = caller::the_type(task);
    let constructor = caller::constructor(task);
    let checks = checks::checks(task);
    let implementations = [
        caller::implementation(task),
        caller::following(task),
        run::implementation(task),
        here::implementation(task),
    ];
    quote! {
        #the_type
        #constructor
        #(#cfg)*
        const _: () = {
            #checks
            #(#implementations)*
            #rt::inventory::submit! { #rt::TaskDef::of::<#ident>() }
        };
    }
}

/// A hygienic name of a local variable: the user's code can neither see nor shadow it.
fn local(name: &str) -> Ident {
    local_at(name, Span::mixed_site())
}

/// The same, with errors reported at a span of the user's code.
fn local_at(name: &str, place: Span) -> Ident {
    Ident::new(&format!("__aioq_{name}"), at(place))
}

/// Generated code with errors reported at a span of the user's code.
fn at(place: Span) -> Span {
    Span::mixed_site().located_at(place)
}

/// A call of the body.
fn call_body(task: &Task, arguments: &[TokenStream]) -> TokenStream {
    let ident = task.ident();
    let wait = (!task.is_blocking()).then(|| quote!(.await));
    quote_spanned!(at(ident.span())=> #ident::call(#(#arguments),*) #wait)
}

//! The generated code: a type, a constructor, and what the runtime needs to know.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{quote, quote_spanned};

use super::Task;

mod arguments;
mod caller;
mod checks;
mod here;
mod run;

/// All of it.
pub(super) fn expand(task: &Task) -> TokenStream {
    let Task { rt, attributes, .. } = task;
    let ident = task.ident();
    let cfg = &attributes.cfg;
    let the_type = caller::the_type(task);
    let constructor = caller::constructor(task);
    let checks = checks::checks(task);
    let implementations =
        [caller::implementation(task), run::implementation(task), here::implementation(task)];
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

/// A name for a local of the generated code that no code of the user can see or hide.
fn local(name: &str) -> Ident {
    local_at(name, Span::mixed_site())
}

/// The same, with errors about it at a place in the user's code.
fn local_at(name: &str, place: Span) -> Ident {
    Ident::new(&format!("__aioq_{name}"), at(place))
}

/// Generated code whose errors belong to a place in the user's code.
fn at(place: Span) -> Span {
    Span::mixed_site().located_at(place)
}

/// A call of the body.
fn call_body(task: &Task, arguments: &[TokenStream]) -> TokenStream {
    let ident = task.ident();
    let wait = (!task.is_blocking()).then(|| quote!(.await));
    quote_spanned!(at(ident.span())=> #ident::call(#(#arguments),*) #wait)
}

//! The caller's side: the type, the body as a method, the constructor.

use proc_macro2::{Ident, TokenStream};
use quote::{quote, quote_spanned};

use super::arguments::{params, span_of, type_of};
use super::{at, local};
use crate::task::Task;
use crate::task::params::{Form, Param, Wire};

/// The number of parameters above which clippy asks for a struct.
const CLIPPY_PARAMETERS: usize = 7;

/// The type that carries the task, and its body.
pub(super) fn the_type(task: &Task) -> TokenStream {
    let (ident, visibility, name) = (task.ident(), &task.visibility, &task.name);
    let (cfg, doc) = (&task.attributes.cfg, documentation(task));
    let body = body(task);
    quote! {
        #(#cfg)*
        #doc
        #[allow(non_camel_case_types)]
        #visibility struct #ident {}

        #(#cfg)*
        impl #ident {
            /// The name that messages carry.
            #[allow(dead_code)]
            #visibility const NAME: &'static str = #name;

            #body
        }
    }
}

fn documentation(task: &Task) -> TokenStream {
    let doc = &task.attributes.doc;
    if doc.is_empty() {
        let line = format!("The task `{}`.", task.name);
        return quote!(#[doc = #line]);
    }
    quote!(#(#doc)*)
}

fn body(task: &Task) -> TokenStream {
    let (visibility, attributes, body) = (&task.visibility, &task.attributes.body, &task.body);
    let mut signature = task.signature.clone();
    signature.ident = Ident::new("call", signature.ident.span());
    signature.inputs = task.params.iter().map(|param| syn::FnArg::Typed(param.declaration.clone())).collect();
    let doc = format!(
        "The body of [`{}()`], run here: every parameter is given, the injected ones too.",
        task.ident()
    );
    quote! {
        #[doc = #doc]
        #(#attributes)*
        #visibility #signature #body
    }
}

/// The function that binds the task to arguments.
pub(super) fn constructor(task: &Task) -> TokenStream {
    let Task { rt, visibility, attributes, .. } = task;
    let ident = task.ident();
    let (cfg, doc, lints, deprecated) =
        (&attributes.cfg, &attributes.doc, &attributes.lints, &attributes.deprecated);
    let crowded = task.params.wire().count() > CLIPPY_PARAMETERS;
    let crowded = crowded.then(|| quote!(#[allow(clippy::too_many_arguments)]));
    let wire: Vec<(&Param, &Wire)> = wire(task).collect();
    let (params, values) = (taken(&wire), given(&wire));
    quote! {
        #(#cfg)*
        #(#doc)*
        #(#deprecated)*
        #(#lints)*
        #crowded
        #[allow(dead_code)]
        #visibility fn #ident(#(#params),*) -> #rt::Call<#ident> {
            #rt::Call::new((#(#values,)*))
        }
    }
}

/// The parameters of a function that takes arguments from the caller.
fn taken(wire: &[(&Param, &Wire)]) -> Vec<TokenStream> {
    let taken = wire.iter().map(|(param, wire)| {
        let (name, ty) = (taken_name(param), taken_type(wire));
        quote!(#name: #ty)
    });
    taken.collect()
}

/// The arguments that such a function binds.
fn given(wire: &[(&Param, &Wire)]) -> Vec<TokenStream> {
    let given = wire.iter().map(|(param, wire)| {
        let name = taken_name(param);
        if wire.converted { quote!(::core::convert::Into::into(#name)) } else { quote!(#name) }
    });
    given.collect()
}

fn wire(task: &Task) -> impl Iterator<Item = (&Param, &Wire)> {
    task.params.iter().filter_map(|param| param.wire().map(|wire| (param, wire)))
}

/// The name of the constructor. It is generated, so no lint reports the user's own name twice.
fn taken_name(param: &Param) -> Ident {
    let mut name = param.ident.clone();
    name.set_span(at(name.span()));
    name
}

fn taken_type(wire: &Wire) -> TokenStream {
    let owned = &wire.owned;
    if wire.converted { quote!(impl ::core::convert::Into<#owned>) } else { quote!(#owned) }
}

/// `impl Task`: the options, and how arguments become a message.
pub(super) fn implementation(task: &Task) -> TokenStream {
    let Task { rt, name, .. } = task;
    let ident = task.ident();
    let args = task.params.wire().map(|wire| &wire.owned);
    let output = task.output.success(rt);
    let bare = if task.params.all_travel() { quote!(Plain) } else { quote!(WorkerOnly) };
    // Spanned as the name of the function: there a type more private than the function is reported.
    let types = quote_spanned! {at(ident.span())=>
        type Args = (#(#args,)*);
        type Output = #output;
        type Bare = #rt::#bare;
    };
    let (options, params) = (task.options.to_tokens(rt), params(task));
    let (values, out) = (local("args"), local("out"));
    let encoded = encode_from(task, 0, &values, &out);
    quote! {
        #[automatically_derived]
        impl #rt::Task for #ident {
            const NAME: &'static str = #name;
            #types
            const OPTIONS: #rt::TaskOptions = #options;
            #params

            fn encode(#values: &Self::Args, #out: &mut #rt::ArgsEncoder) -> #rt::Result<()> {
                #(#encoded)*
                ::core::result::Result::Ok(())
            }
        }
    }
}

/// Encodes the arguments from the one at `first` on. `values` is a tuple of these.
fn encode_from(task: &Task, first: usize, values: &Ident, out: &Ident) -> Vec<TokenStream> {
    let encoded = task.params.wire().enumerate().skip(first).map(|(place, wire)| {
        let (name, span) = (&wire.name, span_of(wire));
        let index = syn::Index::from(place - first);
        let (value, constant) = (quote!(&#values.#index), type_of(place));
        match wire.form {
            Form::Value => quote_spanned!(span=> #constant.encode(#out, #name, #value)?;),
            Form::Str => quote_spanned!(span=> #out.arg(#name, #value)?;),
            Form::ByteSlice | Form::ByteBuf => quote_spanned!(span=> #out.bytes(#name, #value)?;),
        }
    });
    encoded.collect()
}

/// `impl TakesFirst`, and `with`, for a task of several arguments: in a flow, the first one comes
/// from another job.
pub(super) fn following(task: &Task) -> TokenStream {
    let Task { rt, visibility, .. } = task;
    let wire: Vec<(&Param, &Wire)> = wire(task).collect();
    let Some(([first], rest @ [_, ..])) = wire.split_first_chunk::<1>() else {
        return TokenStream::new();
    };
    let ident = task.ident();
    let (first, types) = (&first.1.owned, rest.iter().map(|(_, wire)| &wire.owned));
    let types = quote_spanned! {at(ident.span())=>
        type First = #first;
        type Rest = (#(#types,)*);
    };
    let (params, given) = (taken(rest), given(rest));
    let crowded = (rest.len() > CLIPPY_PARAMETERS).then(|| quote!(#[allow(clippy::too_many_arguments)]));
    let (values, out) = (local("args"), local("out"));
    let encoded = encode_from(task, 1, &values, &out);
    let doc = format!("[`{ident}()`] for a flow: the first argument comes from the job before.");
    quote! {
        #[automatically_derived]
        impl #rt::TakesFirst for #ident {
            #types

            fn encode_rest(#values: &Self::Rest, #out: &mut #rt::ArgsEncoder) -> #rt::Result<()> {
                #(#encoded)*
                ::core::result::Result::Ok(())
            }
        }

        impl #ident {
            #[doc = #doc]
            #crowded
            #[allow(dead_code)]
            #visibility fn with(#(#params),*) -> #rt::Rest<#ident> {
                #rt::Rest::new((#(#given,)*))
            }
        }
    }
}

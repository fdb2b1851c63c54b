//! Arguments between the message and the body.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::spanned::Spanned as _;

use super::local;
use crate::task::Task;
use crate::task::params::{DefaultValue, Form, Wire};
use crate::type_text::type_text;

/// Span of errors about the type of an argument.
pub(super) fn span_of(wire: &Wire) -> Span {
    super::at(wire.owned.span())
}

/// The local variable of the argument at this index.
fn variable(index: usize) -> Ident {
    format_ident!("__aioq_argument_{index}", span = Span::mixed_site())
}

/// The local variables of all arguments, as a tuple.
pub(super) fn all_variables(task: &Task) -> TokenStream {
    let variables = (0..task.params.wire().count()).map(variable);
    quote!((#(#variables,)*))
}

/// The expression that the body gets for the argument at this index.
pub(super) fn given(wire: &Wire, index: usize) -> TokenStream {
    let variable = variable(index);
    if wire.lent { quote!(&#variable) } else { quote!(#variable) }
}

/// The constant that encodes and decodes the argument at this index.
pub(super) fn type_of(index: usize) -> Ident {
    format_ident!("__AIOQ_ARGUMENT_{index}", span = Span::mixed_site())
}

/// A constant for the type of each argument; text and bytes need none.
pub(super) fn types(task: &Task) -> TokenStream {
    let rt = &task.rt;
    let values = task.params.wire().enumerate().filter(|(_, wire)| wire.form == Form::Value);
    let types = values.map(|(index, wire)| {
        let (constant, owned) = (type_of(index), &wire.owned);
        quote_spanned! {span_of(wire)=>
            const #constant: #rt::ArgumentType<#owned> = #rt::argument_type::<#owned>();
        }
    });
    quote!(#(#types)*)
}

/// `const PARAMS`: names, types, and defaults for a message without them.
pub(super) fn params(task: &Task) -> TokenStream {
    let rt = &task.rt;
    let params = task.params.iter().filter_map(|param| {
        let wire = param.wire()?;
        let (name, ty) = (&wire.name, type_text(&*param.declaration.ty));
        Some(match wire.default {
            None => quote!(#rt::Param::required(#name, #ty)),
            Some(_) => quote!(#rt::Param::with_default(#name, #ty)),
        })
    });
    quote!(const PARAMS: &'static [#rt::Param] = &[#(#params),*];)
}

/// Reads every argument into its variable. `source` makes the reader, which is dropped afterwards.
pub(super) fn decode_all(task: &Task, source: &TokenStream) -> TokenStream {
    let open = open(task, source);
    if task.params.wire().next().is_none() {
        return quote!({ #open });
    }
    let lines = task.params.wire().enumerate().map(|(index, wire)| {
        let (variable, ty, value) = (variable(index), read_type(task, wire), read(task, wire, index));
        let own = (wire.form == Form::ByteBuf).then(|| quote!(let #variable = #variable.into_vec();));
        quote_spanned!(span_of(wire)=> let #variable: #ty = #value; #own)
    });
    let variables = all_variables(task);
    quote!(let #variables = { #open #(#lines)* #variables };)
}

/// Reads every argument and drops it.
pub(super) fn check_all(task: &Task, source: &TokenStream) -> TokenStream {
    let open = open(task, source);
    let lines = task.params.wire().enumerate().map(|(index, wire)| {
        let (ty, value) = (read_type(task, wire), read(task, wire, index));
        quote_spanned!(span_of(wire)=> let _: #ty = #value;)
    });
    quote!(#open #(#lines)*)
}

fn open(task: &Task, source: &TokenStream) -> TokenStream {
    let (rt, reader) = (&task.rt, local("reader"));
    let mutable = task.params.wire().next().map(|_| quote!(mut));
    quote!(let #mutable #reader = #source(<Self as #rt::Task>::PARAMS)?;)
}

/// The type to read.
fn read_type(task: &Task, wire: &Wire) -> TokenStream {
    let (rt, owned) = (&task.rt, &wire.owned);
    match wire.form {
        Form::Value => quote!(#owned),
        Form::Str => quote!(#rt::Str<'_>),
        Form::ByteSlice => quote!(#rt::ByteSlice<'_>),
        Form::ByteBuf => quote!(#rt::ByteBuf),
    }
}

fn read(task: &Task, wire: &Wire, index: usize) -> TokenStream {
    let reader = local("reader");
    let span = span_of(wire);
    let (from, place) = if wire.form == Form::Value {
        let constant = type_of(index);
        (quote!(#constant), quote!(&mut #reader, #index))
    } else {
        (quote!(#reader), quote!(#index))
    };
    match &wire.default {
        None => quote_spanned!(span=> #from.required(#place)?),
        Some(default) => {
            let value = default_value(task, wire, default);
            quote_spanned!(span=> #from.or_else(#place, || #value)?)
        }
    }
}

/// The default as the type to read, converted from the form in which a caller gives the argument.
fn default_value(task: &Task, wire: &Wire, default: &DefaultValue) -> TokenStream {
    let (rt, owned) = (&task.rt, &wire.owned);
    let value = match default {
        DefaultValue::OfType => quote!(<#owned as ::core::default::Default>::default()),
        DefaultValue::Given(value) if wire.converted => {
            quote!(<#owned as ::core::convert::From<_>>::from(#value))
        }
        DefaultValue::Given(value) => value.clone(),
    };
    match wire.form {
        Form::Value => value,
        Form::Str => quote!(<#rt::Str<'_> as ::core::convert::From<#owned>>::from(#value)),
        Form::ByteSlice => quote!(<#rt::ByteSlice<'_> as ::core::convert::From<#owned>>::from(#value)),
        Form::ByteBuf => quote!(<#rt::ByteBuf as ::core::convert::From<#owned>>::from(#value)),
    }
}

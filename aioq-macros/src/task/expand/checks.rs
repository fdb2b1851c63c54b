//! The types of a task as constants, each checked at the place where the type is written.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{quote, quote_spanned};

use super::{arguments, at};
use crate::task::Task;

/// All checks.
pub(super) fn checks(task: &Task) -> TokenStream {
    let rt = &task.rt;
    let arguments = arguments::types(task);
    let (output, success) = (output_type(), task.output.success(rt));
    let output = quote_spanned! {at(task.output.span)=>
        const #output: #rt::OutputType<#success> = #rt::output_type::<#success>();
    };
    let hidden_result = (!task.output.fallible).then(|| hidden_result(task));
    quote!(#arguments #output #hidden_result)
}

/// The constant that encodes the result.
pub(super) fn output_type() -> Ident {
    Ident::new("__AIOQ_OUTPUT", Span::mixed_site())
}

/// A `Result` under another name would store an `Err` as a success.
fn hidden_result(task: &Task) -> TokenStream {
    let (rt, returned) = (&task.rt, &task.output.returned);
    let message = format!(
        "the return type of task `{}` is a Result behind an alias: add `fallible` to #[task(..)], or an Err would be \
         stored as a success",
        task.ident()
    );
    quote_spanned! {at(task.output.span)=>
        const _: () = {
            #[allow(unused_imports)]
            use #rt::IsNotResult as _;
            ::core::assert!(!#rt::ResultProbe::<#returned>::IS_RESULT, #message)
        };
    }
}

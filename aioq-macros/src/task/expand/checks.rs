//! What the compiler checks about the types, each at the place where the type is written.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};

use super::{arguments, at};
use crate::task::Task;

/// All checks.
pub(super) fn checks(task: &Task) -> TokenStream {
    let rt = &task.rt;
    let arguments = task.params.wire().map(|wire| {
        let owned = &wire.owned;
        quote_spanned!(arguments::span_of(wire)=> #rt::assert_argument::<#owned>();)
    });
    let success = task.output.success(rt);
    let output = quote_spanned!(at(task.output.span)=> #rt::assert_output::<#success>(););
    let hidden_result = (!task.output.fallible).then(|| hidden_result(task));
    quote! {
        const _: () = { #(#arguments)* #output };
        #hidden_result
    }
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

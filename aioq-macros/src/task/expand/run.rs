//! `impl RunTask`: a run by the worker.

use proc_macro2::{Ident, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::spanned::Spanned as _;

use super::{arguments, at, call_body, checks, local, local_at};
use crate::task::Task;
use crate::task::params::Source;

/// The whole implementation.
pub(super) fn implementation(task: &Task) -> TokenStream {
    let rt = &task.rt;
    let ident = task.ident();
    let blocking = task.is_blocking();
    let needs = needs(task);
    let source = local("arguments");
    let check = arguments::check_all(task, &quote!(#source.reader));
    let ctx = local("ctx");
    let run = if blocking { run_blocking(task, &ctx) } else { run_async(task, &ctx) };
    // Spanned as the function's name, which is where a future that is not `Send` is reported.
    let run = quote_spanned! {at(ident.span())=>
        fn run(
            #ctx: #rt::Context,
        ) -> impl ::core::future::Future<Output = #rt::TaskResult<#rt::Payload>> + ::core::marker::Send {
            async move { #run }
        }
    };
    quote! {
        #[automatically_derived]
        impl #rt::RunTask for #ident {
            const BLOCKING: bool = #blocking;
            const LOCATION: #rt::Location = #rt::Location::new(::core::file!(), ::core::line!());
            #needs

            fn check(#source: &#rt::Arguments) -> #rt::TaskResult<()> {
                #check
                ::core::result::Result::Ok(())
            }

            #run
        }
    }
}

fn needs(task: &Task) -> TokenStream {
    let rt = &task.rt;
    let needs = task.params.iter().filter_map(|param| match &param.source {
        Source::State(ty) => Some(quote_spanned!(at(ty.span())=> #rt::Need::state::<#ty>())),
        Source::Extractor(ty) => Some(quote_spanned!(at(ty.span())=> #rt::Need::extractor::<#ty>())),
        Source::Wire(_) | Source::Context => None,
    });
    quote!(const NEEDS: &'static [#rt::Need] = &[#(#needs),*];)
}

fn run_async(task: &Task, ctx: &Ident) -> TokenStream {
    let arguments = arguments::decode_all(task, &quote!(#ctx.arguments));
    let (states, extractors) = (states(task, ctx), extractors(task, ctx));
    let finish = finish(task, &quote!(&#ctx));
    quote!(#arguments #states #extractors #finish)
}

/// Extracts the injected values first, because extraction is async. The rest runs on the blocking
/// pool.
fn run_blocking(task: &Task, ctx: &Ident) -> TokenStream {
    let rt = &task.rt;
    let arguments = arguments::decode_all(task, &quote!(#ctx.arguments));
    let (states, extractors) = (states(task, ctx), extractors(task, ctx));
    let finish = finish(task, &quote!(#ctx));
    quote! {
        #extractors
        #ctx.blocking(move |#ctx: &#rt::Context| { #arguments #states #finish }).await
    }
}

fn injected(index: usize) -> Ident {
    format_ident!("__aioq_injected_{index}", span = proc_macro2::Span::mixed_site())
}

fn states(task: &Task, ctx: &Ident) -> TokenStream {
    let states = task.params.iter().enumerate().filter_map(|(index, param)| {
        let Source::State(ty) = &param.source else { return None };
        let variable = injected(index);
        Some(quote_spanned!(at(ty.span())=> let #variable: &#ty = #ctx.state::<#ty>()?;))
    });
    quote!(#(#states)*)
}

fn extractors(task: &Task, ctx: &Ident) -> TokenStream {
    let rt = &task.rt;
    let extractors = task.params.iter().enumerate().filter_map(|(index, param)| {
        let Source::Extractor(ty) = &param.source else { return None };
        let variable = injected(index);
        Some(quote_spanned! {at(ty.span())=>
            let #variable: #ty = <#ty as #rt::FromContext>::from_context(&#ctx).await?;
        })
    });
    quote!(#(#extractors)*)
}

/// Calls the body, and encodes its return value. `context` is an expression of type `&Context`.
fn finish(task: &Task, context: &TokenStream) -> TokenStream {
    let (rt, place) = (&task.rt, task.output.span);
    let (output, value) = (local_at("output", place), local_at("value", place));
    let mut wire = 0..;
    let given: Vec<TokenStream> = task
        .params
        .iter()
        .enumerate()
        .map(|(index, param)| match &param.source {
            Source::Wire(argument) => arguments::given(argument, wire.next().unwrap_or_default()),
            Source::Context => context.clone(),
            Source::State(_) | Source::Extractor(_) => {
                let variable = injected(index);
                quote!(#variable)
            }
        })
        .collect();
    let call = call_body(task, &given);
    let success = match (task.output.fallible, task.options.retry_when()) {
        (false, _) => quote!(#output),
        (true, None) => quote_spanned!(at(place)=> #rt::fallible(#output)?),
        (true, Some(when)) => quote_spanned!(at(when.span())=> #rt::fallible_when(#output, #when)?),
    };
    let constant = checks::output_type();
    let finished = quote_spanned!(at(place)=> #constant.encode(#context, &#value));
    quote! {
        let #output = #call;
        let #value = #success;
        #finished
    }
}

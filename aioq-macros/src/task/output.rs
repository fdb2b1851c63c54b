//! The return type of a task.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens as _, quote_spanned};
use syn::spanned::Spanned as _;
use syn::visit::{self, Visit};
use syn::{
    GenericArgument, PathArguments, ReturnType, Signature, Type, TypeImplTrait, TypeParamBound, TypePath,
    TypeReference,
};

use super::borrow::{owned_text, peel};
use super::refuse;
use crate::errors::Errors;

/// The last segment of a type that can hold an error: std's, and aioq's own alias of it.
const RESULTS: [&str; 2] = ["Result", "TaskResult"];

/// The return type.
pub(super) struct Output {
    /// The type as written, `()` without one.
    pub(super) returned: TokenStream,
    /// Span of errors about it.
    pub(super) span: Span,
    /// True if it is a `Result`.
    pub(super) fallible: bool,
}

impl Output {
    pub(super) fn read(signature: &Signature, fallible: bool, errors: &mut Errors) -> Self {
        let ReturnType::Type(_, ty) = &signature.output else {
            let span = signature.ident.span();
            return Self { returned: quote_spanned!(span=> ()), span, fallible };
        };
        CheckReturned { whole: ty, errors }.visit_type(ty);
        if let Some(error) = unsendable_error(ty) {
            let message = "the error of a task crosses threads: return `Result<_, aioq::BoxError>`, which `?` makes of \
                           any error that is `Send + Sync`";
            errors.push(refuse(error, message));
        }
        Self { returned: ty.to_token_stream(), span: ty.span(), fallible: fallible || is_result(ty) }
    }

    /// The type of a success.
    pub(super) fn success(&self, rt: &TokenStream) -> TokenStream {
        let returned = &self.returned;
        if self.fallible {
            quote_spanned!(self.span=> <#returned as #rt::Fallible>::Ok)
        } else {
            returned.clone()
        }
    }
}

fn is_result(ty: &Type) -> bool {
    match peel(ty) {
        Type::Path(TypePath { path, .. }) => {
            path.segments.last().is_some_and(|segment| RESULTS.iter().any(|name| segment.ident == name))
        }
        _ => false,
    }
}

/// The error of a `Result<_, Box<dyn Error>>` that does not say `Send + Sync`.
fn unsendable_error(ty: &Type) -> Option<&Type> {
    let error = type_arguments(ty, "Result")?.nth(1)?;
    let Type::TraitObject(object) = peel(type_arguments(error, "Box")?.next()?) else { return None };
    let bounds = |name: &str| {
        object.bounds.iter().any(|bound| {
            let TypeParamBound::Trait(bound) = bound else { return false };
            bound.path.segments.last().is_some_and(|segment| segment.ident == name)
        })
    };
    (bounds("Error") && !(bounds("Send") && bounds("Sync"))).then_some(error)
}

/// The type arguments of a type whose last segment is `name`.
fn type_arguments<'a>(ty: &'a Type, name: &str) -> Option<impl Iterator<Item = &'a Type>> {
    let Type::Path(TypePath { path, .. }) = peel(ty) else { return None };
    let segment = path.segments.last().filter(|segment| segment.ident == name)?;
    let PathArguments::AngleBracketed(arguments) = &segment.arguments else { return None };
    Some(arguments.args.iter().filter_map(|argument| match argument {
        GenericArgument::Type(ty) => Some(ty),
        _ => None,
    }))
}

struct CheckReturned<'a> {
    whole: &'a Type,
    errors: &'a mut Errors,
}

impl Visit<'_> for CheckReturned<'_> {
    fn visit_type_impl_trait(&mut self, ty: &TypeImplTrait) {
        let message =
            "a task returns one concrete type: its result is stored, and read by whoever waits for it";
        self.errors.push(refuse(ty, message));
    }

    fn visit_type_reference(&mut self, reference: &TypeReference) {
        if reference.lifetime.as_ref().is_some_and(|lifetime| lifetime.ident == "static") {
            return visit::visit_type_reference(self, reference);
        }
        let message = format!("a result outlives the run: return `{}`", owned_text(self.whole));
        self.errors.push(refuse(reference, message));
    }

    fn visit_type(&mut self, ty: &Type) {
        if !matches!(ty, Type::TraitObject(_) | Type::FnPtr(_)) {
            visit::visit_type(self, ty);
        }
    }
}

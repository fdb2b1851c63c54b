//! References in types, and the owned types behind them.

use quote::quote_spanned;
use syn::spanned::Spanned as _;
use syn::visit::{self, Visit};
use syn::visit_mut::{self, VisitMut};
use syn::{
    GenericArgument, Lifetime, PathArguments, Type, TypeImplTrait, TypeInfer, TypePath, TypeReference,
};

use super::refuse;
use crate::errors::Errors;
use crate::type_text::type_text;

/// A type without the invisible groups and the parentheses around it.
pub(super) fn peel(ty: &Type) -> &Type {
    match ty {
        Type::Group(group) => peel(&group.elem),
        Type::Paren(paren) => peel(&paren.elem),
        other => other,
    }
}

/// True if the type is a path with the last segment `name`, without generic arguments.
pub(super) fn is_plain(ty: &Type, name: &str) -> bool {
    last_segment(ty).is_some_and(|segment| segment.ident == name && segment.arguments.is_none())
}

/// True if the type is `[u8]`.
pub(super) fn is_byte_slice(ty: &Type) -> bool {
    matches!(ty, Type::Slice(slice) if is_plain(&slice.elem, "u8"))
}

/// True if the type is `Vec<u8>`.
pub(super) fn is_byte_vec(ty: &Type) -> bool {
    let Some(segment) = last_segment(ty).filter(|segment| segment.ident == "Vec") else { return false };
    let PathArguments::AngleBracketed(arguments) = &segment.arguments else { return false };
    let mut arguments = arguments.args.iter();
    let first = matches!(arguments.next(), Some(GenericArgument::Type(item)) if is_plain(item, "u8"));
    first && arguments.next().is_none()
}

fn last_segment(ty: &Type) -> Option<&syn::PathSegment> {
    match peel(ty) {
        Type::Path(TypePath { qself: None, path, .. }) => path.segments.last(),
        _ => None,
    }
}

/// The type with every reference replaced by its owned type: `Option<&str>` is `Option<String>`.
pub(super) fn owned(ty: &Type) -> Type {
    let mut ty = ty.clone();
    Owned.visit_type_mut(&mut ty);
    ty
}

struct Owned;

impl VisitMut for Owned {
    fn visit_type_mut(&mut self, ty: &mut Type) {
        if let Type::Reference(reference) = peel(ty) {
            *ty = owner_of(&reference.elem);
        }
        visit_mut::visit_type_mut(self, ty);
    }
}

/// The owned type of a reference to `target`: `String` for `str`.
fn owner_of(target: &Type) -> Type {
    let target = peel(target);
    let span = target.span();
    if is_plain(target, "str") {
        return Type::Verbatim(quote_spanned!(span=> ::std::string::String));
    }
    if is_plain(target, "Path") {
        return Type::Verbatim(quote_spanned!(span=> ::std::path::PathBuf));
    }
    match target {
        Type::Slice(slice) => {
            let item = owned(&slice.elem);
            syn::parse_quote_spanned!(span=> ::std::vec::Vec<#item>)
        }
        other => other.clone(),
    }
}

/// The owned type as a person would write it.
pub(super) fn owned_text(ty: &Type) -> String {
    type_text(&owned(ty))
        .replace("::std::string::", "")
        .replace("::std::path::", "")
        .replace("::std::vec::", "")
}

/// Refuses references and other parts that the type of an argument cannot contain. `ty` is a part
/// of the declared type `whole`.
pub(super) fn check_argument(ty: &Type, whole: &Type, errors: &mut Errors) {
    CheckArgument { whole, errors }.visit_type(ty);
}

struct CheckArgument<'a> {
    whole: &'a Type,
    errors: &'a mut Errors,
}

impl Visit<'_> for CheckArgument<'_> {
    fn visit_type_reference(&mut self, reference: &TypeReference) {
        let message = format!("an argument owns its parts: write `{}`", owned_text(self.whole));
        self.errors.push(refuse(reference, message));
    }

    fn visit_type_impl_trait(&mut self, ty: &TypeImplTrait) {
        let message =
            format!("an argument has one concrete type, not `{}`: the worker must know it", type_text(ty));
        self.errors.push(refuse(ty, message));
    }

    fn visit_type_infer(&mut self, ty: &TypeInfer) {
        self.errors.push(refuse(ty, "the type of an argument is written out"));
    }

    fn visit_lifetime(&mut self, lifetime: &Lifetime) {
        if lifetime.ident != "static" {
            let message = format!("an argument owns its parts: write a type without `{lifetime}`");
            self.errors.push(refuse(lifetime, message));
        }
    }

    // References inside a function pointer or a trait object are allowed here: another check
    // refuses those types.
    fn visit_type_fn_ptr(&mut self, _: &syn::TypeFnPtr) {}

    fn visit_type(&mut self, ty: &Type) {
        if !matches!(ty, Type::TraitObject(_)) {
            visit::visit_type(self, ty);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(source: &str) -> Type {
        syn::parse_str(source).unwrap()
    }

    #[test]
    fn the_owned_form_of_every_reference_is_named() {
        for (borrowed, owned) in [
            ("Option<&str>", "Option<String>"),
            ("&[&str]", "Vec<String>"),
            ("(&Path, &u8)", "(PathBuf, u8)"),
            ("HashMap<&str, &[u8]>", "HashMap<String, Vec<u8>>"),
        ] {
            assert_eq!(owned_text(&parse(borrowed)), owned);
        }
    }

    #[test]
    fn bytes_are_recognized() {
        assert!(is_byte_vec(&parse("std::vec::Vec<u8>")) && is_byte_slice(&parse("[u8]")));
        assert!(!is_byte_vec(&parse("Vec<u16>")) && !is_byte_vec(&parse("Vec<u8, A>")));
    }
}

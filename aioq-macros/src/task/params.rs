//! The parameters of a task: arguments that travel, and values that the worker injects.

use proc_macro2::{Ident, TokenStream};
use quote::ToTokens as _;
use syn::ext::IdentExt as _;
use syn::punctuated::Punctuated;
use syn::{Attribute, FnArg, Meta, Pat, PatIdent, PatType, Result, Token, Type, TypeReference};

use super::borrow::{check_argument, is_byte_slice, is_byte_vec, is_plain, owned, owned_text, peel};
use super::refuse;
use crate::errors::Errors;
use crate::type_text::type_text;

/// All parameters, in the order of the declaration.
#[derive(Default)]
pub(crate) struct Params(Vec<Param>);

/// One parameter.
pub(crate) struct Param {
    pub(super) ident: Ident,
    /// The parameter as the body declares it, without the attributes of aioq.
    pub(super) declaration: PatType,
    pub(super) source: Source,
}

/// Source of the value.
pub(super) enum Source {
    Wire(Wire),
    /// `#[inject] x: &Context`.
    Context,
    /// `#[inject] x: &T`.
    State(Type),
    /// `#[inject] x: T`.
    Extractor(Type),
}

/// A parameter that travels.
pub(crate) struct Wire {
    /// Its name in messages.
    pub(crate) name: String,
    /// The value for a message without it.
    pub(crate) default: Option<DefaultValue>,
    /// The type that owns the value.
    pub(super) owned: Type,
    pub(super) form: Form,
    /// True if the caller may give any type that converts into the owned one.
    pub(super) converted: bool,
    /// True if the body gets a reference.
    pub(super) lent: bool,
}

/// `#[default]` or `#[default(expr)]`.
pub(crate) enum DefaultValue {
    OfType,
    Given(TokenStream),
}

/// Form in which a value is read from the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Value,
    /// Text, borrowed from the message.
    Str,
    /// Bytes, borrowed from the message.
    ByteSlice,
    /// Bytes, owned.
    ByteBuf,
}

impl Params {
    /// Reads the parameters. A wrong parameter is reported and left out.
    pub(super) fn read(inputs: &Punctuated<FnArg, Token![,]>, errors: &mut Errors) -> Self {
        let typed = inputs.iter().filter_map(|input| match input {
            FnArg::Typed(param) => Some(param),
            FnArg::Receiver(_) => None,
        });
        Self(typed.filter_map(|param| Param::read(param.clone(), errors)).collect())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Param> {
        self.0.iter()
    }

    /// The parameters that travel.
    pub(crate) fn wire(&self) -> impl Iterator<Item = &Wire> {
        self.iter().filter_map(Param::wire)
    }

    /// The names of the injected parameters.
    pub(crate) fn injected_names(&self) -> impl Iterator<Item = String> {
        self.iter().filter(|param| param.wire().is_none()).map(|param| param.ident.unraw().to_string())
    }

    /// True if every parameter travels.
    pub(super) fn all_travel(&self) -> bool {
        self.iter().all(|param| param.wire().is_some())
    }
}

impl Param {
    fn read(mut declaration: PatType, errors: &mut Errors) -> Option<Self> {
        let marks = errors.note(Marks::take(&mut declaration.attrs));
        let ident = errors.note(name(&declaration.pat));
        let (marks, ident) = (marks?, ident?);
        let source = if marks.injected {
            errors.note(injected(&declaration.ty))?
        } else {
            Source::Wire(Wire::read(&ident, &declaration.ty, marks.default, errors)?)
        };
        Some(Self { ident, declaration, source })
    }

    pub(super) fn wire(&self) -> Option<&Wire> {
        match &self.source {
            Source::Wire(wire) => Some(wire),
            _ => None,
        }
    }
}

/// The attributes that aioq reads.
struct Marks {
    injected: bool,
    default: Option<DefaultValue>,
}

impl Marks {
    /// Takes the marks off the parameter.
    fn take(attributes: &mut Vec<Attribute>) -> Result<Self> {
        let mut marks = Self { injected: false, default: None };
        for attribute in std::mem::take(attributes) {
            let path = attribute.path();
            if path.is_ident("cfg") || path.is_ident("cfg_attr") {
                return Err(refuse(
                    attribute,
                    "a parameter of a task has no `#[cfg]`: messages would change with it",
                ));
            } else if path.is_ident("inject") {
                marks.inject(&attribute)?;
            } else if path.is_ident("default") {
                marks.default(&attribute)?;
            } else {
                attributes.push(attribute);
            }
        }
        Ok(marks)
    }

    fn inject(&mut self, attribute: &Attribute) -> Result<()> {
        if !matches!(attribute.meta, Meta::Path(_)) {
            return Err(refuse(attribute, "write `#[inject]`: the type says what is injected"));
        }
        if self.injected {
            return Err(refuse(attribute, "duplicate `#[inject]`"));
        }
        self.injected = true;
        self.check_one(attribute)
    }

    fn default(&mut self, attribute: &Attribute) -> Result<()> {
        if self.default.is_some() {
            return Err(refuse(attribute, "duplicate `#[default]`"));
        }
        self.default = Some(match &attribute.meta {
            Meta::Path(_) => DefaultValue::OfType,
            Meta::List(list) if !list.tokens.is_empty() => {
                DefaultValue::Given(list.parse_args::<syn::Expr>()?.to_token_stream())
            }
            _ => return Err(refuse(attribute, "write `#[default]` or `#[default(expression)]`")),
        });
        self.check_one(attribute)
    }

    fn check_one(&self, attribute: &Attribute) -> Result<()> {
        if self.injected && self.default.is_some() {
            return Err(refuse(
                attribute,
                "a parameter is either `#[inject]`, given by the worker, or `#[default]`, carried by the message",
            ));
        }
        Ok(())
    }
}

/// The name of a parameter: `x` or `mut x`.
fn name(pattern: &Pat) -> Result<Ident> {
    match pattern {
        Pat::Ident(PatIdent { by_ref: None, subpat: None, ident, .. }) => Ok(ident.clone()),
        Pat::Wild(wild) => {
            Err(refuse(wild, "give this parameter a name, for example `_unused`: arguments travel by name"))
        }
        other => Err(refuse(
            other,
            "a parameter of a task is one name, because arguments travel by name: take it apart in the body",
        )),
    }
}

fn injected(ty: &Type) -> Result<Source> {
    match peel(ty) {
        Type::Reference(reference) => lent(reference),
        Type::ImplTrait(_) => Err(refuse(ty, "what is injected is found by its type: name a concrete one")),
        extracted => Ok(Source::Extractor(extracted.clone())),
    }
}

fn lent(reference: &TypeReference) -> Result<Source> {
    let target = peel(&reference.elem);
    let text = type_text(target);
    if reference.mutability.is_some() {
        let message = format!(
            "state is shared by all jobs: inject `&{text}`, and put a lock or an atomic inside it for what changes"
        );
        return Err(refuse(reference, message));
    }
    if let Some(lifetime) = &reference.lifetime {
        return Err(refuse(
            lifetime,
            format!("state is lent for one run: write `&{text}`, without a lifetime"),
        ));
    }
    let unsized_type = matches!(target, Type::TraitObject(_) | Type::Slice(_)) || is_plain(target, "str");
    if unsized_type {
        let message = format!("state is found by its concrete type: inject a struct, or `&Arc<{text}>`");
        return Err(refuse(reference, message));
    }
    Ok(if is_plain(target, "Context") { Source::Context } else { Source::State(target.clone()) })
}

impl Wire {
    fn read(ident: &Ident, ty: &Type, default: Option<DefaultValue>, errors: &mut Errors) -> Option<Self> {
        let mut found = Errors::default();
        let ty = peel(ty);
        let target = match ty {
            Type::Reference(reference) => {
                found.note(check_reference(ident, ty, reference));
                peel(&reference.elem)
            }
            other => other,
        };
        check_argument(target, ty, &mut found);
        let fine = found.is_empty();
        errors.append(found);
        let (form, converted) = form_of(ty, target);
        let lent = matches!(ty, Type::Reference(_));
        let name = ident.unraw().to_string();
        fine.then(|| Self { name, default, owned: owned(ty), form, converted, lent })
    }
}

fn check_reference(ident: &Ident, ty: &Type, reference: &TypeReference) -> Result<()> {
    let owner = owned_text(ty);
    if reference.mutability.is_some() {
        let message = format!("an argument belongs to the job: take `mut {ident}: {owner}`");
        return Err(refuse(reference, message));
    }
    let target = type_text(&*reference.elem);
    match &reference.lifetime {
        Some(lifetime) => Err(refuse(
            lifetime,
            format!(
                "an argument lives as long as the run: write `&{target}`, without a lifetime, or `{owner}`"
            ),
        )),
        None => Ok(()),
    }
}

/// The form in which the parameter is read, and true if the caller's value is converted.
fn form_of(ty: &Type, target: &Type) -> (Form, bool) {
    let borrowed = matches!(ty, Type::Reference(_));
    if borrowed && is_plain(target, "str") {
        (Form::Str, true)
    } else if borrowed && is_byte_slice(target) {
        (Form::ByteSlice, true)
    } else if is_byte_vec(target) {
        (Form::ByteBuf, false)
    } else {
        (Form::Value, borrowed && is_plain(target, "Path"))
    }
}

//! The signatures that a task can have.

use syn::{FnArg, Safety, Signature};

use super::refuse;
use crate::errors::Errors;

/// Refuses functions that the worker could not call.
pub(super) fn check(signature: &Signature, errors: &mut Errors) {
    check_qualifiers(signature, errors);
    let generics = &signature.generics;
    if !generics.params.is_empty() {
        let message = "a task cannot be generic: the message carries the task's name alone, and the worker must \
                       know every type";
        errors.push(refuse(generics, message));
    }
    if let Some(clause) = &generics.where_clause {
        errors.push(refuse(clause, "a task is not generic, so it has no `where` clause"));
    }
    if let Some(FnArg::Receiver(receiver)) = signature.inputs.first() {
        let message = "a task is a free function: it has no `self`; take what it needs as parameters, or \
                       `#[inject]` it";
        errors.push(refuse(receiver, message));
    }
    if let Some(variadic) = &signature.variadic {
        errors.push(refuse(variadic, "a task cannot be variadic: take a `Vec`"));
    }
}

fn check_qualifiers(signature: &Signature, errors: &mut Errors) {
    if let Some(constness) = signature.constness {
        errors.push(refuse(constness, "a task cannot be `const`: it runs on a worker"));
    }
    if let Safety::Unsafe(unsafety) = signature.safety {
        let message = "a task cannot be `unsafe`: a message cannot promise what the body relies on";
        errors.push(refuse(unsafety, message));
    }
    if let Some(abi) = &signature.abi {
        errors.push(refuse(abi, "a task cannot be `extern`: it is an ordinary Rust function"));
    }
}

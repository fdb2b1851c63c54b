//! What the attributes accept, and what they say when they do not.

#![allow(clippy::unwrap_used)]

#[test]
fn attributes_accept_good_code_and_explain_bad_code() {
    let cases = trybuild::TestCases::new();
    cases.pass("tests/ui/pass/*.rs");
    cases.compile_fail("tests/ui/fail/*.rs");
}

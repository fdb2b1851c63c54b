//! Names that the generated code could trip over.
#![deny(warnings)]
#![allow(non_upper_case_globals, dead_code)]

use aioq::task;

const to: u8 = 1;
const ctx: u8 = 1;
static reader: u8 = 1;

struct String;
struct Vec;
struct Option;
struct Result;
mod core {}

#[task]
async fn shadows(reader_: u8, output: u8, value: u8, args: u8, out: u8, shadows: u8, injected: u8) -> u8 {
    let _ = (String, Vec, Option, Result);
    reader_ + output + value + args + out + shadows + injected
}

#[task(name = "raw")]
async fn r#fn(r#type: &str, r#match: u8, #[default(ctx)] other: u8) -> u8 {
    r#type.len() as u8 + r#match + other + to + reader
}

#[task]
async fn nothing() {}

#[task]
fn nothing_blocking() {}

macro_rules! tasks {
    ($($name:ident: $ty:ty => $out:ty),*) => {$(
        #[task]
        async fn $name(argument: $ty) -> $out {
            argument.len()
        }
    )*};
}

tasks!(of_a_macro: &str => usize, of_a_macro_too: &[u16] => usize);

mod inner {
    #[aioq::task]
    pub(crate) async fn add(a: i64, b: i64) -> i64 {
        a + b
    }

    #[aioq::task(crate = ::aioq)]
    pub(in crate::inner) async fn hidden() {}
}

use inner::add;

fn main() {
    #[task]
    async fn local(x: u8) -> u8 {
        x
    }

    let _ = (add(1, 2), local(3), shadows(1, 2, 3, 4, 5, 6, 7), nothing(), nothing_blocking());
    let _ = (r#fn("a", 1, 2), of_a_macro("a"), of_a_macro_too(vec![1]));
    let _ = (add::call(1, 2), local::NAME, nothing::call());
    nothing_blocking::call();
    assert_eq!(r#fn::NAME, "raw");
}
